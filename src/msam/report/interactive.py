"""Charts for the page, drawn by plotly: one small figure per panel, so that panels flow with the width."""

import json
import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from msam.report.charts import Area, Array, Chart, Dots, Line, Panel, Surface

VIEWPOINTS = ({"x": 1.1, "y": -1.9, "z": 1.3}, {"x": 2.05, "y": -1.43, "z": 0.35})
"""Where the eye is at first, and where the second view puts it: those of the files."""

CENTRE = {"x": 0.0, "y": 0.0, "z": -0.12}
"""Where it looks: a little low, so that the axes below have room."""

TICKS = 7
"""Numbers on a horizontal axis, at most; fewer epochs or steps have one each, since plotly would set some between them."""

DASH = {"solid": "solid", "dashed": "dash", "dotted": "dot", "dashdot": "dashdot"}


def figures(chart: Chart) -> list[dict[str, Any]]:
    """Return a plotly figure (`data` and `layout`, plain JSON values) for every panel of the chart.

    Every trace carries the label of its row or modality as `legendgroup`: the page's legend switches by it. Colours of
    text and grid are left to the page, which knows whether it is dark; so is what the vertical axis shows.
    """
    if chart.surfaces:
        return [_surface(surface, chart.heights) for surface in chart.surfaces]
    shared = _range(chart) if chart.shared else None
    return [_figure(panel, panel.y_range or shared, flat=chart.flat) for panel in chart.panels]


def _figure(panel: Panel, y_range: tuple[float, float] | None, *, flat: bool) -> dict[str, Any]:
    figure = go.Figure()
    lanes = [mark for mark in panel.marks if isinstance(mark, Dots)]
    for mark in panel.marks:
        if isinstance(mark, Line):
            figure.add_traces(_line(mark, digits=1 if "%" in panel.y_label else 3))
        elif isinstance(mark, Area):
            figure.add_trace(_area(mark))
    for lane, dots in enumerate(lanes):
        figure.add_traces(_dots(dots, lane))
    figure.update_layout(
        template="none",
        height=64 + 30 * len(lanes) if lanes else 120 if flat else 260,
        margin={"l": 40, "r": 10, "t": 8, "b": 40},
        showlegend=False,
        hovermode="closest" if lanes else "x unified",
        hoverlabel={"font": {"size": 12}},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode=False,
    )
    title = {"text": panel.x_label} if lanes else {"text": panel.x_label, "standoff": 6}  # plotly: labels, or an error
    figure.update_xaxes(title=title, nticks=TICKS)
    figure.update_xaxes(zeroline=panel.zero and bool(lanes), zerolinewidth=1)
    figure.update_yaxes(zeroline=panel.zero and not lanes, zerolinewidth=1, nticks=3 if flat else 6)
    if not lanes:
        places = [x for mark in panel.marks if isinstance(mark, Line | Area) for x in mark.x]
        few = bool(places) and max(places) - min(places) < TICKS
        figure.update_xaxes(tickformat="d", hoverformat="d", dtick=1 if few else None)
        figure.update_yaxes(range=y_range)
    else:
        figure.update_yaxes(
            tickvals=list(range(len(lanes))),
            ticktext=[dots.label for dots in lanes],
            range=[len(lanes) - 0.5, -0.5],
            automargin=True,
            showgrid=False,
            nticks=len(lanes),
        )
        figure.update_layout(meta={"lanes": [dots.label for dots in lanes]})
    return _plain(figure)


