"""How a radius goes on during training."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from msam import checks

Named = Literal["constant", "inverse_sqrt", "learning_rate"]
RhoSchedule = Named | Callable[[int], float]
SOUND = checks.Range(ge=0, lt=math.inf)


def factors(
    schedule: RhoSchedule, optimizer: torch.optim.Optimizer, initial: Sequence[float], step: int
) -> list[float]:
    """Return the factor on `rho` of every parameter group at a step, counted from 1.

    `constant`: 1. `inverse_sqrt`: `1 / sqrt(t)`, that of the convergence theorem (Sec. 3.6 of the M-SAM paper).
    `learning_rate`: `lr_t / lr_0`, each group's own (GSAM, Eq. 10, with `rho_min = 0`). A function is called with `t`.

    Raises:
        ValueError: for an unknown name, or a factor that is negative or not finite.

    >>> sgd = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    >>> factors("inverse_sqrt", sgd, [0.1], 4)
    [0.5]
    """
    if not callable(schedule):
        checks.one_of("rho_schedule", schedule, ("constant", "inverse_sqrt", "learning_rate"))
    if schedule == "learning_rate":
        added = [float(group["lr"]) for group in optimizer.param_groups[len(initial) :]]
        return [
            float(group["lr"]) / rate if rate else 1.0
            for group, rate in zip(optimizer.param_groups, [*initial, *added], strict=True)
        ]
    if schedule == "constant":
        return [1.0] * len(optimizer.param_groups)
    factor = schedule(step) if callable(schedule) else 1 / math.sqrt(step)
    checks.in_range("rho_schedule(t)", factor, SOUND)
    return [float(factor)] * len(optimizer.param_groups)


def initial_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return the learning rate every group began with: as a scheduler remembers it, else the present one."""
    return [float(group.get("initial_lr", group.get("lr", 1.0))) for group in optimizer.param_groups]


def radii(
    optimizer: torch.optim.Optimizer, rho: float, of_group: Callable[[float, int], float]
) -> dict[nn.Parameter, float]:
    """Return the radius of every parameter: `of_group(rho, position)` of its group, whose own `"rho"` comes first.

    Raises:
        ValueError: if a radius is negative or not finite, or a group maximizes.
    """
    found: dict[nn.Parameter, float] = {}
    taken = "rho" in optimizer.defaults  # Adadelta's own decay, no radius
    for position, group in enumerate(optimizer.param_groups):
        if group.get("maximize"):
            raise ValueError("The optimizer must minimize, received maximize=True. Negate the loss instead.")
        radius = sound_radius(of_group(sound_radius(rho if taken else group.get("rho", rho)), position))
        found |= dict.fromkeys(group["params"], radius)
    return found


def sound_radius(rho: float) -> float:
    """Return a radius.

    Raises:
        ValueError: if it is negative or not finite.
    """
    return checks.in_range("rho", rho, SOUND)
