"""What tuning has chosen of a row, and from what: one small file."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msam._files import write_whole
from msam.bench._plans import Plan
from msam.checks import Range, Search

EDGE = 0.05
"""A value in this outer part of its space, at either end, lies at the edge."""


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Attributes:
        values: of what is tuned, by key.
        accuracy: mean over the seeds of the best validation accuracy over epochs, in [0, 1], of a regression R², 0 where it
            is below; a diverged run counts as 0.
        nll: mean over the seeds of the validation NLL of that epoch, in nats; None if a run has diverged.
        accuracies: of every seed.
        runs: names of the runs, in order of the seeds.
    """

    values: Mapping[str, Any]
    accuracy: float
    nll: float | None
    accuracies: tuple[float, ...]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    """What tuning has chosen of a row.

    Attributes:
        row: its name.
        settings: of the row, with the chosen values laid over them.
        best: position of the chosen trial.
        edges: keys of what lies at an edge of its space, where a wider one may have better.
        trials: all of them; the first is the row at its own values.
        plan: what was tuned, and with what budget.
        versions: of Python, torch, msam and Optuna.
    """

    row: str
    settings: Mapping[str, Any]
    best: int
    edges: tuple[str, ...]
    trials: tuple[Trial, ...]
    plan: Plan
    versions: Mapping[str, str]

    @property
    def values(self) -> Mapping[str, Any]:
        """The chosen values, by key."""
        return self.trials[self.best].values

    @property
    def accuracy(self) -> float:
        """Mean best validation accuracy, or R², of the chosen trial, in [0, 1]."""
        return self.trials[self.best].accuracy

    def describe(self) -> str:
        """Return the choice in a line, and a second one that warns where it lies at an edge."""
        found = ", ".join(f"{key} {_short(value)}" for key, value in self.values.items())
        line = f"{self.row}: {found} (trial {self.best + 1} of {len(self.trials)}, validation {self.accuracy:.1%})"
        at = ", ".join(f"{key} ({self.plan.space[key].describe()})" for key in self.edges)
        return f"{line}\n  at the edge of its space, a wider one may have better: {at}" if at else line


def best(trials: Sequence[Trial]) -> int:
    """Return the position of the trial with the highest accuracy; of equal ones the lowest NLL, then the earliest, wins.

    >>> tried = [Trial({}, 0.8, 0.7, (0.8,), ("a",)), Trial({}, 0.8, 0.6, (0.8,), ("b",))]
    >>> best(tried)
    1
    """
    return max(range(len(trials)), key=lambda k: (trials[k].accuracy, -_nll(trials[k]), -k))


def edges(
    values: Mapping[str, Any], space: Mapping[str, Search], ranges: Mapping[str, Range | None]
) -> tuple[str, ...]:
    """Return the keys of values at an edge of their space that is none of their range.

    >>> edges({"a": 0.99, "b": 0.0}, {"a": Search(0.1, 1.0), "b": Search(choices=(0.0, 0.1))}, {"b": Range(ge=0)})
    ('a',)
    """
    found = []
    for key, value in values.items():
        beyond = _beyond(space[key], value)
        allowed = ranges.get(key)
        if beyond is not None and (allowed is None or allowed.holds(beyond)):
            found.append(key)
    return tuple(found)


def chosen(folder: str | Path) -> dict[str, Chosen]:
    """Return what was chosen by the tuning in `folder`, by row, in order of names.

    Raises:
        FileNotFoundError: if nothing was tuned there.
        ValueError: if a file is no choice of a tuning.
    """
    files = sorted((Path(folder) / "chosen").glob("[!.]*.json"))
    if not files:
        raise FileNotFoundError(f"No tuned row under {folder} (chosen/*.json). Tune them with `msam bench tune`.")
    return {path.stem: read(path) for path in files}


def place(folder: Path, row: str) -> Path:
    """Return where the choice of a row lies."""
    return folder / "chosen" / f"{row}.json"


def read(path: Path) -> Chosen:
    """Read the choice of a row.

    Raises:
        ValueError: if the file is none.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        trials = tuple(
            Trial(**{**trial, "accuracies": tuple(trial["accuracies"]), "runs": tuple(trial["runs"])})
            for trial in plain["trials"]
        )
        return Chosen(**{**plain, "trials": trials, "plan": Plan.read(plain["plan"]), "edges": tuple(plain["edges"])})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is no choice of a tuning ({type(error).__name__}: {error}). Move it away to have the row tuned anew."
        ) from error


def write(found: Chosen, path: Path) -> None:
    """Write the choice of a row; the file appears whole or not at all.

    Raises:
        OSError: if it could not be written.
    """
    write_whole(path, f"{json.dumps(asdict(found), indent=1, allow_nan=False)}\n".encode())


def _beyond(space: Search, value: Any) -> float | None:
    """Return a number beyond the edge at which the value lies, None where it lies at none."""
    ends = space.choices or (space.low, space.high)
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        return None
    low, high = min(ends), max(ends)
    if space.choices:
        near, far = value == low, value == high
    else:
        a, b, x = (math.log(v) if space.log else v for v in (low, high, value))
        near, far = x - a < EDGE * (b - a), b - x < EDGE * (b - a)
    if not (near or far):
        return None
    end, away = (low, -1) if near else (high, 1)
    return end + away if space.whole else math.nextafter(end, away * math.inf)


def _nll(trial: Trial) -> float:
    return math.inf if trial.nll is None else trial.nll


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
