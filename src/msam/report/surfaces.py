"""Surfaces in files: every panel from two viewpoints, drawn by matplotlib."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D  # type: ignore[import-untyped]

from msam.report.charts import Chart, Panel, Surface

HEIGHT = 5.9
"""Of both rows together, in inches."""

COLOURS = "viridis"

VIEWPOINTS = ((32, -60), (8, -35))
"""Elevation and azimuth in degrees: from above, and almost from the side."""

BAR = 0.07
"""Width of the colour bar with its numbers, as a part of the figure."""


def draw(figure: Figure, chart: Chart, body: tuple[float, float, float, float]) -> None:
    """Draw the surfaces of a chart into a part of a figure: a column per panel, a row per viewpoint, one scale for all.

    Arguments:
        figure: where to.
        chart: panels with one surface each.
        body: left, bottom, width and height of the part, in parts of the figure.
    """
    left, bottom, width, height = body
    norm = Normalize(*chart.heights)
    heading = 0.5 / figure.get_figheight()
    cell = ((width - BAR) / len(chart.panels), (height - heading) / len(VIEWPOINTS))
    for column, panel in enumerate(chart.panels):
        x = left + column * cell[0]
        top = bottom + height
        figure.text(x + 0.01, top - 0.06 / figure.get_figheight(), panel.title, va="top", fontsize=10, weight="bold")
        figure.text(
            x + 0.01, top - 0.28 / figure.get_figheight(), panel.y_label, va="top", fontsize=7.5, color="#666666"
        )
        for row, viewpoint in enumerate(VIEWPOINTS):
            place = (x, bottom + (len(VIEWPOINTS) - 1 - row) * cell[1], *cell)
            axes = figure.add_axes(place, projection="3d")
            assert isinstance(axes, Axes3D)
            _surface(axes, panel, norm, viewpoint)
    bar: Axes = figure.add_axes((left + width - 0.66 * BAR, bottom + 0.25 * height, 0.012, 0.5 * height))
    figure.colorbar(ScalarMappable(norm, COLOURS), cax=bar)
    bar.set_title(chart.surfaces[0].unit, fontsize=8, loc="left", weight="normal")
    bar.grid(visible=False)


def _surface(axes: Axes3D, panel: Panel, norm: Normalize, viewpoint: tuple[float, float]) -> None:
    (surface,) = (mark for mark in panel.marks if isinstance(mark, Surface))
    x, y = np.meshgrid(surface.axis, surface.axis, indexing="ij")
    axes.plot_surface(
        x, y, surface.heights, cmap=COLOURS, norm=norm, rcount=60, ccount=60, linewidth=0.15, edgecolor="#00000040"
    )
    axes.set_zlim(norm.vmin, norm.vmax)
    axes.view_init(*viewpoint)
    axes.set_box_aspect((1, 1, 0.72), zoom=1.04)
    axes.set_xlabel("x", labelpad=-6)
    axes.set_ylabel("y", labelpad=-6)
    axes.tick_params(pad=-2, labelsize=7)
    axes.locator_params(nbins=5)
    axes.patch.set_alpha(0)
