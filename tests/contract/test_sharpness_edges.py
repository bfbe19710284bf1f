"""Laws for every rule found in the folder: what can go wrong on the way up, inside and on the way down."""

import math
import warnings

import pytest
import torch
from torch import nn

from msam.sharpness import Sharpness
from tests.contract._rules import (
    RULES,
    SHARES,
    WITH_SHARE,
    after_first_pass,
    data,
    gradients,
    loss_of,
    made,
    name_of,
    network,
    rule_for,
    same,
    weights,
)

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, eps=1e-2),
}


@pytest.fixture(params=RULES)
def rule(request) -> Sharpness:
    return after_first_pass(request.param)


def untouched(rule: Sharpness, theta: list[torch.Tensor], first: list[torch.Tensor]) -> bool:
    return same(weights(rule.model), theta) and all(a is b for a, b in zip(gradients(rule.model), first, strict=True))


def both_passes(rule: Sharpness) -> None:
    with rule.perturbed(SHARES):
        loss_of(rule.model).backward()


class TestRefusedBeforeAnythingChanges:
    BAD = ([0.5, 0.2], [math.nan, 1.0], [math.inf, 0.0], [-0.5, 1.5], [[0.5, 0.5]], torch.zeros(0), 1.0, None)

    @pytest.mark.parametrize("shares", BAD, ids=str)
    @pytest.mark.parametrize("name", WITH_SHARE)
    def test_contributions_that_are_none(self, name, shares):
        rule = after_first_pass(name)
        theta, first = weights(rule.model), gradients(rule.model)
        with pytest.raises(ValueError, match="contributions"), rule.perturbed(shares):
            pass
        assert untouched(rule, theta, first)

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"rho": -0.1}, "`rho`"),
            ({"rho": math.nan}, "`rho`"),
            ({"rho": math.inf}, "`rho`"),
            ({"maximize": True}, "min"),
        ],
        ids=str,
    )
    def test_a_group_that_was_given_a_radius_that_is_none_or_told_to_maximize(self, rule, change, match):
        theta, first = weights(rule.model), gradients(rule.model)
        rule.optimizer.param_groups[0].update(change)
        with pytest.raises(ValueError, match=match), rule.perturbed(SHARES):
            pass
        assert untouched(rule, theta, first)
        with pytest.raises(ValueError, match=match):
            type(rule)(rule.optimizer, 0.1)


class TestTheWayUp:
    @pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=repr)
    @pytest.mark.parametrize("at", ["direction", "_foreach_add_"])
    def test_when_climbing_itself_fails_nothing_has_changed_and_the_rule_can_go_on(self, rule, error, at, monkeypatch):
        def fails(*_, **__):
            raise error

        theta, first = weights(rule.model), gradients(rule.model)
        with monkeypatch.context() as patch:
            patch.setattr(*((rule, at, fails) if at == "direction" else (torch, at, fails)))
            with pytest.raises(type(error)), rule.perturbed(SHARES):
                pass
        assert untouched(rule, theta, first)
        both_passes(rule)

    def test_the_warning_that_no_gradient_was_made_points_at_the_line_that_entered(self, rule):
        rule.optimizer.zero_grad()
        with pytest.warns(UserWarning, match="without any gradient") as caught, rule.perturbed(SHARES):
            pass
        assert caught[0].filename == __file__

    def test_gradients_with_a_graph_climb_in_silence_and_leave_none(self, rule):
        parameters = list(rule.model.parameters())
        for p, g in zip(
            parameters, torch.autograd.grad(loss_of(rule.model), parameters, create_graph=True), strict=True
        ):
            p.grad = g
        both_passes(rule)
        assert not any(g.requires_grad for g in gradients(rule.model))

    def test_a_gradient_too_short_to_divide_by_climbs_nowhere(self, rule):
        scalar = nn.Parameter(torch.ones(1))
        tiny = type(rule)(torch.optim.SGD([scalar], lr=0.1), 0.5)
        scalar.grad = torch.full((1,), 1e-40)
        with tiny.perturbed(SHARES) as climbing:
            assert scalar.item() == 1
        assert not climbing

    def test_low_precision_gradients_are_measured_in_float32(self, rule):
        parameters = [nn.Parameter(torch.zeros(1, dtype=torch.bfloat16)) for _ in range(3)]
        for p, g in zip(parameters, (1.0, 0.05, 0.03), strict=True):
            p.grad = torch.full_like(p, g)
        _, length = rule.direction({p: p.grad for p in parameters})
        assert length.dtype == torch.float32

    def test_a_group_added_later_climbs_too(self, rule):
        late = nn.Parameter(torch.zeros(2))
        rule.optimizer.add_param_group({"params": [late]})
        (late.sum() + loss_of(rule.model)).backward()
        with rule.perturbed(SHARES):
            assert late.abs().sum() > 0
            (late.sum() + loss_of(rule.model)).backward()
        assert late.tolist() == [0, 0]

    def test_each_group_climbs_by_its_own_radius_over_the_common_norm(self, rule):
        body, head = rule.model[0].bias, rule.model[3].bias
        twin = type(rule)(torch.optim.SGD([{"params": [body], "rho": 0.1}, {"params": [head], "rho": 0.3}], lr=1), 0.0)
        vectors, length = twin.direction({p: p.grad for p in (body, head)})
        expected = [body + 0.1 * vectors[body] / length, head + 0.3 * vectors[head] / length]
        with twin.perturbed(SHARES):
            torch.testing.assert_close([body, head], expected)
            loss_of(rule.model).backward()
        assert twin.last["radius"] == 0.3


