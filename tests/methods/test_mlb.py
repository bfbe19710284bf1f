"""MLB: its coefficients, what a step changes and what it leaves, the window, and where it is not defined."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn

from msam.methods import Run
from msam.methods.mlb import MLB, coefficients
from msam.methods.uniform import Uniform
from msam.models import MultimodalModel, SumFusion
from msam.types import Batch
from tests.methods._toys import CLASSES, EARLY, FOUR, LATE, NAMES, batch, built, close, gradients, model, run_of, steps
from tests.train._runs import trained

unhurried = settings(deadline=None)
every_fusion = pytest.mark.parametrize("fusion", [*LATE, *EARLY])
every_count = pytest.mark.parametrize("count", [2, 3, 4])
probabilities = some.floats(1e-6, 1.0)
several = some.lists(probabilities, min_size=2, max_size=5)
alphas, limits = some.floats(0.01, 3.0), some.floats(1.0, 10.0)


def double(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def by_hand(scores: list[float], alpha: float, beta_max: float) -> list[float]:
    found = []
    for m, score in enumerate(scores):
        others = scores[:m] + scores[m + 1 :]
        r = sum(others) / len(others) / score
        found.append(1 + ((beta_max if r > 1 else 2) - 1) * math.tanh(alpha * (r - 1)))
    return found


def made(method, run: Run, x: Batch | None = None) -> dict:
    torch.manual_seed(0)
    method.gradients(run, x or batch(names=run.modalities))
    return gradients(run)


def modality_of(key: str) -> str | None:
    """Return whose parameter it is, by the layout of the toy models."""
    parts = key.split(".")
    return parts[1] if parts[0] in ("encoders", "heads") else None


def heads_scores(network: MultimodalModel, x: Batch) -> list[float]:
    """Return the mean probability of the target that each head gives."""
    torch.manual_seed(0)
    with torch.no_grad():
        features = network(x.inputs).features
        logits = [network.heads[name](features[name]) for name in network.modalities]
    return [sum(float(torch.softmax(z, 0)[y]) for z, y in zip(o, x.target, strict=True)) / len(o) for o in logits]


# The coefficients


@unhurried
@given(several, alphas, limits)
def test_it_is_the_formula(scores, alpha, beta_max):
    found = coefficients(double(scores), alpha, beta_max)
    close(found, double(by_hand(scores, alpha, beta_max)), 1e-10)


@unhurried
@given(probabilities, some.integers(2, 6), alphas, limits)
def test_at_balance_every_coefficient_is_exactly_one(score, count, alpha, beta_max):
    assert (coefficients(double([score] * count), alpha, beta_max) == 1).all()


@unhurried
@given(several, limits)
def test_at_alpha_zero_every_coefficient_is_exactly_one(scores, beta_max):
    assert (coefficients(double(scores), 0.0, beta_max) == 1).all()


@unhurried
@given(some.lists(some.floats(0.0, 1.0), min_size=2, max_size=5), alphas, limits)
def test_it_lies_between_its_limits_whatever_the_scores(scores, alpha, beta_max):
    for dtype in (torch.float32, torch.float64):
        k = coefficients(torch.tensor(scores, dtype=dtype), alpha, beta_max)
        assert k.dtype == dtype
        assert ((k >= 1 - math.tanh(alpha) - 1e-6) & (k <= beta_max * (1 + 1e-6))).all()


@unhurried
@given(probabilities, probabilities, alphas, some.floats(1.01, 10.0))
def test_who_is_ahead_is_held_back_and_who_lags_is_sped_up(first, second, alpha, beta_max):
    k = coefficients(double([first, second]), alpha, beta_max)
    if abs(first - second) > 1e-6:
        ahead, behind = (0, 1) if first > second else (1, 0)
        assert k[ahead] < 1 < k[behind]


def test_far_from_balance_it_reaches_its_limits():
    k = coefficients(double([1.0, 1e-12]), 0.8, 3.0)
    close(k, double([1 - math.tanh(0.8), 3.0]), 1e-9)


@unhurried
@given(several, alphas, limits, some.randoms())
def test_who_is_who_means_nothing(scores, alpha, beta_max, random):
    order = list(range(len(scores)))
    random.shuffle(order)
    values = double(scores)
    close(coefficients(values[order], alpha, beta_max), coefficients(values, alpha, beta_max)[order], 1e-10)


# A step, written out


@every_fusion
@every_count
def test_steps_are_those_written_out_by_hand(fusion, count):
    names = FOUR[:count]
    method = MLB(alpha=1.5, beta_max=3.0, weight=0.7)
    run = built(method, fusion, names=names)
    slow = copy.deepcopy(run.network)
    optimizer = torch.optim.SGD(slow.parameters(), lr=0.1)
    torch.manual_seed(1)
    steps(method, run, 3, names)
    torch.manual_seed(1)
    for number in range(3):
        x, entropy = batch(number, names=names), nn.functional.cross_entropy
        optimizer.zero_grad()
        output = slow(x.inputs)
        heads = {name: slow.heads[name](output.features[name]) for name in names}
        (entropy(output.logits, x.target) + 0.7 * sum(entropy(o, x.target) for o in heads.values())).backward()
        chosen = torch.arange(len(x.target)), x.target
        scores = [float(o.detach().softmax(1)[chosen].mean()) for o in heads.values()]
        factors = dict(zip(names, by_hand(scores, 1.5, 3.0), strict=True))
        for key, p in slow.named_parameters():
            if modality_of(key):
                p.grad *= factors[modality_of(key)]
        for m, name in enumerate(names):
            if fusion == "late":
                slow.fusion.linear[name].weight.grad *= factors[name]
            if fusion == "concat":
                slow.fusion.linear.weight.grad[:, 64 * m : 64 * (m + 1)] *= factors[name]
        optimizer.step()
    for mine, other in zip(run.network.parameters(), slow.parameters(), strict=True):
        close(mine, other, 1e-10)


@pytest.mark.parametrize("fusion", [*LATE, "shared", *EARLY])
def test_what_it_touches_is_encoders_heads_and_slices_and_nothing_else(fusion):
    names = NAMES[:2]
    method = MLB()
    run, plain = built(method, fusion, names=names), built(method, fusion, names=names)
    after, before = made(method, run), made(Uniform(), plain)
    scores = heads_scores(built(method, fusion, names=names).network, batch(names=names))
    factors = dict(zip(names, by_hand(scores, 0.8, 2.0), strict=True))
    assert all(abs(k - 1) > 1e-3 for k in factors.values())
    for key, grad in after.items():
        modality = modality_of(key)
        if modality:
            close(grad, factors[modality] * before[key])
        elif fusion == "late" and key.endswith("weight"):
            close(grad, factors[key.split(".")[2]] * before[key])
        elif fusion == "concat" and key.endswith("weight"):
            close(grad, double([factors[name] for name in names]).repeat_interleave(64) * before[key])
        else:
            assert torch.equal(grad, before[key])


def test_a_worked_step_holds_back_who_sees_more_and_speeds_up_the_other():
    names, eye = NAMES[:2], torch.eye(CLASSES, dtype=torch.float64)
    encoders = {name: nn.Linear(CLASSES, CLASSES, bias=False) for name in names}
    network = MultimodalModel(encoders, SumFusion(dict.fromkeys(names, CLASSES), CLASSES))
    network = MLB().build(network, CLASSES).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(eye if p.dim() == 2 else torch.zeros(CLASSES))
    plain, x = copy.deepcopy(network), Batch({"audio": 2 * eye, "image": eye}, torch.arange(CLASSES))
    run, other = run_of(network), run_of(plain)
    after, before = made(MLB(), run, x), made(Uniform(), other, x)
    s_a, s_v = math.e**2 / (math.e**2 + 4), math.e / (math.e + 4)
    k_a, k_v = 1 + math.tanh(0.8 * (s_v / s_a - 1)), 1 + math.tanh(0.8 * (s_a / s_v - 1))
    assert k_a < 0.72
    assert k_v > 1.44
    close(after["encoders.audio.weight"], k_a * before["encoders.audio.weight"])
    close(after["encoders.image.weight"], k_v * before["encoders.image.weight"])
    assert run.notes["coefficients"] == [round(k_a, 6), round(k_v, 6)]


def test_heads_are_added_one_linear_per_modality_beside_those_of_the_fusion():
    run = built(MLB())
    assert set(run.network.heads) == set(NAMES)
    assert all(grad is not None and grad.any() for grad in made(MLB(), run).values())


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_outside_the_window_it_is_uniform_training_of_the_same_weight(weight):
    method = MLB(weight=weight, first_epoch=3, last_epoch=5)
    for epoch in (1, 2, 6):
        run, plain = built(method, epochs=6), built(method, epochs=6)
        run.epoch = epoch
        after, expected = made(method, run), made(Uniform(weight=weight), plain)
        for key, grad in after.items():
            close(grad, expected[key])
        assert not run.notes


@pytest.mark.parametrize("epoch", [3, 4, 5])
def test_inside_the_window_it_acts_both_ends_included(epoch):
    method = MLB(first_epoch=3, last_epoch=5)
    run, plain = built(method, epochs=6), built(method, epochs=6)
    run.epoch = epoch
    after, expected = made(method, run), made(Uniform(), plain)
    assert len(run.notes["coefficients"]) == 3
    assert any((grad - expected[key]).abs().max() > 1e-4 for key, grad in after.items())


def law_the_second_pass_reuses_the_coefficients() -> None:
    method = MLB()
    run = built(method)
    made(method, run)
    first = run.notes["coefficients"]
    with torch.no_grad():
        for p in run.network.parameters():
            p.add_(0.2)
    moved = copy.deepcopy(run.network)
    moved.zero_grad()
    before = made(Uniform(), run_of(moved))
    fresh = by_hand(heads_scores(moved, batch()), 0.8, 2.0)
    assert all(abs(a - b) > 1e-3 for a, b in zip(first, fresh, strict=True))
    run.network.zero_grad()
    run.perturbed = True
    after = made(method, run)
    assert run.notes["coefficients"] == first
    for key, grad in after.items():
        if modality_of(key):
            close(grad, first[NAMES.index(modality_of(key))] * before[key], 1e-5)  # k is rounded in the notes


def test_the_second_pass_reuses_the_coefficients():
    law_the_second_pass_reuses_the_coefficients()


def test_the_planted_fault_coefficients_made_anew_in_the_second_pass_is_caught(monkeypatch):
    monkeypatch.setattr(Run, "once", lambda self, key, make: make())
    with pytest.raises(AssertionError):
        law_the_second_pass_reuses_the_coefficients()


def test_a_single_modality_is_refused():
    with pytest.raises(ValueError, match=r"MLB .* needs at least two, found \['audio'\]"):
        MLB().build(model(names=NAMES[:1]), CLASSES)


def test_the_targets_of_a_regression_are_refused():
    x = batch()._replace(target=torch.rand(8, CLASSES, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"labels \(N, K\), received a target \(8, 5\)"):
        MLB().gradients(built(MLB()), x)


def test_the_record_holds_one_coefficient_per_modality(tmp_path):
    record = trained(tmp_path, method="mlb", epochs=2, record_every=1)
    for line in record.steps:
        low, high = sorted(line["method"]["coefficients"])
        assert low <= 1 <= high
