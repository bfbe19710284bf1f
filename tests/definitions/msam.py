"""Algorithm 1 of the M-SAM paper by the letter: three backwards a step, in float64."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def step(
    parameters: list[nn.Parameter],
    loss: Callable[[], Tensor],
    contributions: Tensor,
    rho: float,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Do one step: `grad L_d(theta + eps) + grad L_s(theta)`, `L_d = nu_d L`, `L_s = sum over m != d of nu_m L`."""
    dominant = int(contributions.argmax())
    nu_d = contributions[dominant]
    nu_s = contributions.sum() - nu_d

    ascent = torch.autograd.grad(nu_d * loss(), parameters)
    length = torch.sqrt(sum((g**2).sum() for g in ascent))
    theta = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p, g in zip(parameters, ascent, strict=True):
            p += rho * g / length
    robust = torch.autograd.grad(nu_d * loss(), parameters)
    with torch.no_grad():
        for p, saved in zip(parameters, theta, strict=True):
            p.copy_(saved)
    rest = torch.autograd.grad(nu_s * loss(), parameters)
    for p, a, b in zip(parameters, robust, rest, strict=True):
        p.grad = a + b
    optimizer.step()
