"""Kinds of task: what a target is, the loss of an answer, and how good an answer is.

    single-label  target (N,) integers    one of C classes; logits are those of classes
    multi-label   target (N, K) bool      K labels, each there or not; logits (N, K), one for each label
    regression    target (N, K) floats    K numbers; logits (N, K) are the answers themselves

A target says by its type which it is (`of`), and `(N,)` stands for `(N, 1)` where there is one logit. Each task rates an
answer row by row in the same four ways, from which everything else is made: losses, contributions, measures, diagnoses.
"""

import torch
from torch import Tensor

from msam import checks
from msam.tasks._kinds import MultiLabel, Name, Regression, SingleLabel, Task

__all__ = ["MultiLabel", "Name", "Regression", "SingleLabel", "Task", "load", "of", "per_sample_loss", "told"]

_TASKS: dict[str, Task] = {made.name: made for made in (SingleLabel(), MultiLabel(), Regression())}


def load(name: str) -> Task:
    """Return the task called `name`.

    Raises:
        ValueError: if there is none, with the nearest known name.

    >>> load("multi-label").measured
    'label accuracy'
    """
    return _TASKS[checks.one_of("task", name, _TASKS)]


def of(target: Tensor, outputs: int) -> Task:
    """Return the task that a target is of, by its type, where a model has so many outputs.

    Floats are a regression. Bool, `(N, K)`, and `(N,)` where there is one output, are labels. Integers `(N,)` are classes.

    >>> of(torch.tensor([0, 3]), 4).name, of(torch.tensor([0, 1]), 1).name, of(torch.zeros(2), 1).name
    ('single-label', 'multi-label', 'regression')
    """
    if target.is_floating_point():
        return _TASKS["regression"]
    labels = target.dim() == 2 or target.dtype == torch.bool or outputs == 1
    return _TASKS["multi-label" if labels else "single-label"]


def told(target: Tensor, outputs: int, name: str | None = None) -> Task:
    """Return the task called `name`, or by its type where nothing is said; for the first look at somebody's data.

    Raises:
        ValueError: for an unknown name, or where nothing is said and floats are nothing but 0 and 1: labels, most likely,
            as losses want them.

    >>> told(torch.tensor([[1.0, 0.0]]), 2, "multi-label").name
    'multi-label'
    """
    if name is not None:
        return load(name)
    found = of(target, outputs)
    fits = target.dim() == 2 or outputs == 1
    if isinstance(found, Regression) and fits and bool(((target == 0) | (target == 1)).all()):
        raise ValueError(
            f"Targets {tuple(target.shape)} of {target.dtype} are nothing but 0 and 1. If they are labels, say "
            "task='multi-label' (or pass `target.bool()`); if they are numbers, say task='regression'."
        )
    return found


def per_sample_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return one loss per sample, `(N,)`.

    Cross-entropy for integer classes `(N,)`, mean binary cross-entropy for integer or bool labels `(N, K)`, squared
    error (mean over outputs) for a floating target of the shape of the logits, or `(N,)` with one logit.

    Raises:
        ValueError: if shapes do not fit, or labels are neither 0 nor 1.

    >>> per_sample_loss(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor([1.3863, 1.3863])
    """
    if logits.dim() != 2:
        raise ValueError(
            f"`logits` must be (N, C), received {tuple(logits.shape)}. One output is `logits.unsqueeze(1)`."
        )
    task = of(target, logits.shape[1])
    return task.loss(logits, task.fitting(target, *logits.shape))
