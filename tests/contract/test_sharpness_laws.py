"""Laws for every rule found in the folder."""

import copy
import math

import pytest
import torch
from torch import nn

from msam import sharpness
from msam.sharpness import Sharpness

RULES = sharpness.names()
SHARES = torch.tensor([0.25, 0.75], dtype=torch.float64)
ALL_TO_ONE = torch.tensor([0.0, 1.0], dtype=torch.float64)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()


def data(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 4, generator=generator, dtype=torch.float64), torch.arange(size) % 3


def loss_of(model: nn.Module, rows: slice = slice(None)) -> torch.Tensor:
    x, y = data()
    return nn.functional.cross_entropy(model(x[rows]), y[rows])


def rule_for(name: str, model: nn.Module, rho: float = 0.5, **optimizer) -> Sharpness:
    sgd = torch.optim.SGD(model.parameters(), **{"lr": 0.1, **optimizer})
    return sharpness.load(name)(sgd, rho, model=model)


def gradients(model: nn.Module) -> list[torch.Tensor | None]:
    return [p.grad for p in model.parameters()]


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(params=RULES)
def rule(request) -> Sharpness:
    """A rule whose model has just made its first gradient."""
    model = network()
    made = rule_for(request.param, model)
    loss_of(model).backward()
    return made


class TestRadius:
    @pytest.mark.parametrize("name", RULES)
    def test_rho_zero_climbs_nowhere_and_leaves_the_gradient_untouched(self, name):
        model = network()
        rule = rule_for(name, model, rho=0.0)
        loss_of(model).backward()
        before, theta = gradients(model), weights(model)
        with rule.perturbed(SHARES) as climbing:
            assert same(weights(model), theta)
        assert not climbing
        assert all(a is b for a, b in zip(gradients(model), before, strict=True))

    @pytest.mark.parametrize("name", RULES)
    def test_a_small_radius_changes_the_gradient_in_proportion_to_it(self, name):
        def change(rho: float) -> float:
            model = network()
            rule = rule_for(name, model, rho)
            loss_of(model).backward()
            first = [g.clone() for g in gradients(model)]
            with rule.perturbed(SHARES):
                loss_of(model).backward()
            return math.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(gradients(model), first, strict=True)))

        assert 0 < change(1e-6) < 1e-4
        assert change(2e-6) / change(1e-6) == pytest.approx(2, rel=1e-3)

    @pytest.mark.parametrize("name", RULES)
    def test_at_share_one_a_rule_with_a_share_is_sam(self, name):
        if not sharpness.load(name).uses_contributions:
            return
        models = [network(), network()]
        for chosen, model in zip((name, "sam"), models, strict=True):
            rule = rule_for(chosen, model)
            loss_of(model).backward()
            with rule.perturbed(ALL_TO_ONE):
                loss_of(model).backward()
        assert same(gradients(models[0]), gradients(models[1]))

    @pytest.mark.parametrize("name", RULES)
    @pytest.mark.parametrize("rho", [-0.1, math.nan, math.inf])
    def test_a_radius_that_is_none_is_refused(self, name, rho):
        with pytest.raises(ValueError, match="`rho` must be >= 0"):
            rule_for(name, network(), rho)

    @pytest.mark.parametrize("name", RULES)
    def test_a_group_may_have_its_own_radius(self, name):
        model = network()
        groups = [{"params": model[0].parameters(), "rho": 0.0}, {"params": model[3].parameters()}]
        rule = sharpness.load(name)(torch.optim.SGD(groups, lr=0.1), 0.5)
        loss_of(model).backward()
        theta = weights(model)
        with rule.perturbed(SHARES):
            moved = [not torch.equal(p, t) for p, t in zip(model.parameters(), theta, strict=True)]
            loss_of(model).backward()
        assert moved == [False, False, False, False, True, True]

    @pytest.mark.parametrize("name", RULES)
    def test_maximizing_is_refused(self, name):
        with pytest.raises(ValueError, match="must minimize"):
            rule_for(name, network(), maximize=True)


