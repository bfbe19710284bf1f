"""What is drawn, before it is drawn: charts of panels of lines, areas, dots and surfaces.

`series` fills them from runs; `curves` draws them with matplotlib, `interactive` with plotly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Array = np.ndarray
Dash = Literal["solid", "dashed", "dotted", "dashdot"]

ROW_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#A6761D", "#66A61E", "#B2182B")
FIXED_COLOURS = {"Joint": "#7F7F7F", "SAM": "#0072B2", "M-SAM": "#D55E00"}
MODALITY_COLOURS = ("#4477AA", "#DDAA33", "#AA3377", "#228833", "#66CCEE", "#EE6677", "#999933", "#882255")
DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted", "dashdot")


@dataclass(frozen=True)
class Line:
    """A line with a band: `y`, and `low` to `high` where there is one; all of the shape of `x`."""

    label: str
    colour: str
    x: Array
    y: Array
    low: Array | None = None
    high: Array | None = None
    dash: Dash = "solid"


@dataclass(frozen=True)
class Area:
    """One layer of a stack: it reaches from `low` to `high` over `x`."""

    label: str
    colour: str
    x: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Dots:
    """Values on a horizontal lane: single `values`, their `mean`, and an interval `low` to `high` (NaN: none)."""

    label: str
    colour: str
    values: Array
    names: tuple[str, ...]
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Surface:
    """Heights in a unit over a square: `heights[i, j]` at `x = axis[i]`, `y = axis[j]`; NaN where there is none."""

    label: str
    axis: Array
    heights: Array
    unit: str


Mark = Line | Area | Dots | Surface


@dataclass(frozen=True)
class Panel:
    """One set of axes. Dots stand on lanes from top to bottom, in their order; a surface stands alone.

    Attributes:
        title: what it shows of the chart.
        x_label: the horizontal axis, with its unit.
        y_label: the vertical axis, with its unit; of a surface, its height.
        marks: what is drawn.
        y_range: of the vertical axis; None: what the marks need.
        zero: whether a line is drawn at the value 0.
        row: label of the row that all of it is about, if it is about one.
    """

    title: str
    x_label: str
    y_label: str
    marks: Sequence[Mark]
    y_range: tuple[float, float] | None = None
    zero: bool = False
    row: str = ""


@dataclass(frozen=True)
class Chart:
    """Panels under one legend.

    Attributes:
        name: short; neighbours of one name share a place on the page.
        title: what is shown.
        caption: what bands, dots and windows are.
        panels: from left to right, top to bottom.
        shared: whether all panels have one vertical range.
        columns: panels side by side where there is room.
        flat: whether the panels are low strips.
        tab: name among several charts of one `name` of which the page shows one at a time.
        file: name of the picture; empty where only the page shows the chart.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    shared: bool = False
    columns: int = 3
    flat: bool = False
    tab: str = ""
    file: str = ""

    @property
    def legend(self) -> list[Line | Area]:
        """The first line or area of every label, in order; dots and surfaces carry their labels themselves."""
        marks = [mark for panel in self.panels for mark in panel.marks if isinstance(mark, Line | Area)]
        return list({mark.label: mark for mark in reversed(marks)}.values())[::-1]

    @property
    def surfaces(self) -> list[Surface]:
        """The surfaces of all panels."""
        return [mark for panel in self.panels for mark in panel.marks if isinstance(mark, Surface)]

    @property
    def heights(self) -> tuple[float, float]:
        """The range of the surfaces' finite heights: one scale for all of them."""
        found = np.concatenate([surface.heights[np.isfinite(surface.heights)] for surface in self.surfaces])
        return float(found.min()), float(found.max())


@dataclass(frozen=True)
class Style:
    """Colour and dash of every row: one colour per name, one dash per variant of it; the same in all figures."""

    colours: dict[str, str]
    dashes: dict[str, Dash]


def style(rows: Sequence[tuple[str, str]]) -> Style:
    """Return the style of rows given as (label, name), for all blocks at once.

    >>> style([("SAM (rho=0.1)", "SAM"), ("SAM (rho=0.2)", "SAM")]).dashes
    {'SAM (rho=0.1)': 'solid', 'SAM (rho=0.2)': 'dashed'}
    """
    names = list(dict.fromkeys(name for _, name in rows if name not in FIXED_COLOURS))
    colour = FIXED_COLOURS | {name: ROW_COLOURS[i % len(ROW_COLOURS)] for i, name in enumerate(names)}
    round_ = {name: i // len(ROW_COLOURS) for i, name in enumerate(names)}
    variants: dict[str, list[str]] = {}
    for label, name in dict.fromkeys(rows):
        variants.setdefault(name, []).append(label)
    return Style(
        {label: colour[name] for label, name in rows},
        {
            label: DASHES[(position + round_.get(name, 0)) % len(DASHES)]
            for name, labels in variants.items()
            for position, label in enumerate(labels)
        },
    )


def modality_colours(modalities: Sequence[str]) -> dict[str, str]:
    """Return a colour per modality, by position."""
    return {name: MODALITY_COLOURS[i % len(MODALITY_COLOURS)] for i, name in enumerate(modalities)}
