"""The climb: up by the radius, down again, whatever happens in between."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import nn

from msam.sharpness._common import SHORTEST, Direction
from msam.sharpness._tensors import Gradients, displaced, steps


class Climber(Protocol):
    """A rule, as far as a climb needs it."""

    exact: bool

    def direction(self, first: Gradients) -> Direction:
        """Return where to climb."""
        ...


def moved(rule: Climber, climbing: Gradients, rhos: Mapping[nn.Parameter, float]) -> AbstractContextManager[float]:
    """Return a block that climbs and yields the radius, 0 where nothing climbs, and comes back however it ends.

    Nothing climbs where there are no gradients, all radii are 0, or the direction's length is 0 or not finite.
    """
    known = set(rhos.values())
    radius = known.pop() if len(known) == 1 and climbing else max((rhos[p] for p in climbing), default=0.0)
    if not radius:
        return nullcontext(0.0)
    with torch.no_grad():
        vectors, length = rule.direction(climbing)
    norm = float(length)
    if not (math.isfinite(norm) and norm > radius * SHORTEST):
        return nullcontext(0.0)
    return displaced(steps(vectors, rhos), norm, exact=rule.exact)
