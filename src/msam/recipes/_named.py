"""Recipes by name, whoever made them: what we recommend, and the rows of the paper."""

from copy import deepcopy
from typing import Any

from msam import checks
from msam.recipes import paper, recommended
from msam.train import RunConfig
from msam.train import config as checked
from msam.train.config import laid_over


def names() -> list[str]:
    """Return the names of all recipes.

    >>> names()[:3], len(names())
    (['recommended', 'recommended-early', 'paper/avmnist-late-agm'], 189)
    """
    return [*recommended.RECIPES, *paper.names()]


def settings(name: str) -> dict[str, Any]:
    """Return the nested values of a recipe, as a configuration file would hold them.

    Raises:
        ValueError: if there is no such recipe, with the nearest known name.

    >>> settings("paper/cremad-late-msam")["optimizer"]
    {'name': 'sgd', 'lr': 0.001, 'momentum': 0.9, 'weight_decay': 0.0001}
    """
    if name in recommended.RECIPES:
        return deepcopy(dict(recommended.RECIPES[name]))
    if name not in (known := names()):
        raise ValueError(
            f"Unknown recipe {name!r}.{checks.did_you_mean(name, known)} `msam list recipes` shows all {len(known)}."
        )
    return paper.settings(name)


def config(name: str, **overrides: Any) -> RunConfig:
    """Return the configuration of a recipe.

    Arguments:
        name: of the recipe.
        overrides: values that go over it: `epochs=50`, `data={"root": "..."}`; a part of another name replaces it whole.

    Raises:
        ValueError: if there is no such recipe, with the nearest known name; for an unknown key or a value out of range.

    >>> config("recommended", data="dial").sharpness["loss"]
    'response'
    """
    return checked(laid_over(settings(name), overrides))
