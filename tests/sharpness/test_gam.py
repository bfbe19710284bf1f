"""GAM's own form of the laws: three climbs a step, asked for by a function or a closure."""

import copy
import math

import pytest
import torch
from torch import nn

from msam.sharpness import GAM
from tests.sharpness._flat import batch, close, flat, losses, network, spent

RHO, INNER = 0.4, 0.1


def begun(model: nn.Module | None = None, rho: float = RHO, lr: float = 0.1, **options) -> GAM:
    model = model or network()
    return GAM(torch.optim.SGD(model.parameters(), lr=lr), rho, **{"rho_inner": INNER, "model": model, **options})


def loss_of(model: nn.Module) -> torch.Tensor:
    x, y = batch(0)
    return losses(model(x), y).mean()


def normalised(momentum: float | None = 0.1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=momentum), nn.Linear(6, 3)).double()


def by_hand(rule: GAM, again=None) -> None:
    loss_of(rule.model).backward()
    rule.complete(again or (lambda: loss_of(rule.model).backward()))


def test_a_block_is_refused_with_the_way_out_before_anything_changes():
    rule = begun()
    loss_of(rule.model).backward()
    before, theta = [p.grad for p in rule.model.parameters()], flat(rule.model)
    with pytest.raises(RuntimeError, match=r"complete\(again\).*backward\(\) or as_optimizer\(\)"):
        rule.perturbed()
    assert all(p.grad is g for p, g in zip(rule.model.parameters(), before, strict=True))
    assert torch.equal(flat(rule.model), theta)


def test_it_stands_where_its_equations_say_when_gradients_are_asked_for():
    rule = begun()
    theta, places, made = flat(rule.model), [], []

    def again():
        places.append(flat(rule.model) - theta)
        loss_of(rule.model).backward()
        made.append(spent(rule.model))

    loss_of(rule.model).backward()
    g0 = spent(rule.model)
    rule.complete(again)
    g1, g2, _ = made
    outer = RHO * (g1 - g0) / (g1 - g0).norm()
    close(places[0], INNER * g0 / g0.norm())
    close(places[1], outer)
    close(places[2], outer + INNER * g2 / g2.norm())
    assert torch.equal(flat(rule.model), theta)
    assert rule.last["radius"] == RHO


def test_the_inner_radius_is_scheduled_as_the_outer_one_is():
    rule = begun(rho_schedule=lambda t: 1 / t)
    for t in (1, 2, 4):
        rule.blocks = t - 1
        theta, places = flat(rule.model), []

        def again(theta=theta, places=places):
            places.append(flat(rule.model) - theta)
            loss_of(rule.model).backward()

        rule.optimizer.zero_grad()
        by_hand(rule, again)
        lengths = [float(places[0].norm()), float(places[1].norm()), float((places[2] - places[1]).norm())]
        assert lengths == pytest.approx([INNER / t, RHO / t, INNER / t])


def test_all_forms_spend_the_same():
    rules = [begun() for _ in range(3)]
    by_hand(rules[0])
    x, y = batch(0)
    rules[1].backward(rules[1].model, x, lambda logits: losses(logits, y))
    optimizer = rules[2].as_optimizer()

    def closure():
        optimizer.zero_grad()
        loss = loss_of(rules[2].model)
        loss.backward()
        return loss

    first = loss_of(rules[2].model).item()
    assert optimizer.step(closure).item() == first
    for rule in rules[1:]:
        close(spent(rule.model), spent(rules[0].model))


def test_four_passes_a_step_and_one_where_nothing_climbs():
    for rho, expected in ((RHO, 4), (0.0, 1)):
        rule, passes = begun(rho=rho), []
        rule.model.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        x, y = batch(0)
        rule.backward(rule.model, x, lambda logits, y=y: losses(logits, y))
        assert len(passes) == expected


