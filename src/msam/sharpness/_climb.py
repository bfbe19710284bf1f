"""The climb: up by the radius, down again, whatever happens in between."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


@contextmanager
def moved(rule: Climber, climbing: Gradients, rhos: Mapping[nn.Parameter, float]) -> Iterator[float]:
    """Climb and yield the radius, 0 where nothing climbs; come back however the block ends.

    Nothing climbs where there are no gradients, all radii are 0, or the direction's length is 0 or not finite.
    """
    known = set(rhos.values())
    radius = known.pop() if len(known) == 1 and climbing else max((rhos[p] for p in climbing), default=0.0)
    with torch.no_grad():
        vectors, length = rule.direction(climbing) if radius else Direction({}, torch.zeros(()))
    norm = float(length)
    moves = steps(vectors, rhos)
    del vectors
    if radius and math.isfinite(norm) and norm > radius * SHORTEST:
        with displaced(moves, norm, exact=rule.exact):
            yield radius
    else:
        yield 0.0
