"""Section 3.6 of the paper, corrected: with step and radius falling as 1 / sqrt(t) the bound holds, and is no empty one."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import convergence


@pytest.fixture(scope="module")
def curves():
    return convergence.run(1000)


def test_the_bound_holds_at_every_step_and_is_within_a_hundred_times_of_what_is_measured(curves):
    assert (curves.mean <= curves.bound).all()
    assert curves.bound[-1] < 100 * curves.mean[-1]


def test_the_mean_falls_as_fast_as_the_rate(curves):
    assert convergence.slope(curves.mean) <= -0.4


def test_the_slope_is_that_of_a_power():
    assert convergence.slope(3 * torch.arange(1.0, 400, dtype=torch.float64) ** -0.7) == pytest.approx(-0.7)


def test_the_constants_are_those_of_the_problem():
    model, inputs, target = convergence.problem()
    smoothness, largest = convergence.constants(inputs)
    parameters = dict(model.named_parameters())

    def loss(*values):
        output = torch.func.functional_call(model, dict(zip(parameters, values, strict=True)), (inputs,))
        return nn.functional.cross_entropy(output.logits, target)

    made = torch.Generator().manual_seed(1)
    for scale in (0.0, 0.3, 3.0):
        at = tuple(scale * torch.randn(p.shape, generator=made, dtype=p.dtype) for p in parameters.values())
        gradient = torch.autograd.functional.jacobian(loss, at)
        assert torch.cat([g.flatten() for g in gradient]).norm() <= largest
        blocks = torch.autograd.functional.hessian(loss, at)
        sizes = [p.numel() for p in parameters.values()]
        hessian = torch.cat(
            [torch.cat([b.reshape(n, -1) for b in row], 1) for n, row in zip(sizes, blocks, strict=True)]
        )
        assert float(torch.linalg.eigvalsh(hessian)[-1]) <= smoothness


def test_a_radius_that_does_not_fall_is_noticed(monkeypatch):
    monkeypatch.setattr(convergence.msam, "MSAM", lambda o, rho, rho_schedule: msam_with_constant_radius(o, rho))
    with pytest.raises(AssertionError):
        convergence.run(3)


def msam_with_constant_radius(optimizer, rho):
    from msam.sharpness.msam import MSAM

    return MSAM(optimizer, rho=rho)