def test_rho_zero_leaves_the_gradient_untouched():
    rule = begun(rho=0.0)
    loss_of(rule.model).backward()
    before = [p.grad for p in rule.model.parameters()]
    rule.complete(lambda: pytest.fail("nothing climbs"))
    assert all(p.grad is g for p, g in zip(rule.model.parameters(), before, strict=True))
    assert rule.last["radius"] == 0


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("memory", ["exact", "low"])
def test_whatever_pass_fails_weights_and_first_gradient_are_back_and_the_next_step_goes_on(memory, error, at):
    rule, calls = begun(normalised(), memory=memory), []
    theta = flat(rule.model)

    def again():
        calls.append(1)
        loss_of(rule.model).backward()
        if len(calls) == at:
            raise error

    loss_of(rule.model).backward()
    first = [p.grad for p in rule.model.parameters()]
    with pytest.raises(type(error)):
        rule.complete(again)
    close(flat(rule.model), theta, atol=0 if memory == "exact" else 1e-14)
    assert all(p.grad is g for p, g in zip(rule.model.parameters(), first, strict=True))
    assert rule.model[1].track_running_stats
    rule.complete(lambda: loss_of(rule.model).backward())
    assert not torch.equal(spent(rule.model), torch.cat([g.flatten() for g in first]))


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_later_gradient_that_is_not_finite_reaches_the_scaler_but_not_the_weights(at):
    rule, calls = begun(), []
    theta = flat(rule.model)

    def again():
        calls.append(1)
        (loss_of(rule.model) * (math.nan if len(calls) == at else 1.0)).backward()

    by_hand(rule, again)
    assert torch.equal(flat(rule.model), theta)
    assert not spent(rule.model).isfinite().any()


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_first_gradient_of_zero_or_not_finite_climbs_nowhere_and_stays(value):
    rule = begun()
    for p in rule.model.parameters():
        p.grad = torch.full_like(p, value)
    first = [p.grad for p in rule.model.parameters()]
    rule.complete(lambda: pytest.fail("nothing climbs"))
    assert all(p.grad is g for p, g in zip(rule.model.parameters(), first, strict=True))
    assert rule.last["radius"] == 0


def test_a_pass_that_makes_no_gradient_is_an_error():
    rule = begun()
    theta = flat(rule.model)
    with pytest.raises(RuntimeError, match=r"No gradient was made by `again\(\)`"):
        by_hand(rule, lambda: None)
    assert torch.equal(flat(rule.model), theta)


def test_stepping_in_between_is_an_error():
    rule = begun()
    with pytest.raises(RuntimeError, match="stepped inside"):
        by_hand(rule, lambda: rule.optimizer.step())


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_counts_a_step_once(momentum):
    rule = begun(normalised(momentum))
    loss_of(rule.model).backward()
    once = copy.deepcopy(rule.model[1].state_dict())
    rule.complete(lambda: loss_of(rule.model).backward())
    assert all(torch.equal(v, once[k]) for k, v in rule.model[1].state_dict().items())


def test_views_into_a_bucket_that_every_pass_overwrites_are_told_apart():
    model = network()
    rule, twin = begun(model), begun()
    bucket = torch.zeros(flat(model).shape, dtype=torch.float64)

    def passed():
        parameters = list(model.parameters())
        found = torch.autograd.grad(loss_of(model), parameters)
        bucket.copy_(torch.cat([g.flatten() for g in found]))
        for p, part in zip(parameters, bucket.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)

    passed()
    rule.complete(passed)
    by_hand(twin)
    close(spent(model), spent(twin.model))


def test_replay_drops_the_same_in_all_four_passes_and_draws_as_if_there_had_been_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3)).double()
    rule, masks = begun(model, rng="replay"), []
    model[1].register_forward_hook(lambda _m, _x, out: masks.append((out == 0).clone()))
    x, y = batch(0)
    torch.manual_seed(5)
    model(x)
    expected = torch.get_rng_state()
    torch.manual_seed(5)
    rule.backward(model, x, lambda logits: losses(logits, y))
    assert torch.equal(torch.get_rng_state(), expected)
    assert all(torch.equal(mask, masks[0]) for mask in masks[1:])
    assert len(masks) == 5


def test_the_monitor_compares_the_gradients_of_the_first_inner_climb():
    rule = begun(monitor=1, gamma=0.0, beta1=1.0)  # what is spent is the second gradient itself
    loss_of(rule.model).backward()
    g0 = spent(rule.model)
    rule.complete(lambda: loss_of(rule.model).backward())
    g1 = spent(rule.model)
    assert rule.last["gradient_change"] == pytest.approx(float((g1 - g0).norm() / g0.norm()))
    assert rule.last["cosine"] == pytest.approx(float(g0 @ g1 / (g0.norm() * g1.norm())))
