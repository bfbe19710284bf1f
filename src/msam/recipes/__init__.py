"""Recipes: complete settings by name, and runs that belong together.

`settings("paper/cremad-late-msam")` is what the paper did, as far as it says, and what is ours where it does not.
"""

from msam.recipes import paper
from msam.recipes.avdigits import SETTINGS, comparison, controls, demo, every_method, trials
from msam.recipes.grids import GRIDS, load_grid
from msam.recipes.paper import config, names, settings

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
    "settings",
    "trials",
]
