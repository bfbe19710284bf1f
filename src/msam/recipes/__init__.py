"""Recipes: complete settings by name, and runs that belong together.

`settings("paper/cremad-late-msam")` is what the paper did, as far as it says, and what is ours where it does not.
"""

from msam.recipes import paper
from msam.recipes.avdigits import SETTINGS, comparison, controls, demo, every_method, trials
from msam.recipes.paper import config, names, settings

__all__ = [
    "SETTINGS",
    "comparison",
    "config",
    "controls",
    "demo",
    "every_method",
    "names",
    "paper",
    "settings",
    "trials",
]
