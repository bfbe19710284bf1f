"""Charts as files, drawn by matplotlib without its global state."""

import io
import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from msam.report import surfaces
from msam.report.charts import Area, Chart, Dots, Line, Panel

Format = Literal["png", "svg"]

INK, FAINT = "#333333", "#D9D9D9"
LOOK: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "font.size": 9,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "xtick.labelsize": 8,
    "ytick.color": INK,
    "ytick.labelsize": 8,
}


def picture(chart: Chart, subtitle: str, format: Format = "png") -> bytes:
    """Return the chart as a file: a PNG of 160 dots per inch, or an SVG; equal charts give equal bytes.

    Arguments:
        chart: what to draw.
        subtitle: on what data.
        format: "png" or "svg".
    """
    options: dict[str, Any] = {"dpi": 160} if format == "png" else {"metadata": {"Date": None, "Creator": None}}
    with matplotlib.rc_context({**LOOK, "svg.hashsalt": "msam"}):
        buffer = io.BytesIO()
        draw(chart, subtitle).savefig(buffer, format=format, **options)
        return buffer.getvalue()


def still(chart: Chart) -> bytes:
    """Return a chart's surfaces alone as a small WebP, for a page whose own cannot be drawn: on paper, without WebGL."""
    with matplotlib.rc_context(LOOK):
        figure, buffer = Figure(figsize=(10.0, surfaces.HEIGHT)), io.BytesIO()
        surfaces.draw(figure, chart, (0.005, 0.0, 0.99, 1.0))
        figure.savefig(buffer, format="webp", dpi=130, pil_kwargs={"quality": 75})
        return buffer.getvalue()


def draw(chart: Chart, subtitle: str) -> Figure:
    """Return the chart as a figure: title and legend above, panels, caption below; nothing covers data."""
    title = f"{chart.title}, {chart.tab}" if chart.tab else chart.title
    columns = min(chart.columns, len(chart.panels))
    rows = math.ceil(len(chart.panels) / columns)
    width = 10.0 if columns > 1 or chart.surfaces else 7.5
    caption = textwrap.wrap(chart.caption, int(15.5 * width))
    longest = max((len(mark.label) for mark in chart.legend), default=0)
    legend_columns = max(1, int(width / (0.62 + 0.085 * longest)))
    legend_rows = math.ceil(len(chart.legend) / legend_columns)
    header, footer = 0.46 + 0.2 * legend_rows, 0.12 + 0.16 * len(caption)
    height = header + footer + (surfaces.HEIGHT if chart.surfaces else rows * _height(chart))
    figure = Figure(figsize=(width, height))
    figure.text(0.012, 1 - 0.12 / height, title, va="top", fontsize=13, weight="bold")
    figure.text(0.988, 1 - 0.14 / height, subtitle, va="top", ha="right", color="#666666")
    figure.text(0.012, 0.09 / height, "\n".join(caption), va="bottom", fontsize=8, color="#666666", linespacing=1.35)
    if chart.legend:
        figure.legend(
            handles=[_handle(mark) for mark in chart.legend],
            loc="upper left",
            bbox_to_anchor=(0.012, 1 - 0.43 / height),
            ncols=legend_columns,
            borderaxespad=0,
            borderpad=0,
            fontsize=9,
        )
    body = (0.005, footer / height, 0.99, 1 - (header + footer) / height)
    if chart.surfaces:
        surfaces.draw(figure, chart, body)
    else:
        _grid(figure, chart, body, rows, columns)
    return figure


def _grid(figure: Figure, chart: Chart, body: tuple[float, float, float, float], rows: int, columns: int) -> None:
    figure.set_layout_engine("constrained")
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=body, h_pad=0.06, w_pad=0.06)  # type: ignore[call-arg]
    grid = figure.subplots(rows, columns, squeeze=False, sharey=chart.shared)
    for position, axes in enumerate(grid.flat):
        if position < len(chart.panels):
            _panel(axes, chart.panels[position], first=position % columns == 0 or not chart.shared)
        else:
            axes.set_axis_off()


def _height(chart: Chart) -> float:
    """Height of a row of panels, in inches."""
    lanes = max(len(panel.marks) for panel in chart.panels)
    if isinstance(chart.panels[0].marks[0], Dots):
        return 0.75 + 0.27 * lanes
    return 1.25 if chart.flat else 2.6


def _panel(axes: Axes, panel: Panel, *, first: bool) -> None:
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x_label)
    if first:
        axes.set_ylabel(panel.y_label)
    for mark in panel.marks:
        if isinstance(mark, Line):
            _line(axes, mark)
        elif isinstance(mark, Area):
            axes.fill_between(mark.x, mark.low, mark.high, color=mark.colour, linewidth=0)
            axes.margins(x=0)
    lanes = [mark for mark in panel.marks if isinstance(mark, Dots)]
    if lanes:
        _lanes(axes, lanes)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if panel.zero:
        (axes.axvline if lanes else axes.axhline)(0, color="#7F7F7F", linewidth=1, zorder=1)
    if panel.y_range:
        axes.set_ylim(*panel.y_range)


def _line(axes: Axes, line: Line) -> None:
    alone = len(line.x) == 1
    axes.plot(
        line.x, line.y, color=line.colour, linestyle=line.dash, linewidth=1.6, marker="o" if alone else "", markersize=4
    )
    if line.low is not None and line.high is not None:
        axes.fill_between(line.x, line.low, line.high, color=line.colour, alpha=0.15, linewidth=0)


def _lanes(axes: Axes, lanes: Sequence[Dots]) -> None:
    for lane, dots in enumerate(lanes):
        axes.plot(dots.values, [lane] * len(dots.values), "o", color=dots.colour, markersize=3.5, alpha=0.45, mew=0)
        if math.isfinite(dots.low):
            axes.plot([dots.low, dots.high], [lane, lane], color=dots.colour, linewidth=2.2, solid_capstyle="round")
        if math.isfinite(dots.mean):
            axes.plot(dots.mean, lane, "o", color=dots.colour, markersize=7, markeredgecolor="white")
    axes.set_yticks(range(len(lanes)), [dots.label for dots in lanes])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)


def _handle(mark: Line | Area) -> Line2D | Patch:
    if isinstance(mark, Area):
        return Patch(color=mark.colour, label=mark.label)
    return Line2D([], [], color=mark.colour, linestyle=mark.dash, linewidth=2, label=mark.label)
