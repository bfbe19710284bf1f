"""The bench: a fair grid of runs, tuned with the same budget, on one machine or many."""

from msam.bench._chosen import Chosen, chosen
from msam.bench.controls import controls
from msam.bench.execute import Failed, run
from msam.bench.grid import Grid, cell, grid

__all__ = ["Chosen", "Failed", "Grid", "cell", "chosen", "controls", "grid", "run"]
