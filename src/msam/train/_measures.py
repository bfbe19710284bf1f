"""The measures of answers, by the kind of task; the first of each is the one that decides (`Task.measure`)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from msam.tasks import Task

Measure = Callable[[Tensor, Tensor], float]


def measured(task: Task, logits: Tensor, target: Tensor) -> dict[str, float]:
    """Return all measures of logits `(N, C)`, and `nll`, the mean negative log-likelihood of the targets in nats.

    The NLL of labels is a mean over labels; that of numbers is of a normal distribution with the standard deviation 1
    around the answer, its constant left out.
    """
    found = {name: measure(logits, target) for name, measure in MEASURES[task.name].items()}
    return {**found, "nll": nll(task, logits, target)}


def score(task: Task, logits: Tensor, target: Tensor) -> float:
    """Return the measure that decides."""
    return MEASURES[task.name][task.measure](logits, target)


def nll(task: Task, logits: Tensor, target: Tensor) -> float:
    """Return the mean negative log-likelihood of the targets, in nats."""
    if task.name == "single-label":  # along the samples its softmax is vectorised, six times faster
        return float(functional.cross_entropy(logits.T.contiguous().unsqueeze(0), target.unsqueeze(0)))
    return float(-task.log_probability(logits, target).double().mean())


def accuracy(logits: Tensor, target: Tensor) -> float:
    """Return the fraction of samples whose largest logit is the target's, in [0, 1].

    >>> accuracy(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    0.5
    """
    return float((logits.argmax(-1) == target).double().mean())


def macro_f1(logits: Tensor, target: Tensor) -> float:
    """Return the mean over classes of `2 TP / (2 TP + FP + FN)`, in [0, 1].

    A class that is neither in the targets nor predicted has no F1 and is left out of the mean.

    >>> round(macro_f1(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])), 3)
    0.333
    """
    predicted, size = logits.argmax(-1), logits.shape[-1]
    hits = torch.bincount(target[predicted == target], minlength=size).double()
    return _mean_f1(hits, torch.bincount(target, minlength=size) + torch.bincount(predicted, minlength=size))


def label_accuracy(logits: Tensor, target: Tensor) -> float:
    """Return the fraction of labels `(N, K)` that are told right, 1 less the Hamming loss.

    >>> label_accuracy(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[True, False], [True, False]]))
    0.75
    """
    return float(((logits > 0) == target).double().mean())


def exact_match(logits: Tensor, target: Tensor) -> float:
    """Return the fraction of samples all of whose labels are told right.

    >>> exact_match(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[True, False], [True, False]]))
    0.5
    """
    return float(((logits > 0) == target).all(-1).double().mean())


def label_f1(logits: Tensor, target: Tensor) -> float:
    """Return the mean over labels of `2 TP / (2 TP + FP + FN)`.

    A label that is nowhere, nor predicted, is left out; NaN where all are.

    >>> label_f1(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[True, False], [False, True]]))
    0.8333333333333333
    """
    predicted = logits > 0
    return _mean_f1((predicted & target).sum(0).double(), predicted.sum(0) + target.sum(0))


def average_precision(logits: Tensor, target: Tensor) -> float:
    """Return the mean over labels of the average precision: of the precision at every sample that has the label.

    Samples are ranked by the label's logit; those with equal logits are taken together. A label that no sample has is left
    out; NaN where none has any.

    >>> average_precision(torch.tensor([[3.0], [2.0], [1.0]]), torch.tensor([[True], [False], [True]]))
    0.8333333333333333
    """
    found = [_precision(z, y) for z, y in zip(logits.T, target.T, strict=True) if y.any()]
    return sum(found) / len(found) if found else float("nan")


def r2(logits: Tensor, target: Tensor) -> float:
    """Return `1 - sum (y - z)**2 / sum (y - mean y)**2` over samples and numbers; NaN where targets do not vary.

    >>> r2(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [3.0]]))
    0.5
    """
    y, z = target.double(), logits.double()
    around = float((y - y.mean(0)).square().sum())
    return 1 - float((y - z).square().sum()) / around if around > 0 else float("nan")


def rmse(logits: Tensor, target: Tensor) -> float:
    """Return the root of the mean squared error, in the unit of the targets.

    >>> rmse(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]]))
    1.4142135623730951
    """
    return float((target.double() - logits.double()).square().mean().sqrt())


def mae(logits: Tensor, target: Tensor) -> float:
    """Return the mean absolute error, in the unit of the targets.

    >>> mae(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]]))
    1.0
    """
    return float((target.double() - logits.double()).abs().mean())


MEASURES: Mapping[str, Mapping[str, Measure]] = {
    "single-label": {"accuracy": accuracy, "macro_f1": macro_f1},
    "multi-label": {
        "accuracy": label_accuracy,
        "macro_f1": label_f1,
        "exact_match": exact_match,
        "average_precision": average_precision,
    },
    "regression": {"r2": r2, "rmse": rmse, "mae": mae},
}


def _mean_f1(hits: Tensor, seen: Tensor) -> float:
    return float((2 * hits / seen)[seen > 0].mean())


def _precision(logits: Tensor, target: Tensor) -> float:
    """Return the average precision of one label, `sum over thresholds of (R_n - R_n-1) P_n`."""
    order = logits.argsort(descending=True)
    ranked, hits = logits[order], target[order].double()
    last = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool, device=ranked.device)])
    right = hits.cumsum(0)[last]
    taken = torch.arange(1, len(hits) + 1, device=ranked.device)[last]
    gained = torch.diff(right, prepend=right.new_zeros(1))
    return float((gained * right / taken).sum() / hits.sum())
