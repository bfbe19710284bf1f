"""What M-SAM and its kin keep from step to step, and what a step costs: share, every, kept contributions, memory, draws."""

import gc
import io

import pytest
import torch
from torch import nn

import msam
from msam import sharpness
from tests.contract._rules import RULES, made
from tests.sharpness._flat import close, flat, spent
from tests.sharpness._modal import SHARES, batch, by_block, in_one_call, losses, model_of, rule_of

RHO = 0.4


def gradient(options: dict, shares=(0.3, 0.7), rho: float = RHO, kind: type[msam.Sharpness] = msam.MSAM):
    model = model_of("maxout")
    by_block(kind(torch.optim.SGD(model.parameters(), lr=0.1), rho, model=model, **options), list(shares))
    return spent(model)


class TestShare:
    def test_share_one_is_sam(self):
        close(gradient({"share": "one"}), gradient({}, kind=msam.SAM))

    @pytest.mark.parametrize("share", [0, 0.25, 1])
    def test_a_number_is_the_constant_blend_whatever_the_contributions(self, share):
        constant = gradient({"alpha": share}, kind=sharpness.GNP)
        for shares in ([0.3, 0.7], [0.9, 0.1]):
            close(gradient({"share": share}, shares), constant)

    def test_the_share_is_reported(self):
        for share, expected in (("contribution", 0.7), ("one", 1.0), (0.25, 0.25)):
            rule = rule_of(model_of("sum"), share=share)
            by_block(rule, [0.3, 0.7])
            assert rule.last["share"] == expected

    def test_contributions_are_checked_even_where_the_share_is_fixed(self):
        with pytest.raises(ValueError, match="`contributions` must be"):
            gradient({"share": "one"}, (0.3, 0.3))

    @pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), True], ids=str)
    def test_a_number_that_is_no_share_is_refused(self, share):
        with pytest.raises(ValueError, match="`share` must be >= 0 and <= 1"):
            rule_of(model_of("sum"), share=share)

    def test_a_word_that_is_none_is_refused(self):
        with pytest.raises(ValueError, match=r"Unknown share 'contributions'\. Did you mean 'contribution'"):
            rule_of(model_of("sum"), share="contributions")


class TestCompensate:
    def test_the_radius_is_divided_by_the_share(self):
        close(gradient({"compensate": True}), gradient({}, rho=RHO / 0.7))

    def test_to_first_order_the_effect_is_then_that_of_sam(self):
        plain = gradient({}, rho=0.0)
        for rho, error in ((1e-3, 1e-2), (1e-5, 1e-4)):
            sam = gradient({}, rho=rho, kind=msam.SAM) - plain
            compensated = gradient({"compensate": True}, rho=rho) - plain
            assert float((compensated - sam).norm() / sam.norm()) < error

    def test_the_radius_that_was_climbed_is_reported(self):
        rule = rule_of(model_of("sum"), compensate=True)
        by_block(rule, [0.3, 0.7])
        assert rule.last["radius"] == pytest.approx(RHO / 0.7)

    def test_a_share_of_zero_divides_nothing(self):
        close(gradient({"compensate": True, "share": 0}), gradient({}, rho=0.0))


class TestContributionsEvery:
    def test_contributions_are_wanted_and_heard_every_nth_step_and_kept_in_between(self):
        rule, twin = rule_of(model_of("sum"), contributions_every=3), rule_of(model_of("sum"))
        given = [[0.3, 0.7], None, None, [0.9, 0.1], None]
        used = [[0.3, 0.7]] * 3 + [[0.9, 0.1]] * 2
        for t, (mine, same) in enumerate(zip(given, used, strict=True)):
            assert rule.wants_contributions is (mine is not None)
            by_block(rule, mine, t)
            by_block(twin, same, t)
            assert rule.last["share"] == max(same)
            close(spent(rule.model), spent(twin.model))

    def test_contributions_given_in_between_are_taken(self):
        rule = rule_of(model_of("sum"), contributions_every=3)
        by_block(rule, [0.3, 0.7])
        by_block(rule, [0.8, 0.2])
        assert rule.last["share"] == 0.8

    def test_when_they_are_wanted_none_is_an_error(self):
        rule = rule_of(model_of("sum"), contributions_every=2)
        for t, shares in enumerate(([0.3, 0.7], None)):
            by_block(rule, shares, t)
        with pytest.raises(ValueError, match="needs the contributions"):
            by_block(rule, None, 2)

    @pytest.mark.parametrize("stop", [1, 2, 3])
    def test_saved_in_between_it_goes_on(self, stop):
        rules = [rule_of(model_of("sum"), contributions_every=3) for _ in range(2)]
        for t in range(stop):
            by_block(rules[0], [0.3, 0.7] if rules[0].wants_contributions else None, t)
        rules[1].load_state_dict(reloaded(rules[0].state_dict()))
        assert rules[1].wants_contributions is (stop == 3)
        rules[1].model.load_state_dict(rules[0].model.state_dict())
        for rule in rules:
            by_block(rule, [0.8, 0.2] if rule.wants_contributions else None, stop)
        assert torch.equal(*[spent(rule.model) for rule in rules])

    def test_the_closure_form_need_not_observe_in_between(self):
        rule = rule_of(model_of("sum"), contributions_every=2)
        optimizer, shares = rule.as_optimizer(), []
        x, y = batch()

        def closure():
            optimizer.zero_grad()
            loss = losses(rule.model(x), y).mean()
            loss.backward()
            if rule.wants_contributions:
                rule.observe([0.3, 0.7])
            return loss

        for _ in range(3):
            optimizer.step(closure)
            shares.append(rule.last["share"])
        assert shares == [0.7] * 3

    @pytest.mark.parametrize("option", ["contributions_every", "every"])
    def test_less_than_one_is_refused(self, option):
        with pytest.raises(ValueError, match=f"`{option}` must be >= 1"):
            rule_of(model_of("sum"), **{option: 0})


def reloaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class TestEvery:
    @pytest.mark.parametrize("scope", ["all", "dominant"])
    def test_it_climbs_every_kth_step_and_one_pass_does_in_between(self, scope):
        rule, passes = rule_of(model_of("sum"), every=3, scope=scope), []
        rule.model.register_forward_hook(lambda *_: passes.append(1))
        counts = []
        for t in range(7):
            passes.clear()
            in_one_call(rule, SHARES[2], t)
            counts.append(len(passes))
            assert rule.last["radius"] == (RHO if t % 3 == 0 else 0.0)
        assert counts == [2, 1, 1, 2, 1, 1, 2]

    @pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
    def test_where_the_second_gradient_is_a_multiple_of_the_first_nothing_is_lost(self, share):
        w = nn.Parameter(torch.ones(4, dtype=torch.float64))
        rule = msam.MSAM(torch.optim.SGD([w], lr=0.1), RHO, every=4, share=share)
        generator = torch.Generator().manual_seed(0)
        for _ in range(8):
            g = torch.randn(4, generator=generator, dtype=torch.float64)
            w.grad = g.clone()
            with rule.perturbed([0.5, 0.5]) as climbing:
                if climbing:
                    w.grad = 1.3 * g
            close(w.grad, (1 - share) * g + share * 1.3 * g)

    def test_where_the_direction_stays_and_the_change_grows_with_the_gradient_nothing_is_lost(self):
        w = nn.Parameter(torch.ones(3, dtype=torch.float64))
        rule = msam.MSAM(torch.optim.SGD([w], lr=0.1), RHO, every=4)
        g, turned = torch.tensor([[2.0, -1.0, 0.5], [2.5, 1.0, -3.0]], dtype=torch.float64)
        for length in (1.0, 0.1, 7.0, 2.0):
            w.grad = length * g
            with rule.perturbed([0.4, 0.6]) as climbing:
                if climbing:
                    w.grad = length * turned
            close(w.grad, length * (0.4 * g + 0.6 * turned))

    def test_in_between_the_share_is_that_of_the_step(self):
        w = nn.Parameter(torch.ones(1, dtype=torch.float64))
        rule = msam.MSAM(torch.optim.SGD([w], lr=0.1), RHO, every=2)
        for shares in ([0.4, 0.6], [0.1, 0.9]):
            w.grad = torch.ones_like(w)
            with rule.perturbed(shares) as climbing:
                if climbing:
                    w.grad = torch.full_like(w, 2.0)
            assert w.grad.item() == pytest.approx(1 + max(shares))
            assert rule.last["share"] == max(shares)

    @pytest.mark.parametrize("stop", [1, 2, 3, 4])
    def test_saved_anywhere_it_goes_on_bit_for_bit(self, stop):
        rules = [rule_of(model_of("sum"), every=3) for _ in range(2)]
        for t in range(stop):
            by_block(rules[0], SHARES[2], t)
            rules[0].optimizer.step()
        for part in ("model", "optimizer"):
            getattr(rules[1], part).load_state_dict(reloaded(getattr(rules[0], part).state_dict()))
        rules[1].load_state_dict(reloaded(rules[0].state_dict()))
        for rule in rules:
            for t in range(stop, 7):
                by_block(rule, SHARES[2], t)
                rule.optimizer.step()
        assert torch.equal(*[flat(rule.model) for rule in rules])


def alive() -> int:
    """Return the bytes of all tensors that can be reached."""
    gc.collect()
    tensors = [t for t in gc.get_objects() if type(t) in (torch.Tensor, nn.Parameter)]
    return sum({t.data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.layout == torch.strided}.values())


