"""The loss around the weights that training found, of up to three rows side by side (the paper's Figure 1)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from msam.report import pairs
from msam.report.charts import Array, Chart, Panel, Surface
from msam.report.marks import seed_name
from msam.report.rows import Block, Row
from msam.report.runs import Run, number

MOST = 3
"""Rows side by side."""

FIRST = ("Joint", "SAM", "M-SAM")
"""Names of the rows that go first, where they were probed."""


def chart(block: Block) -> Chart:
    """Return the chart of the `landscape` probe, a surface per row; without panels where nothing was probed.

    One run of each row stands for it, of the lowest seed that all have. Of several rows of one name the one with the best
    mean score on validation is shown.
    """
    chosen = _runs(_rows(block))
    panels = [
        Panel(
            row.label,
            "x, along d₁",
            f"{run_name}; loss {number(found.get('loss')):.3g} {block.task.unit} in the middle",
            [Surface(row.label, np.array(found["axis"], dtype=float), heights, block.task.unit)],
            row=row.label,
        )
        for row, run_name, found in chosen
        if np.isfinite(heights := _heights(found)).any()
    ]
    samples = max((found.get("samples", 0) for _, _, found in chosen), default=0)
    drawn = sorted({found["seed"] for _, _, found in chosen})
    caption = (
        f"Training loss L(θ + x d₁ + y d₂) around the last weights θ, in evaluation mode, on {samples} training samples. "
        "d₁ and d₂ are random directions, filter by filter as long as the weights (Li et al. 2018), drawn from seed "
        f"{', '.join(map(str, drawn))}: at x = 1 every filter has moved by its own length. One scale of height and colour "
        "for all. One run per row, so no bands: a plane through one run's weights shows a shape and decides nothing; the "
        "numbers over seeds are under sharpness."
    )
    return Chart("landscape", "Loss landscape", caption, tuple(panels), file="landscape")


def _rows(block: Block) -> list[Row]:
    """The probed rows to show; those of the paper's figure first, a control only where there is room."""
    probed = {name: [row for row in rows if any(map(_found, row.runs))] for name, rows in pairs.named(block).items()}
    by_name = {name: row for name, rows in probed.items() if (row := pairs.best(rows)) is not None}
    shown = sorted(by_name, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))[:MOST]
    return [row for row in block.rows if row in [by_name[name] for name in shown]]


def _runs(rows: Sequence[Row]) -> list[tuple[Row, str, dict[str, Any]]]:
    """Each row with the seed in words and the line of the run that stands for it."""
    probed = [{run.seed for run in row.runs if _found(run)} for row in rows]
    common = sorted(set.intersection(*probed)) if probed else []
    shown = [common[0] if common else min(by_seed) for by_seed in probed]
    runs = [next(run for run in row.runs if run.seed == seed) for row, seed in zip(rows, shown, strict=True)]
    return [(row, seed_name(run), _found(run)) for row, run in zip(rows, runs, strict=True)]


def _found(run: Run) -> dict[str, Any]:
    return next(reversed(run.probed("landscape")), {})


def _heights(found: dict[str, Any]) -> Array:
    return np.array([[number(value) for value in row] for row in found["losses"]])
