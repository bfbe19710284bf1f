"""How sharp the minima are: the largest Hessian eigenvalue and SAM's measure, a dot per seed."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from msam.report.charts import Chart, Panel, Style
from msam.report.marks import dots, seeds
from msam.report.rows import Block, Row
from msam.report.runs import Run, number
from msam.report.stats import summary
from msam.report.table import Column, Spread, Table, digits_of

Get = Callable[[dict[str, Any]], float]

RADIUS = 0.05
"""The radius at which every model is measured, whatever its rule's own."""

WHAT = (
    "Of the training loss at the last weights, in evaluation mode, on the same training samples for every row. SAM's "
    f"measure: L(θ + ρ g / ‖g‖) − L(θ), ρ = {RADIUS}. Neither is invariant: scaling layers or weight decay changes them "
    "without changing what the model computes; compare rows of one architecture, trained alike."
)


def chart(block: Block, style: Style) -> Chart:
    """Return the chart of the `curvature` probe: rows with seeds as dots; without panels where nothing was probed."""
    rows = _rows(block)
    panels = [_panel(title, unit, rows, style, get) for title, unit, get in _measures(block)]
    caption = (
        f"{WHAT} Small dots are seeds, large dots their means, bars ±1 standard deviation over seeds "
        f"({seeds(block, rows)}).{_lost(rows)}"
    )
    drawn = tuple(panel for panel in panels if panel.marks)
    return Chart("sharpness", "Sharpness of the minima", caption, drawn, columns=2, file="sharpness")


def table(block: Block) -> Table | None:
    """Return the same in numbers, with the loss that the measures were taken at; None where nothing was probed."""
    rows = _rows(block)
    columns, values = [Column("Row", keys=("row",)), Column("Seeds", "whole", ("seeds",))], []
    for rank, (title, _, get) in enumerate([*_measures(block), ("Training loss", "", _loss)]):
        spreads = [_spread(row, get) for row in rows]
        keys = (f"{title} mean", f"{title} sd")
        digits = digits_of(spread.mean for spread in spreads)
        columns.append(Column(f"{title} ({block.task.unit})", "spread", keys, digits=digits, rank=rank))
        values.append(spreads)
    counts = [sum(map(bool, map(_found, row.runs))) for row in rows]
    lines = zip((row.label for row in rows), counts, *values, strict=True)
    words = (
        f"{WHAT} The lower the loss, the flatter by that alone. ± is one standard deviation over seeds.{_lost(rows)}"
    )
    return Table(f"{block.title}: sharpness of the minima", tuple(columns), tuple(lines), words) if rows else None


def _rows(block: Block) -> list[Row]:
    return [row for row in block.rows if any(map(_found, row.runs))]


def _measures(block: Block) -> list[tuple[str, str, Get]]:
    """Title, axis and measure of each panel and column."""
    alone = block.modalities if len(block.modalities) > 1 else ()
    rise = f"rise at radius {RADIUS} ({block.task.unit})"
    return [
        ("Largest eigenvalue of the Hessian", f"eigenvalue, joint loss ({block.task.unit})", _eigenvalue),
        ("SAM's measure, joint loss", rise, _rise(None)),
        *((f"SAM's measure, {name} alone", rise, _rise(name)) for name in alone),
    ]


def _spread(row: Row, get: Get) -> Spread:
    found = summary([value for run in row.runs if math.isfinite(value := get(_found(run)))])
    return Spread(found.mean, found.sd)


def _loss(found: dict[str, Any]) -> float:
    return number(found.get("loss"))


def _panel(title: str, unit: str, rows: Sequence[Row], style: Style, get: Get) -> Panel:
    values = [(row, [get(_found(run)) for run in row.runs]) for row in rows]
    marks = [
        dots(row, style.colours[row.label], found) for row, found in values if any(math.isfinite(v) for v in found)
    ]
    return Panel(title, unit, "", marks)


def _found(run: Run) -> dict[str, Any]:
    """The last measure of a run, empty where it was not probed."""
    return next(reversed(run.probed("curvature")), {})


def _eigenvalue(found: dict[str, Any]) -> float:
    return number(next(iter(found.get("eigenvalues", [])), None))


def _rise(modality: str | None) -> Get:
    def get(found: dict[str, Any]) -> float:
        measured: dict[str, Any] = next((one for one in found.get("sharpness", []) if one["rho"] == RADIUS), {})
        value = measured.get("joint") if modality is None else measured.get("modalities", {}).get(modality)
        return number(value)

    return get


def _lost(rows: Sequence[Row]) -> str:
    """Say in how many probed runs no eigenvalue was found: means are of the others."""
    probed = [found for row in rows for run in row.runs if (found := _found(run))]
    lost = sum(not math.isfinite(_eigenvalue(found)) for found in probed)
    return f" In {lost} of {len(probed)} runs no eigenvalue was found." if lost else ""
