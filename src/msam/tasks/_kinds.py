"""The three kinds of task."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

Name = Literal["single-label", "multi-label", "regression"]


class Task(ABC):
    """How answers are rated. Answers are `(..., N, C)` and targets as `fitting` returns them; ratings are `(..., N)`.

    Attributes:
        name: of the task.
        measure: the measure that decides, in the results of `msam.train.evaluate`: higher is better, 1 the best.
        measured: the same in words.
    """

    name: ClassVar[Name]
    measure: ClassVar[str] = "accuracy"
    measured: ClassVar[str]

    @abstractmethod
    def canonical(self, target: Tensor) -> Tensor:
        """Return the target in the type by which it is known: integers, bool, or floats.

        Raises:
            ValueError: if it cannot be a target of this task.
        """

    def whole(self, target: Tensor) -> Tensor:
        """Return labels or numbers `(N,)` as `(N, 1)`; classes, and what is whole, as they are."""
        return target.unsqueeze(1) if target.dim() == 1 else target

    @abstractmethod
    def fitting(self, target: Tensor, rows: int, outputs: int) -> Tensor:
        """Return the target in the shape that fits logits `(rows, outputs)`.

        Raises:
            ValueError: if it does not fit.
        """

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `(N, C)`, `(N,)`, with its graph."""

    @abstractmethod
    def probability(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return how probable the target is; of a regression, above the answer 0."""

    @abstractmethod
    def log_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return how probable it is in nats."""

    @abstractmethod
    def hit(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return how right the answer is."""

    @abstractmethod
    def logit(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return by how much the answer speaks for the target, linear in it."""


class SingleLabel(Task):
    """One of C classes. Loss: cross-entropy. `hit`: 1 where the largest logit is the target's."""

    name = "single-label"
    measured = "accuracy"

    def canonical(self, target: Tensor) -> Tensor:
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool or target.dim() != 1:
            raise ValueError(
                f"Targets of single-label classes must be integers (N,), received {tuple(target.shape)} of "
                f"{target.dtype}. Where they are classes, pass `target.long()`; where they are labels or numbers, say so: "
                "task='multi-label' or task='regression' (of a dataset: `Dataset(..., task=...)`)."
            )
        return target.long()

    def whole(self, target: Tensor) -> Tensor:
        return target

    def fitting(self, target: Tensor, rows: int, outputs: int) -> Tensor:
        if target.dim() != 1 or len(target) != rows or target.is_floating_point():
            raise ValueError(_misfit("integer classes (N,)", target, rows, outputs))
        return target

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(logits, target, reduction="none")

    def probability(self, logits: Tensor, target: Tensor) -> Tensor:
        return _at(_by_class(logits).softmax(-2), target)

    def log_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        return _at(_by_class(logits).log_softmax(-2), target)

    def hit(self, logits: Tensor, target: Tensor) -> Tensor:
        return (logits.argmax(-1) == target).to(logits.dtype)

    def logit(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits.gather(-1, target.long().expand(logits.shape[:-1]).unsqueeze(-1)).squeeze(-1)


class MultiLabel(Task):
    """K labels. Loss: mean binary cross-entropy. All ratings are means over labels, of the label's own answer; `hit`: 1
    where a logit is above 0 and the label there, or neither."""

    name = "multi-label"
    measured = "label accuracy"

    def canonical(self, target: Tensor) -> Tensor:
        if target.dtype != torch.bool and not bool(((target == 0) | (target == 1)).all()):
            raise ValueError(
                f"Targets of a multi-label task must be 0 or 1, received {tuple(target.shape)} of {target.dtype} from "
                f"{float(target.min()):g} to {float(target.max()):g}. Where they are numbers, pass `target.float()` and "
                "say task='regression'; classes need an output for each."
            )
        return target.bool()

    def fitting(self, target: Tensor, rows: int, outputs: int) -> Tensor:
        target = target.unsqueeze(1) if target.dim() == 1 and outputs == 1 else target
        if tuple(target.shape) != (rows, outputs):
            raise ValueError(_misfit("labels (N, C)", target, rows, outputs))
        return self.canonical(target)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none").mean(-1)

    def probability(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.sigmoid(_signed(logits, target)).mean(-1)

    def log_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        return functional.logsigmoid(_signed(logits, target)).mean(-1)

    def hit(self, logits: Tensor, target: Tensor) -> Tensor:
        return ((logits > 0) == target.bool()).to(logits.dtype).mean(-1)

    def logit(self, logits: Tensor, target: Tensor) -> Tensor:
        return _signed(logits, target).mean(-1)


class Regression(Task):
    """K numbers `y`, answered by `z`. Loss: `mean_k (z_k - y_k)**2`.

    The ratings are those of a normal distribution around the answer with the standard deviation 1, so targets should be
    standardised. With means over k: `log_probability = -(z - y)**2 / 2`, its constant left out; `probability =
    exp(-(z - y)**2 / 2) - exp(-y**2 / 2)`, above that of the answer 0, so that nothing is worth 0; `hit = y**2 -
    (z - y)**2`, by how much the answer is nearer than 0 is: over standardised targets its mean is R²; `logit = z y`.
    """

    name = "regression"
    measure = "r2"
    measured = "R²"

    def canonical(self, target: Tensor) -> Tensor:
        if not target.is_floating_point():
            raise ValueError(
                f"Targets of a regression must be floats, received {target.dtype}. Pass `target.float()`, standardised."
            )
        return target

    def fitting(self, target: Tensor, rows: int, outputs: int) -> Tensor:
        target = target.unsqueeze(1) if target.dim() == 1 and outputs == 1 else target
        if tuple(target.shape) != (rows, outputs):
            hint = " Where they are classes, pass `target.long()`." if target.dim() == 1 else ""
            raise ValueError(
                _misfit("floats of the shape of the logits for a regression", target, rows, outputs) + hint
            )
        return target

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        precise = torch.promote_types(logits.dtype, target.dtype)  # bf16 logits leave float32 targets as they are
        return functional.mse_loss(logits.to(precise), target.to(precise), reduction="none").mean(-1)

    def probability(self, logits: Tensor, target: Tensor) -> Tensor:
        nothing = target.square().mul(-0.5).exp()
        return ((logits - target).square().mul(-0.5).exp() - nothing).mean(-1)

    def log_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        return (logits - target).square().mean(-1).mul(-0.5)

    def hit(self, logits: Tensor, target: Tensor) -> Tensor:
        return (target.square() - (logits - target).square()).mean(-1)

    def logit(self, logits: Tensor, target: Tensor) -> Tensor:
        return (logits * target).mean(-1)


def _misfit(wanted: str, target: Tensor, rows: int, outputs: int) -> str:
    return (
        f"`target` must be {wanted}, received {tuple(target.shape)} of {target.dtype} for logits ({rows}, {outputs})."
    )


def _signed(logits: Tensor, target: Tensor) -> Tensor:
    return torch.where(target.bool(), logits, -logits)


def _by_class(logits: Tensor) -> Tensor:
    """Return `(..., C, N)` of `(..., N, C)`: along the samples a softmax is vectorised, ten times faster of ten."""
    return logits.mT.contiguous()


def _at(by_class: Tensor, target: Tensor) -> Tensor:
    return by_class.gather(-2, target.long().expand(*by_class.shape[:-2], 1, -1)).squeeze(-2)
