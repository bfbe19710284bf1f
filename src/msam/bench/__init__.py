"""The bench: a fair grid of runs, tuned with the same budget, on one machine or many."""

from msam.bench._chosen import Chosen, chosen, chosen_settings
from msam.bench._plans import seeds_apart, tuning_seeds
from msam.bench.controls import controls
from msam.bench.execute import Failed, run
from msam.bench.grid import Grid, cell, grid

__all__ = [
    "Chosen",
    "Failed",
    "Grid",
    "cell",
    "chosen",
    "chosen_settings",
    "controls",
    "grid",
    "run",
    "seeds_apart",
    "tuning_seeds",
]
