"""What an answer is worth to a diagnosis, by the kind of task: ratings of rows, chance, and which rows make a class."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from msam import tasks
from msam.diagnosis._game import Array
from msam.diagnosis._views import named_coalition

HIT, LOG_LIKELIHOOD = "hit", "log_likelihood"


class Scale(NamedTuple):
    """What makes a measure of a rating: `offset + factor * rating`."""

    offset: float = 0.0
    factor: float = 1.0


class Unit(NamedTuple):
    """In what answers are learned: those of a regression standardised, by one scale for all numbers, others as they are."""

    mean: Tensor
    scale: float

    def learned(self, target: Tensor) -> Tensor:
        """Return targets as they are to be learned."""
        return (target - self.mean.to(target)) / self.scale if target.is_floating_point() else target

    def answered(self, logits: Tensor) -> Tensor:
        """Return what was learned as answers."""
        return self.mean.to(logits) + self.scale * logits


class Kind(ABC):
    """A kind of task as a diagnosis sees it: each row has two ratings, `hit`, whose means are the measure, and
    `log_likelihood` in nats."""

    task: ClassVar[tasks.Task]

    def rated(self, logits: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Return both ratings, `(K, N)`, of logits `(K, N, C)`."""
        likely = self.task.log_probability(logits.double(), target)
        return {HIT: self.hits(logits, target), LOG_LIKELIHOOD: likely}

    def hits(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return how right each of the answers `(..., N, C)` is, `(..., N)`."""
        return self.task.hit(logits.double(), target)

    def off(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return by how much answers `(K, N, C)` are above targets, summed over rows, `(K, C)`; 0 of what is no number."""
        return logits.new_zeros(len(logits), 1)

    def scales(self, target: Array) -> Mapping[str, Scale]:
        """Return what makes measures of ratings, once all targets are known."""
        return {HIT: Scale(), LOG_LIKELIHOOD: Scale()}

    def unit(self, target: Tensor) -> Unit:
        """Return in what answers are learned, from training targets."""
        return Unit(torch.zeros(1), 1.0)

    @abstractmethod
    def chance(self, target: Array) -> float:
        """Return the measure of the best answer that looks at nothing."""

    @abstractmethod
    def groups(self, target: Array, outputs: int) -> tuple[Array, ...]:
        """Return for each class which rows `(N,)` are its own."""


class Classes(Kind):
    """One of C classes; the rows of a class have it."""

    task = tasks.load("single-label")

    def chance(self, target: Array) -> float:
        """Return the share of the most frequent class."""
        return float(np.bincount(target).max() / len(target))

    def groups(self, target: Array, outputs: int) -> tuple[Array, ...]:
        return tuple(target == c for c in range(outputs))


class Labels(Kind):
    """K labels; ratings are means over labels, the rows of a label have it."""

    task = tasks.load("multi-label")

    def chance(self, target: Array) -> float:
        """Return the share of the more frequent answer, as a mean over labels."""
        there = target.mean(0)
        return float(np.maximum(there, 1 - there).mean())

    def groups(self, target: Array, outputs: int) -> tuple[Array, ...]:
        return tuple(target.T)


class Numbers(Kind):
    """K numbers. Ratings are squared errors until the variance of all targets is known, which makes R² of their means.

    With `e = mean_k (z_k - y_k)**2` and the variance `V`, a mean over rows and numbers, they are `1 - e / V` and
    `-e / (2 V)`: the log-likelihood by a normal distribution of that variance, its constant left out.
    """

    task = tasks.load("regression")

    def hits(self, logits: Tensor, target: Tensor) -> Tensor:
        return 2 * self.task.log_probability(logits.double(), target)

    def off(self, logits: Tensor, target: Tensor) -> Tensor:
        return (logits - target).sum(1)

    def scales(self, target: Array) -> Mapping[str, Scale]:
        """Return the scales.

        Raises:
            ValueError: if targets do not vary.
        """
        if (target == target[0]).all():
            raise ValueError(
                f"There is no R² where targets do not vary: those of all {len(target)} rows of `loader` are alike, "
                f"{target[0].tolist()}. Diagnose on samples that differ."
            )
        factor = 1 / float(target.var(0).mean())
        return {HIT: Scale(1.0, factor), LOG_LIKELIHOOD: Scale(0.0, factor)}

    def unit(self, target: Tensor) -> Unit:
        y = target.cpu().double()
        mean = y.mean(0)
        return Unit(mean, float((y - mean).square().mean().sqrt()) or 1.0)

    def chance(self, target: Array) -> float:
        """Return the R² of the mean as answer, 0."""
        return 0.0

    def groups(self, target: Array, outputs: int) -> tuple[Array, ...]:
        return ()


KINDS: Mapping[str, Kind] = {kind.task.name: kind for kind in (Classes(), Labels(), Numbers())}
"""Kinds by the name of their task."""


def sound(logits: Tensor, coalitions: Any, modalities: tuple[str, ...]) -> None:
    """Check that logits `(K, N, C)` are finite.

    Raises:
        ValueError: if those of a coalition are not, naming it.
    """
    for members, found in zip(coalitions, logits, strict=True):
        if not found.isfinite().all():
            bad = int((~found.isfinite()).any(-1).sum())
            raise ValueError(
                f"{named_coalition(members, modalities)} the model gives logits that are NaN or infinite, in {bad} of "
                f"{len(found)} rows. Inputs are finite. Look at the weights, or say what stands in for an absent input: "
                "msam.adapt(..., absent={...})."
            )
