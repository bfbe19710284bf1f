"""What a prediction is worth, by the kind of task. Single-label classification is the one there is."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from msam.diagnosis._views import named_coalition


class Classification:
    """One of C classes for each row: whether it is the right one, and the log-likelihood of the right one in nats."""

    name = "single-label"

    def checked(self, target: Any, rows: int, classes: int) -> Tensor:
        """Return the targets if they are integer classes, one for each row of logits.

        Raises:
            ValueError: if they are not.
        """
        if not isinstance(target, Tensor):
            raise ValueError(f"Targets must be a tensor of integer classes (N,), found {type(target).__name__}.")
        if target.dim() == 2 and target.shape[1] == 1 and classes > 1:
            target = target[:, 0]
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise ValueError(
                f"Targets must be integer classes (N,), found {tuple(target.shape)} of {target.dtype}. Where they are "
                "classes, pass `target.long()`; regression and labels of several classes are not diagnosed."
            )
        if target.shape != (rows,):
            raise ValueError(
                f"Targets must be one class for each row of logits, ({rows},), found {tuple(target.shape)}."
            )
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"Targets must lie in 0 to {classes - 1}, as the model has {classes} logits; found {low} to {high}."
            )
        return target.long()

    def rated(self, logits: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Return `hit` and `log_likelihood`, each `(K, N)`, of logits `(K, N, C)`."""
        chances = logits.double().log_softmax(-1)
        own = chances.gather(-1, target.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)
        return {"hit": self.hits(logits, target), "log_likelihood": own}

    def hits(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return 1 where the largest of the logits `(..., N, C)` is the target's, else 0."""
        return (logits.argmax(-1) == target).double()


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
