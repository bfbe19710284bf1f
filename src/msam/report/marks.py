"""Marks from runs: lines with bands over seeds, dots with bars over seeds."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from msam.report.charts import Array, Dash, Dots, Line, Style
from msam.report.rows import Block, Row
from msam.report.runs import Run
from msam.report.stats import summary

BAND = "Lines are means over seeds, bands ±1 standard deviation over seeds ({seeds})."

Points = Iterable[tuple[int, float]]


def line(label: str, colour: str, series: Sequence[Points], dash: Dash = "solid") -> Line:
    """Return the mean of several series, one per seed, and their standard deviation around it as a band.

    At every place the series that have a finite value there count; where fewer than two do, the band has no width known.
    """
    at: dict[int, list[float]] = {}
    for points in series:
        for x, value in points:
            at.setdefault(x, []).append(value)
    places = np.array(sorted(at))
    y, sd = spread([at[x] for x in places])
    return Line(label, colour, places, y, *band(y, sd), dash)


def over_epochs(rows: Sequence[Row], style: Style, get: Callable[[dict[str, Any]], float]) -> list[Line]:
    """Return a line for each row that has something to show: what `get` reads off the epoch lines of its runs."""
    return seen(
        [
            line(
                row.label,
                style.colours[row.label],
                [[(epoch["epoch"], get(epoch)) for epoch in run.record.epochs] for run in row.runs],
                style.dashes[row.label],
            )
            for row in rows
        ]
    )


def dots(row: Row, colour: str, values: Sequence[float]) -> Dots:
    """Return one value per run of a row, those that are finite, with their mean and ±1 standard deviation."""
    known = [(value, run) for value, run in zip(values, row.runs, strict=True) if math.isfinite(value)]
    found = summary([value for value, _ in known])
    return Dots(
        row.label,
        colour,
        np.array([value for value, _ in known]),
        tuple(seed_name(run) for _, run in known),
        found.mean,
        found.mean - found.sd,
        found.mean + found.sd,
    )


def paired_dots(
    ours: Row, theirs: Row, colour: str, values: Sequence[float], mean: float, low: float, high: float
) -> Dots:
    """Return one value per seed that two rows share, in order of the seeds, with a mean and an interval of it."""
    there = {run.seed for run in theirs.runs}
    names = tuple(seed_name(run) for run in ours.runs if run.seed in there)
    return Dots(ours.label, colour, np.array(values), names, mean, low, high)


def seed_name(run: Run) -> str:
    """Return what a dot is called: its seed, and its world's where there is one."""
    seed, *world = run.seed
    return f"seed {seed}" + "".join(f", world {number}" for number in world)


def seen(lines: Sequence[Line]) -> list[Line]:
    """Return the lines that have a finite value."""
    return [one for one in lines if np.isfinite(one.y).any()]


def spread(values: Iterable[Iterable[float]]) -> tuple[Array, Array]:
    """Return mean and standard deviation (n - 1) of the finite ones of several values at each place.

    >>> mean, sd = spread([[1.0, 3.0, math.nan], [5.0]])
    >>> mean.tolist(), sd.tolist()
    ([2.0, 5.0], [1.4142135623730951, nan])
    """
    found = [summary([value for value in at if math.isfinite(value)]) for at in values]
    return np.array([at.mean for at in found]), np.array([at.sd for at in found])


def band(y: Array, sd: Array) -> tuple[Array | None, Array | None]:
    """Return the edges of the band around `y`; none where no deviation is known."""
    return (y - sd, y + sd) if np.isfinite(sd).any() else (None, None)


def seeds(block: Block, rows: Sequence[Row] = ()) -> str:
    """Return how many seeds the rows of a block have, all of them unless some are given."""
    return per_row(len(row.runs) for row in rows or block.rows)


def per_row(counts: Iterable[int]) -> str:
    """Return numbers of seeds in words.

    >>> per_row([1, 1]), per_row([10, 5, 10])
    ('one seed per row', '5 to 10 seeds per row')
    """
    low, *more = sorted(set(counts)) or [0]
    if more:
        return f"{low} to {more[-1]} seeds per row"
    return "one seed per row" if low == 1 else f"{low} seeds per row"
