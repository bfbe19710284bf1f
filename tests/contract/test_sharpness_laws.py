"""Laws for every rule found in the folder: the radius, entering, leaving."""

import math

import pytest
import torch
from torch import nn

from msam.sharpness import Sharpness
from tests.contract._rules import (
    ALL_TO_ONE,
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
    spent,
    weights,
)


@pytest.fixture(params=RULES)
def rule(request) -> Sharpness:
    return after_first_pass(request.param)


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

    @pytest.mark.parametrize("name", WITH_SHARE)
    def test_at_share_one_a_rule_with_a_share_is_sam(self, name):
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
        rule = made(name, torch.optim.SGD(groups, lr=0.1), 0.5)
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
    def test_inside_there_is_no_gradient_and_the_weights_stand_rho_along_the_direction_of_the_rule(self, rule):
        theta, twin = weights(rule.model), after_first_pass(name_of(rule))
        vectors, length = twin.direction({p: p.grad for p in twin.model.parameters()})
        expected = [t + 0.5 * v / length for t, v in zip(theta, vectors.values(), strict=True)]
        with rule.perturbed(SHARES) as climbing:
            assert climbing
            assert gradients(rule.model) == [None] * 6
            there = weights(rule.model)
            loss_of(rule.model).backward()
        torch.testing.assert_close(there, expected, atol=1e-12, rtol=0)
        assert rule.last["radius"] == 0.5

    def test_the_gradient_is_what_the_rule_makes_of_both_a_blend_where_it_says_nothing_else(self, rule):
        first = [g.clone() for g in gradients(rule.model)]
        with rule.perturbed(SHARES):
            loss_of(rule.model).backward()
            second = [g.clone() for g in gradients(rule.model)]
        torch.testing.assert_close(gradients(rule.model), spent(rule, first, second))
        if type(rule).combined is Sharpness.combined:
            s = rule.last["share"]
            for g, a, b in zip(gradients(rule.model), first, second, strict=True):
                torch.testing.assert_close(g, (1 - s) * a + s * b)

    def test_a_gradient_that_one_pass_did_not_make_counts_as_zero(self, rule):
        head = rule.model[3]
        head.weight.grad = None
        first = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in rule.model.parameters()]
        with rule.perturbed(SHARES):
            head.weight.sum().backward()
        second = [torch.ones_like(p) if p is head.weight else torch.zeros_like(p) for p in rule.model.parameters()]
        torch.testing.assert_close(gradients(rule.model), spent(rule, first, second))

    def test_a_first_gradient_that_is_a_view_is_kept_when_its_buffer_is_overwritten(self, rule):
        weight = rule.model[0].weight
        bucket = weight.grad.flatten().clone()
        weight.grad = bucket.view_as(weight)
        first = [g.clone() for g in gradients(rule.model)]
        with rule.perturbed(SHARES):
            bucket.fill_(7.0)
            loss_of(rule.model).backward()
            second = [g.clone() for g in gradients(rule.model)]
        torch.testing.assert_close(gradients(rule.model), spent(rule, first, second))

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
            twin = rule_for(name_of(rule), model)
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
        twin = rule_for(name_of(rule), model)
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
    loss_of(model).backward()
    raise Trouble


def _interrupted(model):
    loss_of(model).backward()
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
        inside(rule.model)
    assert all(a is b for a, b in zip(gradients(rule.model), first, strict=True))
