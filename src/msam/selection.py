"""Which epoch of a run counts, in tuning and in the report. A selection sees validation metrics and nothing else."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msam import checks
from msam.record import Record


@dataclass(frozen=True)
class Selection:
    """A rule that picks one epoch.

    Attributes:
        name: its name, printed with every table.
        words: the rule in words.
        choose: metrics of the validation split, epoch by epoch (at least one) -> position of the chosen epoch.
    """

    name: str
    words: str
    choose: Callable[[Sequence[Mapping[str, Any]]], int]


def load(name: str) -> Selection:
    """Return the selection called `name`.

    Raises:
        ValueError: if there is none, with the nearest known name.

    >>> load("best_validation").choose([{"accuracy": 0.5}, {"accuracy": 0.7}, {"accuracy": 0.7}])
    1
    >>> load("best_valid")
    Traceback (most recent call last):
    ValueError: Unknown selection 'best_valid'. Did you mean 'best_validation'? Known: best_validation, last.
    """
    return _SELECTIONS[checks.one_of("selection", name, _SELECTIONS)]


def names() -> list[str]:
    """Return the names of the selections."""
    return sorted(_SELECTIONS)


def without_auxiliary(found: Record) -> Record:
    """Return a record without the epochs that served the method's own ends (teachers, estimates), and their steps."""
    epochs = [line for line in found.epochs if not line.get("auxiliary")]
    if len(epochs) == len(found.epochs):
        return found
    kept = {line["epoch"] for line in epochs}
    return replace(found, epochs=epochs, steps=[line for line in found.steps if line["epoch"] in kept])


def score(metrics: Mapping[str, Any]) -> float:
    """Return the measure that decides: the accuracy, or of a regression R²; NaN where there is none.

    >>> score({"r2": 0.5, "nll": 0.1})
    0.5
    """
    value = metrics.get("accuracy", metrics.get("r2"))
    return math.nan if value is None else float(value)


def _best(valid: Sequence[Mapping[str, Any]]) -> int:
    scores = [_finite(score(metrics)) for metrics in valid]
    return scores.index(max(scores))


def _last(valid: Sequence[Mapping[str, Any]]) -> int:
    return len(valid) - 1


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


_SELECTIONS = {
    rule.name: rule
    for rule in (
        Selection("best_validation", "the epoch with the best validation accuracy, the earliest on ties", _best),
        Selection("last", "the last epoch", _last),
    )
}