class TestEntryAndExit:
    def test_inside_there_is_no_gradient_and_the_weights_stand_at_distance_rho(self, rule):
        theta = weights(rule.model)
        with rule.perturbed(SHARES) as climbing:
            assert climbing
            assert gradients(rule.model) == [None] * 6
            away = math.sqrt(sum(float(((p - t) ** 2).sum()) for p, t in zip(weights(rule.model), theta, strict=True)))
            loss_of(rule.model).backward()
        assert away == pytest.approx(0.5)
        assert rule.last["radius"] == 0.5

    def test_the_gradient_is_a_blend_of_both(self, rule):
        first = [g.clone() for g in gradients(rule.model)]
        with rule.perturbed(SHARES):
            loss_of(rule.model).backward()
            second = [g.clone() for g in gradients(rule.model)]
        s = rule.last["share"]
        for g, a, b in zip(gradients(rule.model), first, second, strict=True):
            torch.testing.assert_close(g, (1 - s) * a + s * b)

    def test_a_gradient_that_one_pass_did_not_make_counts_as_zero(self, rule):
        layer, head = rule.model[0], rule.model[3]
        first = layer.weight.grad.clone()
        head.weight.grad = None
        with rule.perturbed(SHARES):
            head.weight.sum().backward()
        s = rule.last["share"]
        torch.testing.assert_close(head.weight.grad, torch.full_like(head.weight, s))
        torch.testing.assert_close(layer.weight.grad, (1 - s) * first)

    def test_a_first_gradient_that_is_a_view_is_kept_when_its_buffer_is_overwritten(self, rule):
        weight = rule.model[0].weight
        bucket = weight.grad.flatten().clone()
        weight.grad = bucket.view_as(weight)
        first = weight.grad.clone()
        with rule.perturbed(SHARES):
            bucket.fill_(7.0)
            loss_of(rule.model).backward()
            second = weight.grad.clone()
        s = rule.last["share"]
        torch.testing.assert_close(weight.grad, (1 - s) * first + s * second)

    def test_making_no_gradient_inside_is_an_error(self, rule):
        first = gradients(rule.model)
        with pytest.raises(RuntimeError, match="No gradient was made"), rule.perturbed(SHARES):
            pass
        assert all(a is b for a, b in zip(gradients(rule.model), first, strict=True))

    def test_blocks_do_not_nest(self, rule):
        theta = weights(rule.model)
        with pytest.raises(RuntimeError, match="inside another"), rule.perturbed(SHARES), rule.perturbed(SHARES):
            pass
        assert same(weights(rule.model), theta)

    def test_stepping_inside_is_an_error(self, rule):
        theta = weights(rule.model)
        with pytest.raises(RuntimeError, match="stepped inside"), rule.perturbed(SHARES):
            rule.optimizer.step()
        assert same(weights(rule.model), theta)

    def test_accumulated_micro_batches_equal_the_whole_batch(self, rule):
        def without_norm(model):
            return nn.Sequential(model[0], model[2], model[3])

        results = []
        for parts in ([slice(None)], [slice(0, 8), slice(8, 16)]):
            model = without_norm(network())
            twin = rule_for(rule.__class__.__name__.lower(), model)
            for rows in parts:
                (loss_of(model, rows) / len(parts)).backward()
            with twin.perturbed(SHARES):
                for rows in parts:
                    (loss_of(model, rows) / len(parts)).backward()
            results.append(gradients(model))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=0)

    def test_backward_does_both_passes_in_one_call(self, rule):
        x, y = data()
        with rule.perturbed(SHARES):
            loss_of(rule.model).backward()
        model = network()
        twin = rule_for(rule.__class__.__name__.lower(), model)
        twin.backward(model, x, lambda z: nn.functional.cross_entropy(z, y, reduction="none"), lambda output: SHARES)
        for a, b in zip(gradients(model), gradients(rule.model), strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=0)

    def test_backward_wants_one_loss_per_sample(self, rule):
        with pytest.raises(ValueError, match="one loss per sample"):
            rule.backward(rule.model, data()[0], lambda z: z.sum(), SHARES)


class Trouble(Exception):
    """Something that goes wrong inside."""


def _nothing(model):
    pass


def _one_branch(model):
    model[3].bias.sum().backward()


def _raises(model):
    raise Trouble


def _interrupted(model):
    raise KeyboardInterrupt


def _nan(model):
    (loss_of(model) * math.nan).backward()


def _zero_grad(model):
    loss_of(model).backward()
    model.zero_grad(set_to_none=False)


def _cleared(model):
    loss_of(model).backward()
    model.zero_grad()


def _overwritten(model):
    loss_of(model).backward()
    with torch.no_grad():
        model[0].weight.fill_(3.0)


@pytest.mark.parametrize(
    "inside", [_nothing, _one_branch, _raises, _interrupted, _nan, _zero_grad, _cleared, _overwritten]
)
def test_weights_come_back_bit_for_bit_whatever_happens_inside(rule, inside):
    theta = weights(rule.model)
    try:
        with rule.perturbed(SHARES):
            inside(rule.model)
    except (Trouble, KeyboardInterrupt, RuntimeError):
        pass
    assert same(weights(rule.model), theta)
    assert all(m.track_running_stats for m in rule.model.modules() if isinstance(m, nn.BatchNorm1d))


@pytest.mark.parametrize("inside", [_raises, _interrupted])
def test_after_an_exception_the_gradient_is_the_first_and_the_exception_goes_on(rule, inside):
    first = gradients(rule.model)
    with pytest.raises((Trouble, KeyboardInterrupt)), rule.perturbed(SHARES):
        loss_of(rule.model).backward()
        inside(rule.model)
    assert all(a is b for a, b in zip(gradients(rule.model), first, strict=True))


