"""What is asked of the dial's classes: themselves, their binary digits, or their number; and the best answers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msam.data._mixture import Array, right

Classes = NDArray[np.int64]


class Answers(NamedTuple):
    """A task on classes.

    Attributes:
        outputs: from the number of classes to that of the model's outputs.
        target: from classes `(n,)` and their number C to targets.
        rated: from log-posteriors `(n, C)` and classes to how good the best answers are, `(n,)`.
    """

    outputs: Callable[[int], int]
    target: Callable[[Classes, int], NDArray[Any]]
    rated: Callable[[Array, Classes], Array]


def digits(classes: Classes, count: int) -> NDArray[np.bool_]:
    """Return the binary digits of classes, lowest first.

    >>> digits(np.array([0, 1, 6]), 8).astype(int).tolist()
    [[0, 0, 0], [1, 0, 0], [0, 1, 1]]
    """
    return (classes[:, None] >> np.arange(_labels(count)) & 1).astype(bool)


def levels(classes: Classes, count: int) -> NDArray[np.float32]:
    """Return classes as numbers with mean 0 and standard deviation 1 over all classes.

    >>> levels(np.array([0, 1]), 2).tolist()
    [-1.0, 1.0]
    """
    return ((classes - (count - 1) / 2) / np.sqrt((count**2 - 1) / 12)).astype(np.float32)


def _labels(count: int) -> int:
    return (count - 1).bit_length()


def _right_digits(log_posterior: Array, classes: Classes) -> Array:
    """Return the share of digits whose more probable value is the right one."""
    count = log_posterior.shape[1]
    there = np.exp(log_posterior) @ digits(np.arange(count), count)
    found: Array = ((there > 0.5) == digits(classes, count)).mean(1)
    return found


def _explained(log_posterior: Array, classes: Classes) -> Array:
    """Return 1 less the squared error of the expected level: levels have the variance 1."""
    count = log_posterior.shape[1]
    expected = np.exp(log_posterior) @ levels(np.arange(count), count)
    found: Array = np.asarray(1 - (expected - levels(classes, count)) ** 2, dtype=np.float64)
    return found


ANSWERS: Mapping[str, Answers] = {
    "single-label": Answers(lambda count: count, lambda classes, _: classes, right),
    "multi-label": Answers(_labels, digits, _right_digits),
    "regression": Answers(lambda _: 1, levels, _explained),
}
"""By the name of the task."""
