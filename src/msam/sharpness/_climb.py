"""The climb: up by the radius, down again, whatever happens in between."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Protocol

import torch
from torch import nn

from msam.sharpness._common import SHORTEST, Direction
from msam.sharpness._tensors import Gradients, displaced


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
    with ExitStack() as climb:
        with torch.no_grad():
            radius = max((rhos[p] for p in climbing), default=0.0)
            vectors, length = rule.direction(climbing) if radius else Direction({}, torch.zeros(()))
            norm = float(length)
            if not (math.isfinite(norm) and norm > radius * SHORTEST):
                radius = 0.0
            if radius:
                step = {p: rhos[p] / norm for p in vectors}
                climb.enter_context(displaced(vectors, step, exact=rule.exact))
            del vectors
        yield radius
