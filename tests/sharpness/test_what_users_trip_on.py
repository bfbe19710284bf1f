"""What users of sharpness-aware optimizers trip on elsewhere, one test each, named after what they see."""

import copy

import pytest
import torch
from torch import nn

import msam
from msam.sharpness import LookSAM
from tests.contract._rules import RULES, made
from tests.sharpness._flat import batch, close, flat, losses, network, spent
from tests.sharpness._modal import SHARES

RHO = 0.4
every_rule = pytest.mark.parametrize("name", RULES)


def rule_of(name: str, model: nn.Module | None = None, optimizer=None, **options) -> msam.Sharpness:
    model = model or network()
    return made(
        name, optimizer or torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), RHO, model=model, **options
    )


def loss_of(model: nn.Module, t: int = 0) -> torch.Tensor:
    x, y = batch(t)
    return losses(model(x), y).mean()


def step(rule: msam.Sharpness, t: int = 0) -> None:
    rule.optimizer.zero_grad()
    loss_of(rule.model, t).backward()
    with rule.perturbed(SHARES[2]) as climbing:
        if climbing:
            loss_of(rule.model, t).backward()
    rule.optimizer.step()


@every_rule
def test_no_way_to_unscale_clip_and_step_once_under_a_grad_scaler(name):
    results = []
    for scale in (None, 2.0**12):
        model = network()
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        told = {"scaler": scaler} if name in ("fisher_sam", "fsam") else {}
        rule = rule_of(name, model, **told)
        for t in range(3):
            rule.optimizer.zero_grad()
            scaler.scale(loss_of(model, t)).backward()
            with rule.perturbed(SHARES[2]):
                scaler.scale(loss_of(model, t)).backward()
            scaler.unscale_(rule.optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            scaler.step(rule.optimizer)
            scaler.update()
        results.append(flat(model))
    close(*results)


@pytest.mark.parametrize("bad_pass", [1, 2])
@every_rule
def test_one_overflow_and_the_run_is_lost(name, bad_pass):
    model, scaler = network().float(), torch.amp.GradScaler("cpu", init_scale=4.0)
    rule = rule_of(name, model)
    x, y = batch(0)
    trail = []

    def passed(bad: bool) -> None:
        loss = scaler.scale(losses(model(x.float()), y).mean())
        (loss * torch.inf if bad else loss).backward()

    for t in range(3):
        rule.optimizer.zero_grad()
        passed(bad=t == 1 and bad_pass == 1)
        with rule.perturbed(SHARES[2]) as climbing:
            if climbing:
                passed(bad=t == 1 and bad_pass == 2)
        scaler.step(rule.optimizer)
        scaler.update()
        trail.append(flat(model))
    assert torch.equal(trail[1], trail[0])
    assert not torch.equal(trail[2], trail[1])
    assert trail[2].isfinite().all()
    assert scaler.get_scale() == 2.0


@every_rule
def test_a_resumed_run_has_lost_its_momentum_and_the_file_holds_a_copy_of_the_weights(name):
    rule, plain = rule_of(name), network()
    reference = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    step(rule)
    loss_of(plain).backward()
    reference.step()
    mine, theirs = rule.optimizer.state_dict(), reference.state_dict()
    assert mine["param_groups"] == theirs["param_groups"]
    assert {k: set(v) for k, v in mine["state"].items()} == {k: set(v) for k, v in theirs["state"].items()}
    kept = [value for value in rule.state_dict()["memory"] if value is not None]
    assert len(kept) == (4 if name == "fsam" else 0)

    resumed = rule_of(name)
    resumed.model.load_state_dict(rule.model.state_dict())
    resumed.optimizer.load_state_dict(copy.deepcopy(mine))
    resumed.load_state_dict(rule.state_dict())
    for one in (rule, resumed):
        step(one, 1)
    assert torch.equal(flat(rule.model), flat(resumed.model))


@every_rule
def test_hooks_of_the_optimizer_do_not_fire_or_fire_twice(name):
    rule, fired = rule_of(name), []
    rule.optimizer.register_step_pre_hook(lambda *_: fired.append("before"))
    rule.optimizer.register_step_post_hook(lambda *_: fired.append("after"))
    for t in range(2):
        step(rule, t)
    assert fired == ["before", "after"] * 2


@pytest.mark.parametrize(("name", "options"), [("looksam", {"every": 2}), ("msam", {"every": 2}), ("fsam", {})])
def test_what_a_rule_remembers_breaks_with_several_groups(name, options):
    found = []
    for grouped in (False, True):
        model = network()
        groups = [{"params": layer.parameters()} for layer in (model[0], model[2])] if grouped else model.parameters()
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        rule = getattr(msam, {"looksam": "LookSAM", "msam": "MSAM", "fsam": "FSAM"}[name])(optimizer, RHO, **options)
        rule.model = model
        for t in range(5):
            step(rule, t)
        found.append(flat(model))
    close(*found)


@pytest.mark.parametrize("kind", [LookSAM, msam.MSAM])
def test_looksam_runs_the_closure_at_every_step_and_doubles_the_gradient(kind):
    model = network()
    rule = kind(torch.optim.SGD(model.parameters(), lr=0.0), RHO, every=3)  # no "step" in the state to count with
    optimizer, calls, lengths = rule.as_optimizer(), [], []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        rule.observe(SHARES[2])
        return loss

    for _ in range(6):
        before = len(calls)
        optimizer.step(closure)
        lengths.append((len(calls) - before, float(spent(model).norm())))
    assert [passes for passes, _ in lengths] == [2, 1, 1, 2, 1, 1]
    twin = network()
    loss_of(twin).backward()
    assert all(length < 2 * float(spent(twin).norm()) for _, length in lengths)


@every_rule
def test_the_other_network_of_a_gan_moves_along(name):
    torch.manual_seed(0)
    generator, judge = nn.Linear(3, 4).double(), nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    rule = rule_of(name, generator, torch.optim.SGD(generator.parameters(), lr=0.1))
    theirs = torch.optim.SGD(judge.parameters(), lr=0.1)
    noise = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = flat(judge)

    def fooled():
        return nn.functional.softplus(-judge(generator(noise))).mean()

    fooled().backward()
    with rule.perturbed(SHARES[2]) as climbing:
        assert climbing
        assert torch.equal(flat(judge), theta)
        fooled().backward()
    rule.optimizer.step()
    assert torch.equal(flat(judge), theta)
    theirs.zero_grad()
    nn.functional.softplus(judge(generator(noise).detach())).mean().backward()
    theirs.step()  # outside the block every other optimizer steps as it likes
    assert not torch.equal(flat(judge), theta)


@every_rule
def test_weights_in_half_precision_drift_away(name):
    with torch.no_grad():
        model = network().bfloat16()
    with pytest.raises(ValueError, match=r'memory="low" needs parameters of float32 or better, found torch\.bfloat16'):
        rule_of(name, model, memory="low")
    rule, theta = rule_of(name, model, torch.optim.SGD(model.parameters(), lr=0.0)), flat(model)
    x, y = batch(0)
    for _ in range(20):
        rule.optimizer.zero_grad()
        losses(model(x.bfloat16()), y).mean().backward()
        with rule.perturbed(SHARES[2]):
            losses(model(x.bfloat16()), y).mean().backward()
        rule.optimizer.step()
    assert torch.equal(flat(model), theta)


@every_rule
def test_no_gain_and_nothing_to_see_why(name):
    rule = rule_of(name, monitor=1)
    step(rule)
    assert rule.last["radius"] == RHO
    assert rule.last["gradient_change"] > 0
    assert -1 <= rule.last["cosine"] < 1
    assert 0 < rule.last["share"] <= 1
