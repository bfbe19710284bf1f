"""How sharp the minima are: the largest Hessian eigenvalue and SAM's measure, a dot per seed."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from msam.report.charts import Chart, Panel, Style
from msam.report.marks import dots, seeds
from msam.report.rows import Block, Row
from msam.report.runs import Run, number

Get = Callable[[dict[str, Any]], float]

RADIUS = 0.05
"""The radius at which every model is measured, whatever its rule's own."""


def chart(block: Block, style: Style) -> Chart:
    """Return the chart of the `curvature` probe: rows with seeds as dots; without panels where nothing was probed."""
    rows = [row for row in block.rows if any(_found(run) for run in row.runs)]
    panels = [
        _panel("Largest eigenvalue of the Hessian", "eigenvalue, joint loss (nats)", rows, style, _eigenvalue),
        _panel("SAM's measure, joint loss", f"rise of the loss at radius {RADIUS} (nats)", rows, style, _rise(None)),
        *(
            _panel(f"SAM's measure, {name} alone", f"rise at radius {RADIUS} (nats)", rows, style, _rise(name))
            for name in block.modalities
            if len(block.modalities) > 1
        ),
    ]
    caption = (
        "Of the training loss at the last weights, in evaluation mode, on the same training samples for every row. SAM's "
        "measure: L(θ + ρ g / ‖g‖) − L(θ). Neither is invariant: scaling layers or weight decay changes them without "
        "changing what the model computes; compare rows of one architecture, trained alike. Small dots are seeds, large "
        f"dots their means, bars ±1 standard deviation over seeds ({seeds(block, rows)}).{_lost(rows)}"
    )
    drawn = tuple(panel for panel in panels if panel.marks)
    return Chart("sharpness", "Sharpness of the minima", caption, drawn, columns=2, file="sharpness")


def _panel(title: str, unit: str, rows: Sequence[Row], style: Style, get: Get) -> Panel:
    values = [(row, [get(_found(run)) for run in row.runs]) for row in rows]
    marks = [
        dots(row, style.colours[row.label], found) for row, found in values if any(math.isfinite(v) for v in found)
    ]
    return Panel(title, unit, "", marks)


def _found(run: Run) -> dict[str, Any]:
    """The last measure of a run, empty where it was not probed."""
    return next((line for line in reversed(run.record.probes) if line.get("probe") == "curvature"), {})


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