class TestInside:
    def test_clearing_before_the_second_pass_changes_nothing(self, rule):
        twin = after_first_pass(type(rule).__module__.rpartition(".")[2])
        both_passes(twin)
        for set_to_none in (True, False):
            rule.model.zero_grad()
            loss_of(rule.model).backward()
            rule.model[1].reset_running_stats()
            with rule.perturbed(SHARES):
                rule.model.zero_grad(set_to_none=set_to_none)
                loss_of(rule.model).backward()
            torch.testing.assert_close(gradients(rule.model), gradients(twin.model), atol=1e-12, rtol=0)

    @pytest.mark.parametrize("ending", ["rho 0", "zero", "not finite", "exception"])
    def test_a_view_comes_back_as_the_same_view_with_what_it_held(self, rule, ending):
        weight = rule.model[0].weight
        bucket = weight.grad.flatten().clone()
        bucket *= {"zero": 0.0, "not finite": math.inf}.get(ending, 1.0)
        if ending == "zero":
            for p in rule.model.parameters():
                p.grad.zero_()
        weight.grad = view = bucket.view_as(weight)
        held = bucket.clone()
        rule.rho = 0.0 if ending == "rho 0" else rule.rho
        try:
            with rule.perturbed(SHARES):
                bucket.fill_(7.0)
                loss_of(rule.model).backward()
                if ending == "exception":
                    raise KeyError
        except KeyError:
            pass
        assert weight.grad is view
        torch.testing.assert_close(bucket, held, rtol=0, atol=0, equal_nan=True)

    def test_when_both_gradients_cannot_be_combined_the_first_stays(self, rule):
        theta, first = weights(rule.model), gradients(rule.model)
        weight = rule.model[0].weight
        with pytest.raises(ValueError, match="sparse=False"), rule.perturbed(SHARES):
            weight.grad = torch.zeros_like(weight).to_sparse()
        assert untouched(rule, theta, first)

    def test_a_second_gradient_that_is_not_finite_reaches_the_scaler_but_not_the_weights(self, rule):
        theta = weights(rule.model)
        with rule.perturbed(SHARES):
            (loss_of(rule.model) * math.nan).backward()
        assert same(weights(rule.model), theta)
        assert all(g.isnan().any() for g in gradients(rule.model) if g.numel() > 8)

    def test_weights_whose_storage_was_replaced_come_back(self, rule):
        theta = weights(rule.model)
        with rule.perturbed(SHARES):
            loss_of(rule.model).backward()
            for p in rule.model.parameters():
                p.data = torch.full_like(p, 5.0)
        assert same(weights(rule.model), theta)

    @pytest.mark.parametrize("dtypes", [(torch.bfloat16,) * 3, (torch.bfloat16, torch.float32, torch.float64)], ids=str)
    def test_weights_of_any_and_of_mixed_precision_come_back(self, rule, dtypes):
        parameters = [nn.Parameter(torch.linspace(-1, 1, 7).to(d)) for d in dtypes]
        mixed = type(rule)(torch.optim.SGD(parameters, lr=0.1), 0.05)
        theta = [p.detach().clone() for p in parameters]
        sum((p.double() ** 3).sum() for p in parameters).backward()
        with mixed.perturbed(SHARES):
            assert not any(torch.equal(p, t) for p, t in zip(parameters, theta, strict=True))
            sum((p.double() ** 3).sum() for p in parameters).backward()
        assert same([p.detach() for p in parameters], theta)
        assert [p.grad.dtype for p in parameters] == list(dtypes)


