"""ImbSAM's own form of the laws: samples of the tail climb, the others do not."""

import copy
import math

import pytest
import torch
from torch import nn

from msam.sharpness import SAM, ImbSAM
from tests.sharpness._flat import batch, close, flat, losses, network, spent

RHO, TAIL = 0.4, (1,)


def begun(model: nn.Module | None = None, rho: float = RHO, tail=TAIL, **options) -> ImbSAM:
    model = model or network()
    return ImbSAM(torch.optim.SGD(model.parameters(), lr=0.1), rho, tail=tail, **{"model": model, **options})


def normalised(momentum: float | None = 0.1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=momentum), nn.Linear(6, 3)).double()


def step(rule: ImbSAM, loss=losses, **more) -> torch.Tensor:
    x, y = batch(0)
    return rule.backward(rule.model, x, lambda logits: loss(logits, y), target=y, **more)


def plain(model: nn.Module) -> torch.Tensor:
    """Return the gradient of the whole loss at theta."""
    twin = copy.deepcopy(model)
    x, y = batch(0)
    losses(twin(x), y).mean().backward()
    return spent(twin)


def test_a_block_is_refused_with_the_way_out():
    rule = begun()
    x, y = batch(0)
    losses(rule.model(x), y).mean().backward()
    theta = flat(rule.model)
    with pytest.raises(RuntimeError, match=r"sharpness\.backward\(model.*target=target\)"), rule.perturbed():
        pass
    with pytest.raises(RuntimeError, match=r"sharpness\.backward\(model"):
        rule.complete(lambda: None)
    assert torch.equal(flat(rule.model), theta)


def test_the_closure_form_is_refused_before_a_closure_runs():
    with pytest.raises(RuntimeError, match=r"nor a closure can see.*sharpness\.backward\(model"):
        begun().as_optimizer()


@pytest.mark.parametrize(
    "target", [None, torch.zeros(12), torch.zeros(12, 3, dtype=torch.long)], ids=["none", "floats", "labels"]
)
def test_without_the_class_of_every_sample_it_is_refused(target):
    rule = begun()
    x, y = batch(0)
    with pytest.raises(ValueError, match="needs the class of every sample"):
        rule.backward(rule.model, x, lambda logits: losses(logits, y), target=target)


def test_only_the_samples_of_the_tail_are_asked_for_where_it_climbs():
    rule = begun()
    x, y = batch(0)
    rare = y == TAIL[0]
    twin = copy.deepcopy(rule.model)
    (losses(twin(x), y) * rare).mean().backward()
    g, theta, places = spent(twin), flat(rule.model), []

    def losses_seen(logits, target):
        places.append(flat(rule.model) - theta)
        return losses(logits, target)

    step(rule, losses_seen)
    close(places[0], torch.zeros_like(g))
    close(places[1], RHO * g / g.norm())
    assert len(places) == 2


def test_two_forwards_and_three_backwards_a_step_and_one_of_each_where_no_sample_is_of_the_tail():
    for tail, forwards, backwards in ((TAIL, 2, 3), ((), 1, 1), ((7,), 1, 1), ((0, 1, 2), 2, 2)):
        rule, passes, back = begun(tail=tail), [], []
        rule.model.register_forward_hook(lambda *_, passes=passes: passes.append(1))

        def backward(loss, retain_graph=False, back=back):
            back.append(1)
            loss.backward(retain_graph=retain_graph)

        step(rule, backward=backward)
        assert (len(passes), len(back)) == (forwards, backwards)
        if backwards == 1:
            close(spent(rule.model), plain(rule.model))
            assert rule.last == {"share": 0.0, "radius": 0.0}


def test_with_all_classes_in_the_tail_it_is_sam():
    model = network()
    sam = SAM(torch.optim.SGD(model.parameters(), lr=0.1), RHO, model=model)
    x, y = batch(0)
    sam.backward(model, x, lambda logits: losses(logits, y))
    rule = begun(tail=(0, 1, 2))
    step(rule)
    close(spent(rule.model), spent(model))


def test_rho_zero_climbs_nowhere_and_spends_the_plain_gradient():
    rule, passes = begun(rho=0.0), []
    rule.model.register_forward_hook(lambda *_: passes.append(1))
    step(rule)
    assert len(passes) == 1
    close(spent(rule.model), plain(rule.model))


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt()], ids=repr)
def test_after_an_exception_the_weights_are_back_and_the_gradient_is_the_plain_one(error):
    rule, calls = begun(normalised()), []
    theta, expected = flat(rule.model), plain(rule.model)

    def failing(logits, target):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return losses(logits, target)

    with pytest.raises(type(error)):
        step(rule, failing)
    assert torch.equal(flat(rule.model), theta)
    assert rule.model[1].track_running_stats
    close(spent(rule.model), expected)
    step(rule)
    assert not torch.allclose(spent(rule.model), expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("when", [1, 2])
def test_a_gradient_that_is_not_finite_reaches_the_scaler_but_not_the_weights(bad, when):
    rule, calls = begun(), []
    theta = flat(rule.model)

    def losses_seen(logits, target):
        calls.append(1)
        return losses(logits, target) * (bad if len(calls) == when else 1.0)

    step(rule, losses_seen)
    assert torch.equal(flat(rule.model), theta)
    assert not spent(rule.model).isfinite().all()
    assert len(calls) == when  # after a first gradient that is not finite nothing climbs


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_counts_a_step_once(momentum):
    rule = begun(normalised(momentum))
    once = copy.deepcopy(rule.model)
    once(batch(0)[0])
    step(rule)
    assert all(torch.equal(v, once[1].state_dict()[k]) for k, v in rule.model[1].state_dict().items())
    assert rule.model[1].num_batches_tracked == 1


def test_it_clears_what_was_there_and_returns_the_first_output():
    rule, twin = begun(), begun()
    step(twin)
    for p in rule.model.parameters():
        p.grad = torch.ones_like(p)
    with torch.no_grad():
        expected = rule.model(batch(0)[0])
    torch.testing.assert_close(step(rule), expected)
    close(spent(rule.model), spent(twin.model))


def test_a_frozen_layer_stays_without_gradient():
    rule = begun()
    rule.model[0].requires_grad_(False)
    step(rule)
    assert rule.model[0].weight.grad is None
    assert rule.last["radius"] == RHO


def test_replay_drops_the_same_in_both_passes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3)).double()
    rule, masks = begun(model, rng="replay"), []
    model[1].register_forward_hook(lambda _m, _x, out: masks.append((out == 0).clone()))
    step(rule)
    assert len(masks) == 2
    assert torch.equal(*masks)
