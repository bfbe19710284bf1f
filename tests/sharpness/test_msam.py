"""M-SAM is Algorithm 1 of the paper, in two passes."""

import copy
import math

import pytest
import torch
from torch import nn

import msam
from msam import shapley
from tests.definitions import msam as algorithm_1

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1e-2),
}


def problem(modalities: int):
    torch.manual_seed(3)
    names = [f"m{i}" for i in range(modalities)]
    encoders = {n: nn.Sequential(nn.Linear(5, 7), nn.Tanh()) for n in names}
    model = msam.MultimodalModel(encoders, msam.MaxoutFusion(dict.fromkeys(names, 7), 4, (8,), 0.0, False)).double()
    x = {n: torch.randn(12, 5, dtype=torch.float64) for n in names}
    return model, x, torch.arange(12) % 4


def contributions_of(model, features, y):
    return shapley.contributions(shapley.coalition_logits(model, features), y)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_two_passes_equal_the_three_backwards_of_algorithm_1(modalities, optimizer):
    model, x, y = problem(modalities)
    literal = copy.deepcopy(model)
    own, other = (OPTIMIZERS[optimizer](list(m.parameters())) for m in (model, literal))
    rule = msam.MSAM(own, rho=0.3, model=model)
    for _ in range(5):
        own.zero_grad()
        output = model(x)
        nn.functional.cross_entropy(output.logits, y).backward()
        with rule.perturbed(contributions_of(model, output.features, y)):
            nn.functional.cross_entropy(model(x).logits, y).backward()
        own.step()

        nu = contributions_of(literal, literal(x).features, y)
        algorithm_1.step(
            list(literal.parameters()), lambda: nn.functional.cross_entropy(literal(x).logits, y), nu, 0.3, other
        )
        for a, b in zip(model.parameters(), literal.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def gradient(rule: type[msam.Sharpness], shares):
    model, x, y = problem(2)
    made = rule(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.3)
    nn.functional.cross_entropy(model(x).logits, y).backward()
    with made.perturbed(shares):
        nn.functional.cross_entropy(model(x).logits, y).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_when_one_modality_does_everything_it_is_sam():
    assert torch.equal(gradient(msam.MSAM, [1.0, 0.0]), gradient(msam.SAM, None))


def test_which_modality_dominates_never_enters_only_how_much():
    assert torch.equal(gradient(msam.MSAM, [0.7, 0.3]), gradient(msam.MSAM, [0.3, 0.7]))


def test_the_update_is_affine_in_the_share():
    at_half, at_one = gradient(msam.MSAM, [0.5, 0.5]), gradient(msam.MSAM, [1.0, 0.0])
    torch.testing.assert_close(gradient(msam.MSAM, [0.75, 0.25]), (at_half + at_one) / 2)


@pytest.mark.parametrize("shares", [None, [0.5, 0.2], [math.nan, 1.0], [-0.5, 1.5], [[0.5, 0.5]], 1.0, []], ids=str)
def test_contributions_that_are_none_are_refused_before_anything_changes(shares):
    model, x, y = problem(2)
    rule = msam.MSAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.3)
    nn.functional.cross_entropy(model(x).logits, y).backward()
    before = [(p, p.detach().clone(), p.grad) for p in model.parameters()]
    with pytest.raises(ValueError, match="contributions"), rule.perturbed(shares):
        pass
    assert all(torch.equal(p, w) and p.grad is g for p, w, g in before)