class TestNumbers:
    @pytest.mark.parametrize("momentum", [0.1, None])
    @pytest.mark.parametrize("name", RULES)
    def test_batch_norm_counts_a_step_once(self, name, momentum):
        model = network()
        model[1].momentum = momentum
        rule = rule_for(name, model)
        loss_of(model).backward()
        once = copy.deepcopy(model[1].state_dict())
        with rule.perturbed(SHARES):
            loss_of(model).backward()
        assert all(torch.equal(v, once[k]) for k, v in model[1].state_dict().items())
        assert model[1].num_batches_tracked == 1

    def test_the_second_pass_still_uses_batch_statistics(self, rule):
        rule.model[1].running_mean.fill_(100.0)
        with rule.perturbed(SHARES):
            again = loss_of(rule.model)
            again.backward()
        assert again < 5

    @pytest.mark.parametrize("name", RULES)
    def test_without_any_gradient_nothing_climbs_and_a_warning_says_why(self, name):
        model = network()
        rule = rule_for(name, model)
        theta = weights(model)
        with pytest.warns(UserWarning, match="without any gradient"), rule.perturbed(SHARES) as climbing:
            pass
        assert not climbing
        assert same(weights(model), theta)

    @pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
    def test_a_zero_or_non_finite_gradient_climbs_nowhere_and_stays_what_it_is(self, rule, value):
        for p in rule.model.parameters():
            p.grad.fill_(value)
        theta, first = weights(rule.model), gradients(rule.model)
        with rule.perturbed(SHARES) as climbing:
            loss_of(rule.model).backward()
        assert not climbing
        assert same(weights(rule.model), theta)
        assert all(a is b for a, b in zip(gradients(rule.model), first, strict=True))
        assert rule.last["radius"] == 0.0

    @pytest.mark.parametrize("overflow", [None, "first", "second"])
    @pytest.mark.parametrize("name", RULES)
    def test_a_grad_scaler_unscales_once_and_skips_overflows(self, name, overflow):
        results = []
        for scaled in (False, True):
            model = network().float()
            rule = rule_for(name, model)
            scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
            x, y = data()

            def passed(model=model, scaler=scaler, x=x.float(), y=y, bad=False):
                loss = scaler.scale(nn.functional.cross_entropy(model(x), y))
                (loss * math.inf if bad else loss).backward()

            theta = weights(model)
            passed(bad=overflow == "first" and scaled)
            with rule.perturbed(SHARES) as climbing:
                if climbing:
                    passed(bad=overflow == "second" and scaled)
            scaler.step(rule.optimizer)
            scaler.update()
            if overflow and scaled:
                assert same(weights(model), theta)
            results.append(weights(model))
        if not overflow:
            for a, b in zip(*results, strict=True):
                torch.testing.assert_close(a, b)

    @pytest.mark.parametrize("name", RULES)
    def test_sparse_gradients_are_refused(self, name):
        table = nn.Embedding(4, 2, sparse=True)
        rule = sharpness.load(name)(torch.optim.SGD(table.parameters(), lr=0.1), 0.1)
        table(torch.tensor([1])).sum().backward()
        with pytest.raises(ValueError, match="sparse=False"), rule.perturbed(SHARES):
            pass

    def test_frozen_parameters_stay(self, rule):
        rule.model[0].weight.requires_grad_(False)
        rule.model.zero_grad()
        loss_of(rule.model).backward()
        frozen = rule.model[0].weight.clone()
        with rule.perturbed(SHARES):
            assert torch.equal(rule.model[0].weight, frozen)
            loss_of(rule.model).backward()
        assert rule.model[0].weight.grad is None

    @pytest.mark.parametrize("name", RULES)
    def test_the_monitor_reports_how_the_gradient_changed(self, name):
        model = network()
        rule = sharpness.load(name)(torch.optim.SGD(model.parameters(), lr=0.1), 0.5, model=model, monitor=1)
        loss_of(model).backward()
        a = torch.cat([g.clone().flatten() for g in gradients(model)])
        with rule.perturbed(SHARES):
            loss_of(model).backward()
            b = torch.cat([g.clone().flatten() for g in gradients(model)])
        assert rule.last["gradient_change"] == pytest.approx(float((b - a).norm() / a.norm()))
        assert rule.last["cosine"] == pytest.approx(float(a @ b / (a.norm() * b.norm())))

    @pytest.mark.parametrize("name", RULES)
    def test_what_a_rule_remembers_survives_a_round_trip(self, name):
        one, other = rule_for(name, network()), rule_for(name, network())
        loss_of(one.model).backward()
        with one.perturbed(SHARES):
            loss_of(one.model).backward()
        other.load_state_dict(one.state_dict())
        assert other.state_dict() == one.state_dict()
