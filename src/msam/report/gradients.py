"""Gradients of the modalities along training, measured (what the paper's Figure 3 sketches)."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from msam.report.charts import Chart, Line, Panel, Style
from msam.report.marks import BAND, line, seeds, seen
from msam.report.rows import Block, Row
from msam.report.runs import number

Get = Callable[[dict[str, Any]], float]

PROBE = "gradients"

LOGITS = {"split": "its part of the logits", "shapley": "its Shapley logits"}


def charts(block: Block, style: Style) -> list[Chart]:
    """Return the charts of the `gradients` probe: on the weights that modalities share, and on their encoders.

    A sum of heads has no shared weights; rows that were not probed have no line.
    """
    rows = [row for row in block.multimodal if any(run.probed(PROBE) for run in row.runs)]
    return [_shared(block, rows, style), _encoders(block, rows, style)] if rows else []


def _shared(block: Block, rows: Sequence[Row], style: Style) -> Chart:
    norms = [(name, _of_modality(name, "shared")) for name in block.modalities]
    norms.append(("all together", lambda found: number((found.get("shared") or {}).get("joint"))))
    cosines = [(f"{a} and {b}", _between(a, b)) for a, b in combinations(block.modalities, 2)]
    caption = (
        f"Gradients on the weights that all modalities share ({_where(rows)}). Of a modality: of the "
        f"loss of {_logits(rows)} alone; all together: of the joint loss. A cosine below 0: what helps "
        "one modality hurts the other. "
        f"{_common(block, rows)}"
    )
    return Chart(
        "gradients",
        "Gradients of the modalities",
        caption,
        _panels(block, rows, style, norms, cosines),
        columns=2 if len(norms) == 3 else len(norms),
        tab="where modalities meet",
        file="gradients",
    )


def _encoders(block: Block, rows: Sequence[Row], style: Style) -> Chart:
    own = [(f"{name}, own loss", _of_modality(name, "encoder")) for name in block.modalities]
    joint = [(f"{name}, joint loss", _of_modality(name, "joint")) for name in block.modalities]
    cosines = [(f"{name}, own and joint", _of_modality(name, "cosine")) for name in block.modalities]
    caption = (
        f"Gradients on each modality's encoder. Own loss: of {_logits(rows)} alone; joint loss: of the fused logits. "
        f"A cosine near 1: the joint loss asks of the encoder what its modality alone would. {_common(block, rows)}"
    )
    return Chart(
        "gradients",
        "Gradients of the modalities",
        caption,
        _panels(block, rows, style, own + joint, cosines),
        columns=len(block.modalities),
        tab="on the encoders",
        file="gradients-encoders",
    )


def _panels(
    block: Block,
    rows: Sequence[Row],
    style: Style,
    norms: Sequence[tuple[str, Get]],
    cosines: Sequence[tuple[str, Get]],
) -> tuple[Panel, ...]:
    """Norms on one scale from 0, then cosines; those with nothing to show are left out."""
    lengths = [(title, _over(rows, style, get)) for title, get in norms]
    tops = [mark.y if mark.high is None else np.fmax(mark.y, mark.high) for _, marks in lengths for mark in marks]
    top = 1.05 * max((float(np.nanmax(values)) for values in tops), default=1.0) or 1.0
    unit = f"gradient norm ({block.task.unit})"
    found = [Panel(title, "epoch", unit, marks, y_range=(0.0, top)) for title, marks in lengths]
    found += [
        Panel(title, "epoch", "cosine", _over(rows, style, get), y_range=(-1.05, 1.05), zero=True)
        for title, get in cosines
    ]
    return tuple(panel for panel in found if panel.marks)


def _over(rows: Sequence[Row], style: Style, get: Get) -> list[Line]:
    return seen(
        [
            line(
                row.label,
                style.colours[row.label],
                [[(found["epoch"], get(found)) for found in run.probed(PROBE)] for run in row.runs],
                style.dashes[row.label],
            )
            for row in rows
        ]
    )


def _all(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    yield from (found for row in rows for run in row.runs for found in run.probed(PROBE))


def _of_modality(name: str, key: str) -> Get:
    return lambda found: number(found.get("modalities", {}).get(name, {}).get(key))


def _between(a: str, b: str) -> Get:
    def get(found: dict[str, Any]) -> float:
        pairs = (found.get("shared") or {}).get("cosines", [])
        return next((number(pair["cosine"]) for pair in pairs if set(pair["modalities"]) == {a, b}), math.nan)

    return get


def _where(rows: Sequence[Row]) -> str:
    shared = [found["shared"] for found in _all(rows) if found.get("shared")]
    words = [f"{one['of']}, {one['parameters']:,} parameters" for one in shared]
    return "; ".join(dict.fromkeys(words))


def _logits(rows: Sequence[Row]) -> str:
    return " or ".join(dict.fromkeys(LOGITS.get(found.get("logits", ""), "its logits") for found in _all(rows)))


def _common(block: Block, rows: Sequence[Row]) -> str:
    samples = max(found.get("samples", 0) for found in _all(rows))
    return (
        f"On the same {samples} training samples every time, in evaluation mode; epoch 0 is before training. "
        + BAND.format(seeds=seeds(block, rows))
    )
