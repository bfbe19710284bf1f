"""What a tuning is, before any run of it: rows, where they begin, and one budget for all."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from msam import checks
from msam.bench._spaces import Spaces, space, tunable, unknown
from msam.bench.grid import cell, without_search
from msam.checks import Range, Search
from msam.train import RunConfig, config
from msam.train.checkpoint import differing
from msam.train.config import laid_over

FIRST_SEED = 1000
"""Seeds of tuning begin here, those of a grid at 0: what chose a setting is not what reports it."""

TOGETHER = 4
"""Trials that TPE asks for at once. It decides what is asked, so it does not follow the machine."""


@dataclass(frozen=True)
class Plan:
    """What a tuning of a row is, before any run of it; two of equal plans are the same.

    Attributes:
        begins: the row as its parts complete it, at its own values.
        space: what is tuned, by key.
        sampler: "sobol", "random" or "tpe".
        trials: how many.
        seeds: of the runs of every trial.
        epochs: of every run.
        together: trials that are asked for at once.
    """

    begins: Mapping[str, Any]
    space: Mapping[str, Search]
    sampler: str
    trials: int
    seeds: tuple[int, ...]
    epochs: int
    together: int

    @property
    def budget(self) -> str:
        """What must be equal for all rows, in words."""
        return f"{self.trials} trials ({self.sampler}), seeds {', '.join(map(str, self.seeds))}, {self.epochs} epochs"

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """First trial and number of trials of what is asked for at once.

        >>> Plan({}, {}, "tpe", trials=6, seeds=(1000,), epochs=20, together=4).rounds
        [(0, 4), (4, 2)]
        """
        return [(k, min(self.together, self.trials - k)) for k in range(0, self.trials, self.together)]

    def check_same(self, other: "Plan", where: str) -> None:
        """Refuse to go on with a tuning of another plan.

        Raises:
            ValueError: naming what differs.
        """
        if self.plain() == other.plain():
            return
        lines = differing(self._told(), other._told()) or ["in how it asks"]
        raise ValueError(
            f"{where} is of another plan (asked for != found): {'; '.join(lines)}. Give the same, or another folder."
        )

    def _told(self) -> dict[str, Any]:
        spaces = {key: search.describe() for key, search in self.space.items()}
        return {"row": self.begins, "space": spaces, "budget": self.budget}

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @staticmethod
    def read(plain: Mapping[str, Any]) -> "Plan":
        """Return what `plain` made plain."""
        spaces = {key: Search(**{**s, "choices": tuple(s["choices"])}) for key, s in plain["space"].items()}
        return Plan(**{**plain, "space": spaces, "seeds": tuple(plain["seeds"])})


@dataclass(frozen=True)
class Row:
    """A row that is tuned.

    Attributes:
        name: of the row, and of its files.
        settings: without spaces.
        start: the row's own values of what is tuned.
        ranges: of the options that are tuned, None where one has none.
        plan: of the tuning.
    """

    name: str
    settings: Mapping[str, Any]
    start: Mapping[str, Any]
    ranges: Mapping[str, Range | None]
    plan: Plan

    def at(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings with other values of what is tuned."""
        nested: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            kind, _, option = key.partition(".")
            nested.setdefault(kind, {})[option] = value
        return laid_over(self.settings, nested)

    def cells(self, values: Mapping[str, Any]) -> list[RunConfig]:
        """Return the runs of one trial."""
        return [cell(self.at(values), seed) for seed in self.plan.seeds]


def plans(
    rows: Mapping[str, Mapping[str, Any]],
    *,
    trials: int,
    seeds: Sequence[int],
    sampler: str,
    spaces: Spaces,
) -> list[Row]:
    """Return the rows as they are tuned.

    Raises:
        ValueError: if the budget is none, or not equal; if something cannot be tuned as it is asked for.
    """
    checks.in_range("trials", trials, checks.Range(ge=1))
    checks.one_of("sampler", sampler, ("sobol", "random", "tpe"))
    if not seeds or len(set(seeds)) < len(seeds) or not all(isinstance(s, int) and s >= 0 for s in seeds):
        raise ValueError(f"`seeds` must be at least one, whole, >= 0 and all different, received {list(seeds)}.")
    if not rows:
        raise ValueError("There must be a row to tune, received none.")
    together = TOGETHER if sampler == "tpe" else trials
    made = []
    for name, settings in rows.items():
        try:
            made.append(_row(name, settings, spaces, sampler, trials, tuple(seeds), together))
        except ValueError as error:
            raise ValueError(f"Row {name!r}: {error}") from error
    unknown(spaces, {key: None for settings in rows.values() for key in tunable(settings)}, "of any row")
    first = made[0]
    for other in made:
        if other.plan.epochs != first.plan.epochs:
            raise ValueError(
                f"All rows must have the same epochs, or their budgets are not equal: {first.name!r} has "
                f"{first.plan.epochs}, {other.name!r} has {other.plan.epochs}. Tune rows of other epochs in another folder."
            )
    return made


def tuning_seeds(count: int) -> tuple[int, ...]:
    """Return so many seeds for tuning.

    >>> tuning_seeds(2)
    (1000, 1001)
    """
    return tuple(range(FIRST_SEED, FIRST_SEED + int(checks.in_range("seeds", count, checks.Range(ge=1)))))


def seeds_apart(tuning: Iterable[int], reported: Iterable[int]) -> None:
    """Check that no seed serves both tuning and the report: a setting would be reported on the luck that chose it.

    Raises:
        ValueError: naming the seeds that do.

    >>> seeds_apart([1000, 1001], range(1001, 1003))
    Traceback (most recent call last):
    ValueError: Seeds of tuning and of the report must be apart, both have 1001. Tuning takes 1000, 1001, .. by default.
    """
    both = sorted(set(tuning) & set(reported))
    if both:
        raise ValueError(
            f"Seeds of tuning and of the report must be apart, both have {', '.join(map(str, both))}. Tuning takes "
            f"{FIRST_SEED}, {FIRST_SEED + 1}, .. by default."
        )


def _row(
    name: str,
    settings: Mapping[str, Any],
    spaces: Spaces,
    sampler: str,
    trials: int,
    seeds: tuple[int, ...],
    together: int,
) -> Row:
    if not name or name.startswith(".") or any(sign in name for sign in '/\\:*?"<>|\n'):
        raise ValueError(
            'The name of a row is that of a file: it must not begin with a dot, nor hold / \\ : * ? " < > |.'
        )
    plain = without_search(settings)
    complete, searched, known = config(plain), space(settings, spaces), tunable(settings)
    if not searched:
        raise ValueError(
            "Nothing of it is tuned: its parts declare no space, or all of it is fixed. Leave it out, or give one of "
            f"{', '.join(known)} a space."
        )
    start = {key: getattr(complete, key.split(".")[0])[key.split(".")[1]] for key in searched}
    for key, value in start.items():
        if not searched[key].holds(value):
            raise ValueError(
                f"`{key}` begins at {value}, outside of its space, {searched[key].describe()}. Give it a space that holds "
                "it, or None to leave it as it is."
            )
    begins = {key: value for key, value in cell(plain, 0).chosen().items() if key != "seed"}
    plan = Plan(begins, searched, sampler, trials, seeds, complete.epochs, together)
    return Row(name, plain, start, {key: known[key].range for key in searched}, plan)
