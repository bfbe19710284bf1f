"""What happens to the modalities along training: their contributions, the share s, and which one dominates."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from msam.report.charts import Area, Chart, Dash, Line, Panel, modality_colours
from msam.report.marks import BAND, band, seeds, seen, spread
from msam.report.rows import Block, Row
from msam.report.runs import Run, number

POINTS = 160
"""Most points that a line over steps keeps; what lies between is averaged by the window anyway."""

SHARE = "share s"


class Moment(NamedTuple):
    """What is known at one place of a run; empty or NaN where it is not."""

    x: int
    contributions: dict[str, float]
    dominance: dict[str, float]
    share: float


class Source(NamedTuple):
    """Where moments are read, finest first.

    Attributes:
        read: the moments of a run.
        axis: what `Moment.x` counts.
        of: what dominance is a share of.
        words: what the caption says of rows that are read so.
    """

    read: Callable[[Run], list[Moment]]
    axis: str
    of: str
    words: str


def contributions(block: Block) -> Chart:
    """Shapley contributions along training, a panel per row, with the share s that M-SAM used."""
    colours, window, panels = modality_colours(block.modalities), _window(block), []
    for row in block.multimodal:
        source = source_of(row)
        lines = [
            _along(row, source, name, colours[name], _contribution(name), window) for name in row.runs[0].modalities
        ]
        lines.append(_along(row, source, SHARE, "#7F7F7F", lambda moment: moment.share, window, dash="dotted"))
        panels.append(Panel(row.label, source.axis, "contribution", seen(lines), y_range=(-0.02, 1.04), row=row.label))
    weighted = any(mark.label == SHARE for panel in panels for mark in panel.marks)
    caption = (
        f"Shapley contributions; they sum to 1. {_read(block, window)} "
        + ("The dotted line is the share s with which the climbed gradient was weighted. " if weighted else "")
        + BAND.format(seeds=seeds(block))
    )
    return Chart(
        "contributions", "Contributions while training", caption, _drawn(panels), shared=True, file="contributions"
    )


def dominance(block: Block) -> Chart:
    """Which modality has the largest contribution when: a strip per row."""
    colours, window, panels = modality_colours(block.modalities), _window(block), []
    for row in block.multimodal:
        source = source_of(row)
        names = row.runs[0].modalities
        lines = seen([_along(row, source, name, colours[name], _dominates(name), window) for name in names])
        tops = np.cumsum([100 * one.y for one in lines], axis=0)
        layers = [
            Area(one.label, one.colour, one.x, top - 100 * one.y, top) for one, top in zip(lines, tops, strict=True)
        ]
        panels.append(Panel(row.label, source.axis, f"% of {source.of}", layers, y_range=(0.0, 100.0), row=row.label))
    caption = (
        f"How often each modality has the largest contribution, over all seeds ({seeds(block)}). {_read(block, window)} "
        "One colour from top to bottom: the same modality dominates always, in every seed."
    )
    return Chart("dominance", "Which modality dominates when", caption, _drawn(panels), flat=True, file="dominance")


def source_of(row: Row) -> Source:
    """Return the finest source that every run of a row has, the last one if none."""
    return next((s for s in SOURCES if all(_knows(s, run) for run in row.runs)), SOURCES[-1])


def _knows(source: Source, run: Run) -> bool:
    return any(moment.contributions or moment.dominance for moment in source.read(run))


def _steps(run: Run) -> list[Moment]:
    def moments() -> Iterator[Moment]:
        for step in run.record.steps:
            values, dominant = step.get("contributions") or [], step.get("dominant")
            shares = {name: float(name == dominant) for name in run.modalities} if dominant is not None else {}
            yield Moment(
                step["step"], dict(zip(run.modalities, values, strict=False)), shares, number(step.get("share"))
            )

    return list(moments())


def _means(run: Run) -> list[Moment]:
    means = [(epoch["epoch"], epoch.get("means", {})) for epoch in run.record.epochs]
    return [
        Moment(x, found.get("contributions", {}), found.get("dominance", {}), number(found.get("share")))
        for x, found in means
    ]


def _measures(run: Run) -> list[Moment]:
    def of(epoch: dict[str, Any], key: str) -> dict[str, float]:
        found = epoch["train"].get("modalities", {})
        return {name: metrics[key] for name, metrics in found.items() if metrics.get(key) is not None}

    return [
        Moment(
            epoch["epoch"],
            of(epoch, "contribution"),
            of(epoch, "dominance"),
            number(epoch.get("means", {}).get("share")),
        )
        for epoch in run.record.epochs
    ]


SOURCES = (
    Source(_steps, "training step", "steps", "of the batches, {window}"),
    Source(_means, "epoch", "steps", "means over the steps of each epoch, where steps have no lines of their own"),
    Source(_measures, "epoch", "samples", "of the training samples, measured after each epoch"),
)


def _along(
    row: Row,
    source: Source,
    label: str,
    colour: str,
    get: Callable[[Moment], float],
    window: int,
    *,
    dash: Dash = "solid",
) -> Line:
    """Mean and spread over runs, steps smoothed by a centred moving average first; thinned."""
    series = [source.read(run) for run in row.runs]
    places = sorted({moment.x for moments in series for moment in moments})
    position = {x: i for i, x in enumerate(places)}
    values = np.full((len(series), len(places)), math.nan)
    for seed, moments in enumerate(series):
        for moment in moments:
            values[seed, position[moment.x]] = get(moment)
    if source is SOURCES[0]:
        values = np.array([smooth(one, window) for one in values])
    keep = np.unique(np.linspace(0, len(places) - 1, min(POINTS, len(places))).astype(int))
    y, sd = spread(values[:, keep].T)
    return Line(label, colour, np.array(places)[keep], y, *band(y, sd), dash)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Return the centred moving average of values, which leaves NaN out and shrinks at the ends.

    >>> smooth(np.array([1.0, 2.0, 6.0]), 3).tolist()
    [1.5, 3.0, 4.0]
    """
    if not len(values):
        return values
    known = np.isfinite(values)
    ones = np.ones(min(window, len(values)))
    total = np.convolve(np.where(known, values, 0.0), ones, mode="same")
    count = np.convolve(known.astype(float), ones, mode="same")
    return np.divide(total, count, out=np.full(len(values), math.nan), where=count > 0.5)


def _contribution(name: str) -> Callable[[Moment], float]:
    return lambda moment: number(moment.contributions.get(name))


def _dominates(name: str) -> Callable[[Moment], float]:
    return lambda moment: number(moment.dominance.get(name))


def _drawn(panels: Sequence[Panel]) -> tuple[Panel, ...]:
    return tuple(panel for panel in panels if panel.marks)


def _window(block: Block) -> int:
    """Width of the moving average: a fortieth of the longest run, in recorded steps, odd."""
    return 2 * (max((len(run.record.steps) for run in block.runs), default=0) // 80) + 1


def _read(block: Block, window: int) -> str:
    """Say where the rows are read; which row how, where they differ."""
    rows = [row for row in block.multimodal if _knows(source_of(row), row.runs[0])]
    used = {source.words: [row.label for row in rows if source_of(row) is source] for source in SOURCES}
    steps = "every recorded step" if window == 1 else f"moving average over {window} recorded steps"
    words = [
        (", ".join(labels) if len(labels) < len(rows) else "They are", said.format(window=steps))
        for said, labels in used.items()
        if labels
    ]
    return " ".join(f"{who}{'' if who == 'They are' else ':'} {said}." for who, said in words)
