"""The arrays of the figures: from the rows of a block to charts, each built once for both renderers."""

from collections.abc import Callable, Sequence
from typing import Any

from msam import selection
from msam.report import curvature, gradients, landscape, pairs, runs, streams
from msam.report.charts import Chart, Panel, Style
from msam.report.marks import BAND, dots, over_epochs, paired_dots, seeds
from msam.report.rows import Block
from msam.report.runs import KINDS, number
from msam.report.stats import Comparison
from msam.report.tables import KIND_WORDS


def charts(block: Block, comparisons: Sequence[Comparison], style: Style) -> list[Chart]:
    """Return all charts of a block; those with nothing to show are left out."""
    made = [
        overview(block, comparisons, style),
        together(block, style),
        *(alone(block, style, kind) for kind in KINDS),
        overfitting(block, style),
        streams.contributions(block),
        streams.dominance(block),
        *gradients.charts(block, style),
        curvature.chart(block, style),
        landscape.chart(block),
    ]
    return [chart for chart in made if any(panel.marks for panel in chart.panels)]


def overview(block: Block, comparisons: Sequence[Comparison], style: Style) -> Chart:
    """The measure that decides of every seed on test, and the paired differences to Joint."""
    reached = [
        dots(row, style.colours[row.label], [100 * value for value in row.values("score")]) for row in block.rows
    ]
    gained = [
        paired_dots(
            ours,
            joint,
            style.colours[ours.label],
            [100 * value for value in c.differences],
            100 * c.mean,
            100 * c.low,
            100 * c.high,
        )
        for c, ours, joint in pairs.over_joint(block, comparisons)
    ]
    task = block.task
    panels = [Panel(f"Test {task.measured}", f"{task.measured} (%)", "", reached)]
    if gained:
        panels.append(Panel("Difference to Joint, paired by seed", f"{task.measured} points", "", gained, zero=True))
    caption = (
        f"Small dots are seeds, large dots their means. Bars of the {task.many} are ±1 standard deviation over seeds"
        + ("; bars of the differences are 95\u00a0% BCa bootstrap intervals of their mean" if gained else "")
        + f" ({seeds(block)})."
    )
    title = f"Test {task.measured} at the selected epoch"
    return Chart("overview", title, caption, tuple(panels), columns=2, file=task.key)


def together(block: Block, style: Style) -> Chart:
    """The measure that decides, of all modalities together, over epochs, on each split."""
    splits = {"train": "Training", "valid": "Validation", "test": "Test"}
    panels = tuple(
        Panel(title, "epoch", f"{block.task.measured} (%)", over_epochs(block.rows, style, _together(split)))
        for split, title in splits.items()
    )
    words = "All modalities together. The test panel is there to be looked at: no epoch was chosen by it."
    caption = f"{words} {BAND.format(seeds=seeds(block))}"
    return Chart("curves", "Learning curves", caption, panels, shared=True, tab="together", file="curves")


def alone(block: Block, style: Style, kind: str) -> Chart:
    """The measure that decides of each modality over epochs, on validation, by one of its kinds."""
    of = block.task.measured
    panels = tuple(
        Panel(name, "epoch", f"{of} (%)", over_epochs(rows, style, _alone(name, kind)))
        for name in block.modalities
        if (rows := [row for row in block.rows if row.has(name)])
    )
    words = {
        "zeroed": f"Each modality by itself: the model's {of} with the features of all others set to zero.",
        "shapley": f"Each modality by itself: {of} of its Shapley value of the logits.",
        "head": f"Each modality by itself: {of} of its own head or its part of the logits.",
    }
    caption = f"{words[kind]} Validation. {BAND.format(seeds=seeds(block))}"
    tab, file = f"each alone, {KIND_WORDS[kind]}", "modalities" if kind == "zeroed" else ""
    return Chart("curves", "Learning curves", caption, panels, shared=True, tab=tab, file=file)


def overfitting(block: Block, style: Style) -> Chart:
    """The normalised overfitting gap tau over epochs (the paper's Figure 2); without lines where no accuracy decides."""
    lines = over_epochs(block.rows, style, runs.tau)
    of = block.task.measured
    words = f"τ = |training {of} − test {of}| / test {of}, not clamped; 0 is no gap."
    caption = f"{words} {BAND.format(seeds=seeds(block))}"
    panel = Panel("All modalities together", "epoch", "τ", lines)
    return Chart("tau", "Normalised overfitting gap τ", caption, (panel,), columns=1, file="tau")


def _together(split: str) -> Callable[[dict[str, Any]], float]:
    return lambda epoch: 100 * selection.score(epoch[split])


def _alone(name: str, kind: str) -> Callable[[dict[str, Any]], float]:
    return lambda epoch: 100 * number(epoch["valid"].get("modalities", {}).get(name, {}).get(kind))
