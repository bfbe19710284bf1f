"""Recipes: complete settings by name, and runs that belong together.

`settings("recommended")` is what the evidence speaks for, `settings("paper/cremad-late-msam")` what the paper did, as far
as it says, and what is ours where it does not.
"""

from msam.recipes import paper, recommended
from msam.recipes._named import config, names, settings
from msam.recipes.avdigits import SETTINGS, comparison, controls, demo, every_method, trials
from msam.recipes.grids import GRIDS, load_grid

__all__ = [
    "GRIDS",
    "SETTINGS",
    "comparison",
    "config",
    "controls",
    "demo",
    "every_method",
    "load_grid",
    "names",
    "paper",
    "recommended",
    "settings",
    "trials",
]
