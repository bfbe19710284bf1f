"""The critical-difference diagram: mean ranks on one axis, bars over rows that are not told apart (Demsar, JMLR 2006)."""

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msam.report.charts import FIXED_COLOURS
from msam.report.curves import INK, LOOK
from msam.report.ranks import Ranks

WIDTH, LANE, TOP = 10.0, 0.24, 1.0
"""Inches: of the picture, from name to name, and above the first name."""

BAR = 0.34
"""Distance between the bars of groups, in lanes."""


def png(ranks: Ranks) -> bytes:
    """Return the diagram as a PNG of 160 dots per inch."""
    return _saved(ranks, {"format": "png", "dpi": 160})


def svg(ranks: Ranks) -> str:
    """Return the diagram as an SVG element whose ink is the page's; equal for equal ranks."""
    text = _saved(ranks, {"format": "svg", "transparent": True, "metadata": {"Date": None, "Creator": None}}).decode()
    return text[text.index("<svg") :].replace(INK.lower(), "currentColor")


def draw(ranks: Ranks) -> Figure:
    """Return the diagram as a figure; rank 1 is on the left, the better half of the rows is named there."""
    k, groups = len(ranks.rows), ranks.groups
    below = 0.6 + BAR * len(groups)
    lanes = below + (k + 1) // 2
    figure = Figure(figsize=(WIDTH, TOP + LANE * lanes + 0.15))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(1 - 0.68 * (k - 1), k + 0.68 * (k - 1))
    axes.set_ylim(lanes + 0.15 / LANE, -TOP / LANE)
    _axis(axes, k)
    _scale(axes, ranks.critical, k)
    for i in range(k):
        _name(axes, ranks, i, below)
    for place, (first, last) in enumerate(groups):
        low, high = ranks.mean[first], ranks.mean[last]
        room = 0.012 * (k - 1)
        axes.plot([low - room, high + room], [0.45 + BAR * place] * 2, color=INK, linewidth=3.5, solid_capstyle="butt")
    return figure


def _axis(axes: Axes, k: int) -> None:
    axes.plot([1, k], [0, 0], color=INK, linewidth=1)
    step = 1 if k <= 12 else 5
    for rank in sorted({1, k, *range(step, k + 1, step)}):
        axes.plot([rank, rank], [0, -0.35], color=INK, linewidth=1)
        axes.text(rank, -0.5, str(rank), ha="center", va="bottom", fontsize=9)
    axes.text(1 - 0.03 * (k - 1), 0, "best", ha="right", va="center", fontsize=8)


def _scale(axes: Axes, critical: float, k: int) -> None:
    """The critical difference as a length, from rank 1."""
    y = -2.6
    axes.plot([1, 1 + critical], [y, y], color=INK, linewidth=1.5)
    for end in (1, 1 + critical):
        axes.plot([end, end], [y - 0.2, y + 0.2], color=INK, linewidth=1.5)
    axes.text(1 + critical + 0.02 * (k - 1), y, f"critical difference {critical:.2f}", va="center", fontsize=9)


def _name(axes: Axes, ranks: Ranks, i: int, below: float) -> None:
    """A line down from the mean rank, then out to the name: to the left for the better half, nested."""
    k, mean = len(ranks.rows), ranks.mean[i]
    left = i < (k + 1) // 2
    y = below + (i if left else k - 1 - i) + 0.5
    end = 1 - 0.06 * (k - 1) if left else k + 0.06 * (k - 1)
    colour = FIXED_COLOURS.get(ranks.rows[i], INK)
    axes.plot([mean, mean, end], [0, y, y], color=colour, linewidth=1)
    words = f"{ranks.rows[i]}  {mean:.2f}" if left else f"{mean:.2f}  {ranks.rows[i]}"
    axes.text(end, y, f"{words} " if left else f" {words}", ha="right" if left else "left", va="center", fontsize=9)


def _saved(ranks: Ranks, how: dict[str, Any]) -> bytes:
    with matplotlib.rc_context({**LOOK, "svg.hashsalt": "ranks", "svg.fonttype": "none"}):
        buffer = io.BytesIO()
        draw(ranks).savefig(buffer, **how)
        return buffer.getvalue()