class TestAfterwards:
    @pytest.mark.parametrize("name", RULES)
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_a_small_radius_moves_the_step_of_any_optimizer_in_proportion_to_it(self, name, optimizer):
        def stepped(rho: float) -> torch.Tensor:
            rule = after_first_pass(name)
            other = made(name, OPTIMIZERS[optimizer](rule.model.parameters()), rho, model=rule.model)
            both_passes(other)
            other.optimizer.step()
            return torch.cat([w.flatten() for w in weights(rule.model)])

        plain = stepped(0.0)
        near, far = ((stepped(rho) - plain).norm() for rho in (1e-6, 2e-6))
        assert 0 < near < 1e-3
        assert float(far / near) == pytest.approx(2, rel=1e-3)

    def test_the_combined_gradient_is_clipped_once(self, rule):
        both_passes(rule)
        theta = weights(rule.model)
        torch.nn.utils.clip_grad_norm_(rule.model.parameters(), 1e-3)
        rule.optimizer.step()
        moved = math.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(weights(rule.model), theta, strict=True)))
        assert moved == pytest.approx(0.1 * 1e-3, rel=1e-4)

    def test_schedulers_see_the_steps_and_never_warn(self, rule):
        scheduler = torch.optim.lr_scheduler.StepLR(rule.optimizer, 1, 0.5)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                rule.optimizer.zero_grad()
                loss_of(rule.model).backward()
                both_passes(rule)
                rule.optimizer.step()
                scheduler.step()
        assert scheduler.get_last_lr() == [0.025]

    @pytest.mark.parametrize("name", RULES)
    def test_the_monitor_counts_climbs_and_a_restored_rule_counts_on(self, name):
        def reported(rule: Sharpness) -> bool:
            both_passes(rule)
            return "gradient_change" in rule.last

        rules = [after_first_pass(name) for _ in range(2)]
        for rule in rules:
            rule.monitor = 3
        assert [reported(rules[0]) for _ in range(3)] == [False, False, True]
        reported(rules[0])
        rules[1].load_state_dict(rules[0].state_dict())
        assert [reported(rules[1]) for _ in range(2)] == [False, True]


class TestBackward:
    def losses(self, output: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, data()[1], reduction="none")

    def test_contributions_may_be_a_function_of_the_output_at_theta(self, rule):
        with torch.no_grad():
            at_theta = network()(data()[0])
        heard = []
        rule.backward(rule.model, data()[0], self.losses, lambda output: heard.append(output.detach()) or SHARES)
        assert len(heard) == 1
        torch.testing.assert_close(heard[0], at_theta)

    def test_it_clears_what_was_there_holds_the_statistics_and_returns_the_first_output(self, rule):
        model = network()
        other = made(name_of(rule), torch.optim.SGD(model.parameters(), lr=0.1), 0.5)
        rule.optimizer.zero_grad()
        first = network()(data()[0])
        for _ in range(2):
            model[1].reset_running_stats()
            output = other.backward(model, data()[0], self.losses, SHARES)
        torch.testing.assert_close(output, first)
        assert model[1].num_batches_tracked == 1
        once = after_first_pass(type(rule).__module__.rpartition(".")[2])
        both_passes(once)
        torch.testing.assert_close(gradients(model), gradients(once.model), atol=1e-12, rtol=0)

    @pytest.mark.parametrize("name", RULES)
    def test_where_nothing_climbs_there_is_one_pass(self, name):
        rule = rule_for(name, network(), rho=0.0)
        passes = []
        rule.model.register_forward_hook(lambda *_: passes.append(1))
        rule.backward(rule.model, data()[0], self.losses, SHARES)
        assert len(passes) == 1
