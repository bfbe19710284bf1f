"""The closure form, for trainers that own the loop."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

import msam

SHARES = [0.3, 0.7]


def setting():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    rule = msam.MSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.4, model=model)
    return model, rule


def loss_of(model):
    x = torch.arange(32, dtype=torch.float64).view(8, 4).sin()
    return nn.functional.cross_entropy(model(x), torch.arange(8) % 3)


def closure_for(model, optimizer, rule, shares=SHARES):
    def closure():
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        if shares is not None:
            rule.observe(shares)
        return loss

    return closure


def by_hand(model, rule):
    rule.optimizer.zero_grad()
    loss_of(model).backward()
    with rule.perturbed(SHARES):
        loss_of(model).backward()
    rule.optimizer.step()


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_closure_does_what_the_block_does_bit_for_bit():
    (one, rule), (other, twin) = setting(), setting()
    optimizer = twin.as_optimizer()
    for _ in range(3):
        first = loss_of(other).item()
        by_hand(one, rule)
        assert optimizer.step(closure_for(other, optimizer, twin)).item() == first
        assert equal(one, other)


def test_contributions_are_heard_in_the_first_pass_only():
    model, rule = setting()
    optimizer = rule.as_optimizer()
    said = iter([[0.2, 0.8], [0.5, 0.5]])

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        rule.observe(next(said))
        return loss

    optimizer.step(closure)
    assert rule.last["share"] == pytest.approx(0.8)
    assert rule.observed == [0.2, 0.8]


def test_contributions_of_one_step_do_not_serve_the_next():
    model, rule = setting()
    optimizer = rule.as_optimizer()
    optimizer.step(closure_for(model, optimizer, rule))
    with pytest.raises(ValueError, match="needs the contributions"):
        optimizer.step(closure_for(model, optimizer, rule, shares=None))


def test_a_step_without_a_closure_raises_rather_than_train_as_the_plain_optimizer():
    model, rule = setting()
    optimizer = rule.as_optimizer()
    loss_of(model).backward()
    with pytest.raises(RuntimeError, match="plain optimizer"):
        optimizer.step()
    with rule.perturbed(SHARES):
        loss_of(model).backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="plain optimizer"):
        optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()
    optimizer.zero_grad()
    optimizer.step()


def test_distributed_checkpoint_can_initialise_its_state_save_it_and_load_it():
    (model, rule), (other, twin) = setting(), setting()
    theta = copy.deepcopy(model)
    optimizer, second = rule.as_optimizer(), twin.as_optimizer()
    get_optimizer_state_dict(model, optimizer)
    assert equal(model, theta)
    optimizer.step(closure_for(model, optimizer, rule))
    set_optimizer_state_dict(other, second, get_optimizer_state_dict(model, optimizer))
    for mine, loaded in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(
            rule.optimizer.state[mine]["momentum_buffer"], twin.optimizer.state[loaded]["momentum_buffer"]
        )


def test_schedulers_on_either_object_steer_the_one_learning_rate():
    model, rule = setting()
    optimizer = rule.as_optimizer()
    schedulers = [torch.optim.lr_scheduler.StepLR(o, 1, 0.5) for o in (rule.optimizer, optimizer)]
    optimizer.step(closure_for(model, optimizer, rule))
    for scheduler in schedulers:
        scheduler.step()
    assert rule.optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == pytest.approx(0.025)


@pytest.mark.parametrize("into", ["closure form", "plain optimizer"])
def test_checkpoints_are_those_of_the_plain_optimizer(into):
    model, rule = setting()
    optimizer = rule.as_optimizer()
    optimizer.step(closure_for(model, optimizer, rule))
    saved = copy.deepcopy(optimizer.state_dict())
    other, twin = setting()
    other.load_state_dict(model.state_dict())
    second = twin.as_optimizer()
    (second if into == "closure form" else twin.optimizer).load_state_dict(saved)
    for m, o, r in ((model, optimizer, rule), (other, second, twin)):
        o.step(closure_for(m, o, r))
    assert equal(model, other)
    assert second.state is twin.optimizer.state


@pytest.mark.parametrize("to", ["closure form", "plain optimizer"])
def test_a_group_added_to_either_is_in_both_with_its_defaults(to):
    _, rule = setting()
    optimizer = rule.as_optimizer()
    extra = nn.Parameter(torch.zeros(1))
    (optimizer if to == "closure form" else rule.optimizer).add_param_group({"params": [extra]})
    assert optimizer.param_groups is rule.optimizer.param_groups
    assert rule.optimizer.param_groups[1]["params"] == [extra]
    assert rule.optimizer.param_groups[1]["momentum"] == 0.9


def test_making_the_closure_form_leaves_the_groups_of_the_plain_optimizer_as_they_were():
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    base = torch.optim.SGD([{"params": [("a", a)], "lr": 0.3}, {"params": [("b", b)], "rho": 0.2}], lr=0.1)
    groups, keys = base.param_groups, [dict(g) for g in base.param_groups]
    optimizer = msam.SAM(base).as_optimizer()
    assert optimizer.param_groups is base.param_groups is groups
    assert [dict(g) for g in groups] == keys


@pytest.mark.parametrize("set_to_none", [True, False])
def test_closures_may_clear_gradients_either_way_and_return_what_they_like(set_to_none):
    (one, rule), (other, twin) = setting(), setting()
    optimizer = twin.as_optimizer()

    def closure():
        optimizer.zero_grad(set_to_none=set_to_none)
        loss_of(other).backward()
        twin.observe(SHARES)
        return "anything"

    for _ in range(2):
        by_hand(one, rule)
        assert optimizer.step(closure) == "anything"
    assert equal(one, other)


def test_where_nothing_climbs_the_closure_runs_once():
    model, rule = setting()
    rule.rho = 0.0
    optimizer, calls = rule.as_optimizer(), []

    def closure():
        calls.append(1)
        return closure_for(model, optimizer, rule)()

    optimizer.step(closure)
    assert len(calls) == 1


def test_when_the_second_pass_fails_the_weights_are_back_and_the_next_step_goes_on():
    (model, rule), (fresh, twin) = setting(), setting()
    optimizer, calls = rule.as_optimizer(), []

    def closure():
        calls.append(1)
        loss = closure_for(model, optimizer, rule)()
        if len(calls) == 2:
            raise KeyError("second")
        return loss

    with pytest.raises(KeyError):
        optimizer.step(closure)
    assert equal(model, fresh)
    by_hand(fresh, twin)
    optimizer.step(closure)
    assert equal(model, fresh)


def test_a_closure_that_hears_no_contributions_is_refused_even_when_some_were_told_before_it():
    model, rule = setting()
    optimizer = rule.as_optimizer()
    rule.observe(SHARES)
    with pytest.raises(ValueError, match="needs the contributions"):
        optimizer.step(closure_for(model, optimizer, rule, shares=None))


def test_a_grad_scaler_steps_it_after_both_passes_and_not_after_one():
    (one, rule), (other, twin) = setting(), setting()
    optimizer, scaler = twin.as_optimizer(), torch.amp.GradScaler("cpu", init_scale=2.0**10)
    by_hand(one, rule)
    scaler.scale(loss_of(other)).backward()
    with twin.perturbed(SHARES):
        scaler.scale(loss_of(other)).backward()
    scaler.step(optimizer)
    scaler.update()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    optimizer.zero_grad()
    scaler.scale(loss_of(other)).backward()
    with pytest.raises(RuntimeError, match="plain optimizer"):
        scaler.step(optimizer)


def test_a_closure_that_adds_to_earlier_gradients_is_refused_as_it_would_make_only_the_last_micro_batch_again():
    model, rule = setting()
    optimizer = rule.as_optimizer()
    theta = copy.deepcopy(model)
    loss_of(model).backward()

    def closure():
        loss_of(model).backward()
        rule.observe(SHARES)

    with pytest.raises(RuntimeError, match="added to gradients"):
        optimizer.step(closure)
    assert equal(model, theta)


@pytest.mark.parametrize("before", ["nothing", "zeros"])
def test_a_closure_need_not_clear_gradients_where_there_are_none(before):
    (one, rule), (other, twin) = setting(), setting()
    optimizer = twin.as_optimizer()
    if before == "zeros":
        for p in other.parameters():
            p.grad = torch.zeros_like(p)

    def closure():
        loss_of(other).backward()
        twin.observe(SHARES)

    by_hand(one, rule)
    optimizer.step(closure)
    assert equal(one, other)


@pytest.mark.parametrize("clears", ["in place", "not"])
def test_a_closure_that_zeroes_earlier_gradients_in_place_does_not_add_to_them(clears):
    (one, rule), (other, twin) = setting(), setting()
    optimizer = twin.as_optimizer()
    loss_of(other).backward()

    def closure():
        # Either way the gradient of before is still the tensor that backward adds to.
        for p in other.parameters():
            (p.grad.zero_() if clears == "in place" else p.grad.mul_(1)) if p.grad is not None else None
        loss_of(other).backward()
        twin.observe(SHARES)

    if clears == "not":
        with pytest.raises(RuntimeError, match="added to gradients"):
            optimizer.step(closure)
        assert equal(one, other)
    else:
        by_hand(one, rule)
        optimizer.step(closure)
        assert equal(one, other)


def test_a_closure_may_clear_through_the_model_and_accumulate_itself():
    (one, rule), (other, twin) = setting(), setting()
    optimizer = twin.as_optimizer()

    def closure():
        other.zero_grad(set_to_none=False)
        for _ in range(2):
            (loss_of(other) / 2).backward()
        twin.observe(SHARES)

    for _ in range(2):
        by_hand(one, rule)
        optimizer.step(closure)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_a_gradient_that_the_closure_neither_clears_nor_reaches_is_refused_too():
    model, rule = setting()
    optimizer = rule.as_optimizer()
    loss_of(model).backward()
    with pytest.raises(RuntimeError, match="added to gradients"):
        optimizer.step(lambda: rule.observe(SHARES))


def test_a_copy_watches_its_optimizer_as_the_original_does():
    _, rule = setting()
    loss_of(rule.model).backward()
    with rule.perturbed(SHARES):
        loss_of(rule.model).backward()
        with pytest.raises(RuntimeError, match="inside perturbed"):
            copy.deepcopy(rule)
    twin = copy.deepcopy(rule)
    assert twin.slots.optimizer is twin.optimizer is not rule.optimizer
    assert twin.slots.parameters()[0] is next(twin.model.parameters())
    # Gradients are not copied, so neither is the block that made them.
    loss_of(twin.model).backward()
    with pytest.raises(RuntimeError, match="plain optimizer"):
        twin.as_optimizer().step()
    with pytest.raises(RuntimeError, match="stepped inside"), twin.perturbed(SHARES):
        twin.optimizer.step()


def grouped(*modalities):
    torch.manual_seed(0)
    parts = nn.ModuleDict({m: nn.Linear(2, 2) for m in modalities})
    groups = [{"params": parts[m].parameters(), "role": "encoder", "modality": m} for m in modalities]
    return parts, msam.SAM(torch.optim.SGD(groups, lr=0.1))


@pytest.mark.parametrize("into", ["closure form", "plain optimizer"])
def test_a_checkpoint_of_another_grouping_is_refused_naming_both(into):
    parts, rule = grouped("audio", "image")
    optimizer = rule.as_optimizer() if into == "closure form" else rule.optimizer
    flat = torch.optim.SGD(parts.parameters(), lr=0.7).state_dict()
    with pytest.raises(ValueError, match=r"\[4 parameters\].*\[encoder audio: 2 parameters, encoder image: 2 param"):
        optimizer.load_state_dict(flat)
    # Of equal sizes in another order: torch alone would give each encoder the momenta of the other.
    swapped = grouped("image", "audio")[1].optimizer.state_dict()
    with pytest.raises(ValueError, match=r"\[encoder image: .*\], the optimizer has \[encoder audio"):
        optimizer.load_state_dict(swapped)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_plain_checkpoint_leaves_radius_and_roles_of_groups_as_they_are():
    parts, rule = grouped("audio", "image")
    rule.optimizer.param_groups[1]["rho"] = 0.3
    plain = torch.optim.SGD([{"params": part.parameters()} for part in parts.values()], lr=0.7)
    rule.as_optimizer().load_state_dict(plain.state_dict())
    group = rule.optimizer.param_groups[1]
    assert (group["lr"], group["rho"], group["modality"]) == (0.7, 0.3, "image")
    plain.load_state_dict(rule.optimizer.state_dict())
    assert plain.param_groups[1]["lr"] == 0.7


@pytest.mark.parametrize("overflow", [False, True])
def test_a_grad_scaler_around_a_fused_optimizer_unscales_once_and_skips_an_overflow(overflow):
    results = []
    for scale in (None, 2.0**10):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        start = copy.deepcopy(model)
        rule = msam.MSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True), rho=0.4, model=model)
        optimizer = rule.as_optimizer()
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        scaler.scale(loss_of(model)).backward()
        with rule.perturbed(SHARES):
            scaler.scale(loss_of(model) * (torch.inf if overflow else 1)).backward()
        if scale is None and overflow:
            continue
        scaler.step(optimizer)
        scaler.update()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        assert equal(model, start) == overflow
    if overflow:
        assert scaler.get_scale() == 2.0**9
    else:
        torch.testing.assert_close(*results, atol=1e-12, rtol=0)
