"""Somebody's targets: of which task they are, and whether they fit what a model answers."""

import warnings
from typing import Any

import torch
from torch import Tensor

from msam import tasks

FEW, OFF, SMALL, LARGE = 16, 1.0, 0.25, 4.0
"""Rows below which nothing is said of numbers; a mean, and standard deviations, that are far from 0 and from 1."""


def warn_unless_standardised(target: Tensor) -> None:
    """Warn of numbers that are far from standardised: contributions take 0 for knowing nothing, and 1 for the spread."""
    if not target.is_floating_point() or len(target) < FEW:
        return
    numbers = target.detach().double().reshape(len(target), -1)
    mean, sd = numbers.mean(0), numbers.std(0)
    if bool(((mean.abs() > OFF) | (sd < SMALL) | (sd > LARGE)).any()):
        k = int(((sd.clamp_min(1e-12).log().abs()) + mean.abs()).argmax())
        warnings.warn(
            f"Numbers of a regression should be standardised, for contributions and radii to mean something: output {k} "
            f"has the mean {float(mean[k]):.3g} and the standard deviation {float(sd[k]):.3g} in {len(target)} samples. "
            "Train on (y - mean) / sd, of the training samples.",
            stacklevel=3,
        )


class Told:
    """The task that targets are of: the one that is named, else the one that the first of them tell.

    Arguments:
        name: of the task; None: as the first targets tell, see `msam.tasks.told`.

    Raises:
        ValueError: if there is no such task.
    """

    def __init__(self, name: tasks.Name | None) -> None:
        self._name = name
        self._task = None if name is None else tasks.load(name)

    @property
    def task(self) -> tasks.Task:
        """The task; there is one as soon as targets were seen."""
        assert self._task is not None
        return self._task

    def tell(self, target: Any, outputs: int) -> None:
        """Settle the task by these targets, where it is not settled yet.

        Raises:
            ValueError: if they are no tensor, or could be of two tasks.
        """
        if not isinstance(target, Tensor):
            raise ValueError(f"Targets must be a tensor, found {type(target).__name__}.")
        self._task = self._task or tasks.told(_flat(target, outputs), outputs)

    def checked(self, target: Any, rows: int, outputs: int) -> Tensor:
        """Return targets in the type of their task and the shape that fits logits `(rows, outputs)`.

        Integer classes may be `(N, 1)`, too.

        Raises:
            ValueError: if they cannot be of the task, do not fit, are not finite, or are classes that the model has not.
        """
        self.tell(target, outputs)
        classes = self.task.name == "single-label"
        target = self.task.canonical(_flat(target, outputs) if classes else target)
        target = self.task.fitting(target, rows, outputs)
        if classes and len(target):
            low, high = int(target.min()), int(target.max())
            if low < 0 or high >= outputs:
                raise ValueError(
                    f"Targets must lie in 0 to {outputs - 1}, as the model has {outputs} logits; found {low} to {high}."
                )
        bad = int((~target.isfinite()).any(-1).sum()) if target.is_floating_point() else 0
        if bad:
            raise ValueError(
                f"Targets of a regression must be finite; {bad} of {rows} rows hold NaN or infinity. Leave out samples "
                "whose target is not known."
            )
        return target


def _flat(target: Tensor, outputs: int) -> Tensor:
    """Return integers `(N, 1)` as `(N,)` where there are several logits, whose classes they can only be."""
    whole = not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)
    return target[:, 0] if whole and outputs > 1 and target.dim() == 2 and target.shape[1] == 1 else target