class TestMemory:
    SIZE = 100_000

    def copies(self, name: str, memory: str) -> float:
        """Return how many copies of the parameters a rule holds while a block runs, beside those that it began with."""
        w = nn.Parameter(torch.linspace(1, 2, self.SIZE))
        rule = made(name, torch.optim.SGD([w], lr=0.1), 0.1, memory=memory)
        w.grad = torch.linspace(-1, 1, self.SIZE)
        before = alive()
        with rule.perturbed([0.5, 0.5]):
            held = (alive() - before) / (4 * self.SIZE)
            w.grad = torch.ones_like(w)
        return held

    @pytest.mark.parametrize("name", RULES)
    def test_exact_keeps_one_copy_low_none_where_the_gradient_itself_is_the_way_back(self, name):
        along_something_else = name in ("asam", "fisher_sam", "fsam")
        remembered = 1 if name == "fsam" else 0
        assert self.copies(name, "exact") == pytest.approx(1 + remembered, abs=0.01)
        assert self.copies(name, "low") == pytest.approx(along_something_else + remembered, abs=0.01)

    @pytest.mark.parametrize("name", RULES)
    def test_low_spends_the_same_and_weights_come_back_to_rounding(self, name):
        found = []
        for memory in ("exact", "low"):
            model = model_of("maxout")
            theta = flat(model)
            by_block(
                made(name, torch.optim.SGD(model.parameters(), lr=0.1), RHO, model=model, memory=memory), SHARES[2]
            )
            found.append(spent(model))
            close(flat(model), theta, atol=1e-15)
        assert torch.equal(*found)

    @pytest.mark.parametrize("inside", ["exception", "storage replaced"])
    def test_low_comes_back_after_an_exception_and_where_the_storage_was_replaced(self, inside):
        rule = rule_of(model_of("sum"), memory="low")
        theta = flat(rule.model)

        def meddling(output, y):
            if rule.slots.taken and inside == "exception":
                raise KeyboardInterrupt
            for p in rule.model.parameters() if rule.slots.taken else ():
                p.data = p.data.clone()
            return losses(output, y)

        try:
            by_block(rule, SHARES[2], loss=meddling)
        except KeyboardInterrupt:
            assert inside == "exception"
        close(flat(rule.model), theta, atol=1e-15)


class TestReplay:
    def masks(self, rule: msam.Sharpness) -> list[torch.Tensor]:
        seen: list[torch.Tensor] = []
        rule.model.encoders["audio"][-1].register_forward_hook(lambda _m, _x, out: seen.append(out == 0))
        return seen

    def rule(self, name: str, **options) -> msam.Sharpness:
        model = model_of("dropping maxout", dropout=0.5)
        return made(name, torch.optim.SGD(model.parameters(), lr=0.1), RHO, model=model, **options)

    @pytest.mark.parametrize("form", [by_block, in_one_call])
    @pytest.mark.parametrize("name", RULES)
    def test_both_passes_drop_the_same_and_the_draws_go_on_as_after_one(self, name, form):
        for rng in ("free", "replay"):
            rule = self.rule(name, rng=rng)
            seen = self.masks(rule)
            torch.manual_seed(3)
            form(rule, SHARES[2])
            after = torch.get_rng_state()
            torch.manual_seed(3)
            rule.model(batch()[0])
            assert len(seen) == 3
            assert torch.equal(seen[0], seen[1]) is (rng == "replay")
            assert torch.equal(torch.get_rng_state(), after) is (rng == "replay")
            assert torch.equal(seen[0], seen[2])

    def test_the_closure_form_replays_too(self):
        rule = self.rule("msam", rng="replay")
        seen, optimizer = self.masks(rule), rule.as_optimizer()
        x, y = batch()

        def closure():
            optimizer.zero_grad()
            loss = losses(rule.model(x), y).mean()
            loss.backward()
            rule.observe(SHARES[2])
            return loss

        optimizer.step(closure)
        optimizer.step(closure)
        assert torch.equal(seen[0], seen[1])
        assert torch.equal(seen[2], seen[3])
        assert not torch.equal(seen[0], seen[2])

    def test_a_block_that_cannot_know_what_was_drawn_is_refused(self):
        rule = self.rule("msam", rng="replay")
        x, y = batch()
        theta = flat(rule.model)
        losses(rule.model(x), y).mean().backward()
        with pytest.raises(RuntimeError, match=r"with sharpness\.replayable\(\)"), rule.perturbed(SHARES[2]):
            pass
        assert torch.equal(flat(rule.model), theta)

    def test_so_is_a_second_step_inside_the_same_replayable(self):
        rule = self.rule("msam", rng="replay")
        x, y = batch()
        with rule.replayable():
            losses(rule.model(x), y).mean().backward()
            with rule.perturbed(SHARES[2]):
                losses(rule.model(x), y).mean().backward()
            with pytest.raises(RuntimeError, match=r"with sharpness\.replayable\(\)"), rule.perturbed(SHARES[2]):
                pass
