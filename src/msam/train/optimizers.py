"""Base optimizers and learning-rate schedules by name; their keyword-only parameters are the command line's flags."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch

from msam.checks import Range, Search

Groups = list[dict[str, Any]]
Rate = Annotated[float, Range(gt=0)]
Decay = Annotated[float, Range(ge=0)]
Momentum = Annotated[float, Range(ge=0, lt=1)]
AdaptiveRate = Annotated[Rate, Search(1e-4, 1e-2, log=True)]


def sgd(
    groups: Groups,
    *,
    lr: Annotated[Rate, Search(5e-4, 0.2, log=True)] = 0.05,
    momentum: Momentum = 0.9,
    weight_decay: Annotated[Decay, Search(1e-5, 1e-2, log=True)] = 1e-4,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """SGD with momentum and coupled weight decay, as the paper uses it."""
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


def adam(
    groups: Groups,
    *,
    lr: AdaptiveRate = 1e-3,
    beta1: Momentum = 0.9,
    beta2: Momentum = 0.999,
    weight_decay: Annotated[Decay, Search(choices=(0.0, 1e-5, 1e-4, 1e-3))] = 0.0,
) -> torch.optim.Optimizer:
    """Adam with coupled weight decay."""
    return torch.optim.Adam(groups, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay)


def adamw(
    groups: Groups,
    *,
    lr: AdaptiveRate = 1e-3,
    beta1: Momentum = 0.9,
    beta2: Momentum = 0.999,
    weight_decay: Annotated[Decay, Search(1e-4, 0.3, log=True)] = 1e-2,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay."""
    return torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), weight_decay=weight_decay)


def constant(*, epochs: int) -> Callable[[int], float]:
    """The same learning rate throughout."""
    return lambda _: 1.0


def step(
    *,
    epochs: int,
    at: Annotated[float, Range(gt=0, le=1)] = 0.7,
    gamma: Annotated[float, Range(gt=0, le=1)] = 0.1,
) -> Callable[[int], float]:
    """Multiply by `gamma` once, when the fraction `at` of the epochs is done.

    >>> [step(epochs=10)(epoch) for epoch in (0, 6, 7)]
    [1.0, 1.0, 0.1]
    """
    return lambda epoch: gamma if epoch >= at * epochs else 1.0


def step_every(
    *,
    epochs: int,
    period: Annotated[int, Range(ge=1)] = 70,
    gamma: Annotated[float, Range(gt=0, le=1)] = 0.1,
) -> Callable[[int], float]:
    """Multiply by `gamma` after every `period` epochs, whatever the length of the run; torch's `StepLR`.

    >>> [round(step_every(epochs=200)(epoch), 4) for epoch in (0, 69, 70, 140)]
    [1.0, 1.0, 0.1, 0.01]
    """
    return lambda epoch: gamma ** (epoch // period)


def cosine(*, epochs: int, final: Annotated[float, Range(ge=0, le=1)] = 0.0) -> Callable[[int], float]:
    """Half a cosine from 1 down to `final`.

    >>> [round(cosine(epochs=4)(epoch), 2) for epoch in range(4)]
    [1.0, 0.85, 0.5, 0.15]
    """
    return lambda epoch: final + (1 - final) * (1 + math.cos(math.pi * min(epoch, epochs) / epochs)) / 2


OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {f.__name__: f for f in (sgd, adam, adamw)}
SCHEDULES: Mapping[str, Callable[..., Callable[[int], float]]] = {
    f.__name__: f for f in (constant, step, step_every, cosine)
}