def _surface(surface: Surface, heights: tuple[float, float]) -> dict[str, Any]:
    """A surface that can be turned; all of a chart have one scale of height and colour."""
    low, high = heights
    values = [_thin(row) for row in surface.heights.T]
    figure = go.Figure(
        go.Surface(
            x=_thin(surface.axis),
            y=_thin(surface.axis),
            z=values,
            cmin=low,
            cmax=high,
            colorscale="Viridis",
            colorbar={"thickness": 10, "len": 0.7, "x": 1.0, "title": {"text": surface.unit}},
            lighting={"ambient": 0.75, "diffuse": 0.5, "specular": 0.05},
            hovertemplate="x %{x:.2f}, y %{y:.2f}: loss %{z:.4g}<extra></extra>",
            name=surface.label,
            legendgroup=surface.label,
        )
    )
    figure.update_layout(
        template="none",
        height=340,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        scene={
            "xaxis": {"title": {"text": "x"}, "nticks": 5, "zeroline": False},
            "yaxis": {"title": {"text": "y"}, "nticks": 5, "zeroline": False},
            "zaxis": {"title": {"text": ""}, "nticks": 5, "range": [low, high]},
            "aspectratio": {"x": 1, "y": 1, "z": 0.72},
            "camera": {"eye": VIEWPOINTS[0], "center": CENTRE},
        },
    )
    return _plain(figure)


def _plain(figure: go.Figure) -> dict[str, Any]:
    drawn: dict[str, Any] = json.loads(figure.to_json())
    return drawn


def _line(line: Line, digits: int) -> list[go.Scatter]:
    traces = []
    if line.low is not None and line.high is not None:
        edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "legendgroup": line.label}
        traces = [
            go.Scatter(x=_thin(line.x), y=_thin(line.low), **edge),
            go.Scatter(
                x=_thin(line.x), y=_thin(line.high), fill="tonexty", fillcolor=_clear(line.colour, 0.16), **edge
            ),
        ]
    main = go.Scatter(
        x=_thin(line.x),
        y=_thin(line.y),
        name=line.label,
        legendgroup=line.label,
        mode="lines" if len(line.x) > 1 else "markers",
        line={"color": line.colour, "width": 2, "dash": DASH[line.dash]},
        hovertemplate=f"%{{y:.{digits}f}}",
    )
    return [*traces, main]


def _area(area: Area) -> go.Scatter:
    return go.Scatter(
        x=_thin(area.x),
        y=_thin(area.high - area.low),
        name=area.label,
        legendgroup=area.label,
        mode="lines",
        stackgroup="one",
        line={"width": 0, "color": area.colour},
        fillcolor=_clear(area.colour, 0.85),
        hovertemplate="%{y:.0f} %",
    )


def _dots(dots: Dots, lane: int) -> list[go.Scatter]:
    name = {"name": dots.label, "legendgroup": dots.label}
    seeds = go.Scatter(
        x=_thin(dots.values),
        y=[lane] * len(dots.values),
        text=list(dots.names),
        mode="markers",
        marker={"color": dots.colour, "size": 6, "opacity": 0.45},
        hovertemplate="%{text}: %{x:.2f}",
        **name,
    )
    known = math.isfinite(dots.low)
    around = {"array": [dots.high - dots.mean], "arrayminus": [dots.mean - dots.low], "thickness": 2.5, "width": 0}
    mean = go.Scatter(
        x=[dots.mean],
        y=[lane],
        mode="markers",
        marker={"color": dots.colour, "size": 11, "line": {"width": 1, "color": "white"}},
        error_x={"type": "data", "symmetric": False, "color": dots.colour, **around} if known else None,
        hovertemplate=f"mean %{{x:.2f}} [{dots.low:.2f}, {dots.high:.2f}]" if known else "mean %{x:.2f}",
        **name,
    )
    return [seeds, mean]


def _range(chart: Chart) -> tuple[float, float] | None:
    """The range that holds every line of every panel, with a little room."""
    ends = [
        values[np.isfinite(values)]
        for panel in chart.panels
        for mark in panel.marks
        if isinstance(mark, Line)
        for values in (mark.y, mark.low, mark.high)
        if values is not None
    ]
    found = np.concatenate(ends) if ends else np.zeros(0)
    if not len(found):
        return None
    room = 0.04 * max(float(np.ptp(found)), 1e-3)
    return float(found.min()) - room, float(found.max()) + room


def _thin(values: Array) -> list[float | None]:
    """Five significant digits are more than a picture shows."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]


def _clear(colour: str, alpha: float) -> str:
    """A `#RRGGBB` colour as rgba."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
