"""The arrays of the figures: from the rows of a block to charts, each built once for both renderers."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from msam.report import runs
from msam.report.charts import Area, Array, Chart, Dash, Dots, Line, Panel, Style, modality_colours
from msam.report.rows import Block, Row
from msam.report.runs import KINDS, Run, number
from msam.report.stats import Comparison, summary
from msam.report.tables import KIND_WORDS

POINTS = 160
"""Most points that a line over steps keeps; what lies between is averaged by the window anyway."""

BAND = "Lines are means over seeds, bands ±1 standard deviation over seeds ({seeds})."


def charts(block: Block, comparisons: Sequence[Comparison], style: Style) -> list[Chart]:
    """Return all charts of a block; those with nothing to show are left out."""
    made = [
        overview(block, comparisons, style),
        together(block, style),
        *(alone(block, style, kind) for kind in KINDS),
        overfitting(block, style),
        contributions(block),
        dominance(block),
    ]
    return [chart for chart in made if any(panel.marks for panel in chart.panels)]


def overview(block: Block, comparisons: Sequence[Comparison], style: Style) -> Chart:
    """Test accuracy of every seed, and the paired differences to Joint."""
    reached = [_dots(row, style) for row in block.rows]
    by_label = {row.label: row for row in block.rows}
    gained = [
        Dots(
            c.name,
            style.colours[c.name],
            100 * np.array(c.differences),
            _shared_seeds(by_label[c.name], by_label[c.against]),
            100 * c.mean,
            100 * c.low,
            100 * c.high,
        )
        for c in comparisons
        if by_label[c.against].name == "Joint"
    ]
    panels = [Panel("Test accuracy", "accuracy (%)", "", reached)]
    if gained:
        panels.append(Panel("Difference to Joint, paired by seed", "accuracy points", "", gained, zero=True))
    caption = (
        "Small dots are seeds, large dots their means. Bars of the accuracies are ±1 standard deviation over seeds"
        + ("; bars of the differences are 95\u00a0% BCa bootstrap intervals of their mean" if gained else "")
        + f" ({_seeds(block)})."
    )
    return Chart("overview", "Test accuracy at the selected epoch", caption, tuple(panels), columns=2, file="accuracy")


def together(block: Block, style: Style) -> Chart:
    """Accuracy of all modalities together over epochs, on each split."""
    splits = {"train": "Training", "valid": "Validation", "test": "Test"}
    panels = tuple(
        Panel(title, "epoch", "accuracy (%)", _lines(block.rows, style, _accuracy(split)))
        for split, title in splits.items()
    )
    words = "All modalities together. The test panel is there to be looked at: no epoch was chosen by it."
    caption = f"{words} {BAND.format(seeds=_seeds(block))}"
    return Chart("curves", "Learning curves", caption, panels, shared=True, tab="together", file="curves")


def alone(block: Block, style: Style, kind: str) -> Chart:
    """Validation accuracy of each modality over epochs, by one kind of single-modality accuracy."""
    panels = tuple(
        Panel(name, "epoch", "accuracy (%)", _lines(_with(block, name), style, _alone(name, kind)))
        for name in block.modalities
    )
    words = {
        "zeroed": "Each modality by itself: the model's accuracy with the features of all others set to zero.",
        "shapley": "Each modality by itself: accuracy of its Shapley value of the logits.",
        "head": "Each modality by itself: accuracy of its own head or its part of the logits.",
    }
    caption = f"{words[kind]} Validation. {BAND.format(seeds=_seeds(block))}"
    tab, file = f"each alone, {KIND_WORDS[kind]}", "modalities" if kind == "zeroed" else ""
    return Chart("curves", "Learning curves", caption, panels, shared=True, tab=tab, file=file)


def overfitting(block: Block, style: Style) -> Chart:
    """The normalised overfitting gap tau over epochs (the paper's Figure 2)."""
    lines = _lines(block.rows, style, runs.tau)
    caption = "τ = |training accuracy − test accuracy| / test accuracy, not clamped; 0 is no gap. " + BAND.format(
        seeds=_seeds(block)
    )
    panel = Panel("", "epoch", "τ", lines)
    return Chart("tau", "Normalised overfitting gap τ", caption, (panel,), columns=1, file="tau")


def contributions(block: Block) -> Chart:
    """Shapley contributions over training steps, a panel per row, with the share s that M-SAM used."""
    colours, window, panels = modality_colours(block.modalities), _window(block), []
    for row in block.multimodal:
        lines = [
            _over_steps(row, name, colours[name], _contribution(i), window)
            for i, name in enumerate(row.runs[0].modalities)
        ]
        lines.append(_over_steps(row, "share s", "#7F7F7F", _share, window, dash="dotted"))
        panels.append(Panel(row.label, "training step", "contribution", _seen(lines), y_range=(-0.02, 1.04)))
    caption = (
        f"Shapley contributions of the batches, moving average over {_steps(window)}; they sum to 1. "
        "The dotted line is the share s with which the climbed gradient was weighted. "
        + BAND.format(seeds=_seeds(block))
    )
    return Chart(
        "contributions", "Contributions while training", caption, _drawn(panels), shared=True, file="contributions"
    )


def dominance(block: Block) -> Chart:
    """Which modality has the largest contribution when: a strip per row."""
    colours, window, panels = modality_colours(block.modalities), _window(block), []
    for row in block.multimodal:
        names = row.runs[0].modalities
        lines = _seen([_over_steps(row, name, colours[name], _dominates(name), window) for name in names])
        tops = np.cumsum([100 * line.y for line in lines], axis=0)
        layers = [
            Area(line.label, line.colour, line.x, top - 100 * line.y, top)
            for line, top in zip(lines, tops, strict=True)
        ]
        panels.append(Panel(row.label, "training step", "% of steps", layers, y_range=(0.0, 100.0)))
    caption = (
        f"Share of the steps, over all seeds and {_steps(window)} around, in which a modality had the largest "
        "contribution. One colour from top to bottom: the same modality dominates every batch of every seed."
    )
    return Chart("dominance", "Which modality dominates when", caption, _drawn(panels), flat=True, file="dominance")


def _over_steps(
    row: Row, label: str, colour: str, get: Callable[[dict[str, Any]], float], window: int, *, dash: Dash = "solid"
) -> Line:
    """Mean and spread over runs, each smoothed by a centred moving average first; thinned."""
    steps = sorted({line["step"] for run in row.runs for line in run.record.steps})
    position = {step: i for i, step in enumerate(steps)}
    values = np.full((len(row.runs), len(steps)), math.nan)
    for seed, run in enumerate(row.runs):
        for line in run.record.steps:
            values[seed, position[line["step"]]] = get(line)
    smooth = np.array([_smooth(series, window) for series in values])
    keep = np.unique(np.linspace(0, len(steps) - 1, min(POINTS, len(steps))).astype(int))
    y, sd = _spread(smooth[:, keep].T)
    return Line(label, colour, np.array(steps)[keep], y, *_band(y, sd), dash)


def _lines(rows: Sequence[Row], style: Style, get: Callable[[dict[str, Any]], float]) -> list[Line]:
    return _seen([_over_epochs(row, style, get) for row in rows])


def _seen(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if np.isfinite(line.y).any()]


def _drawn(panels: Sequence[Panel]) -> tuple[Panel, ...]:
    return tuple(panel for panel in panels if panel.marks)


def _over_epochs(row: Row, style: Style, get: Callable[[dict[str, Any]], float]) -> Line:
    at: dict[int, list[float]] = {}
    for run in row.runs:
        for epoch in run.record.epochs:
            at.setdefault(epoch["epoch"], []).append(get(epoch))
    x = np.array(sorted(at))
    y, sd = _spread([at[epoch] for epoch in x])
    return Line(row.label, style.colours[row.label], x, y, *_band(y, sd), style.dashes[row.label])


def _dots(row: Row, style: Style) -> Dots:
    values = row.values("accuracy")
    found = summary(values)
    names = tuple(_seed_name(run) for run in row.runs)
    ends = (100 * (found.mean - found.sd), 100 * (found.mean + found.sd))
    return Dots(row.label, style.colours[row.label], 100 * np.array(values), names, 100 * found.mean, *ends)


def _shared_seeds(row: Row, other: Row) -> tuple[str, ...]:
    theirs = {run.seed for run in other.runs}
    return tuple(_seed_name(run) for run in row.runs if run.seed in theirs)


def _seed_name(run: Run) -> str:
    return "seed " + "/".join(map(str, run.seed))


def _accuracy(split: str) -> Callable[[dict[str, Any]], float]:
    return lambda epoch: 100 * number(epoch[split].get("accuracy"))


def _alone(name: str, kind: str) -> Callable[[dict[str, Any]], float]:
    return lambda epoch: 100 * number(epoch["valid"].get("modalities", {}).get(name, {}).get(kind))


def _with(block: Block, modality: str) -> list[Row]:
    return [row for row in block.rows if row.has(modality)]


def _share(step: dict[str, Any]) -> float:
    return number(step.get("share"))


def _contribution(position: int) -> Callable[[dict[str, Any]], float]:
    return lambda step: math.nan if step.get("contributions") is None else number(step["contributions"][position])


def _dominates(name: str) -> Callable[[dict[str, Any]], float]:
    return lambda step: math.nan if step.get("dominant") is None else float(step["dominant"] == name)


def _spread(values: Iterable[Iterable[float]]) -> tuple[Array, Array]:
    """Mean and standard deviation (n - 1) of the finite ones of several values at each place, NaN where too few."""
    found = [summary([value for value in at if math.isfinite(value)]) for at in values]
    return np.array([at.mean for at in found]), np.array([at.sd for at in found])


def _smooth(values: Array, window: int) -> Array:
    """Centred moving average that leaves NaN out and shrinks at the ends.

    >>> _smooth(np.array([1.0, 2.0, 6.0]), 3).tolist()
    [1.5, 3.0, 4.0]
    """
    if not len(values):
        return values
    known = np.isfinite(values)
    ones = np.ones(min(window, len(values)))
    total = np.convolve(np.where(known, values, 0.0), ones, mode="same")
    count = np.convolve(known.astype(float), ones, mode="same")
    return np.divide(total, count, out=np.full(len(values), math.nan), where=count > 0.5)


def _band(y: Array, sd: Array) -> tuple[Array | None, Array | None]:
    return (y - sd, y + sd) if np.isfinite(sd).any() else (None, None)


def _seeds(block: Block) -> str:
    counts = sorted({len(row.runs) for row in block.rows})
    if counts == [1]:
        return "one seed per row"
    return f"{counts[0]} seeds per row" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds per row"


def _window(block: Block) -> int:
    """Width of the moving average: a fortieth of the longest run, in recorded steps, odd."""
    return 2 * (max((len(run.record.steps) for run in block.runs), default=0) // 80) + 1


def _steps(window: int) -> str:
    return f"{window} recorded step{'s' * (window != 1)}"
