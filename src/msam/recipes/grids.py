"""Grids by name: what `msam bench run` and `msam bench tune` take. Each is a function of its seeds."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast

from msam import checks, methods, sharpness
from msam.bench.grid import HELD, Grid, grid
from msam.recipes import evidence, paper
from msam.recipes._values import DATASETS
from msam.recipes.avdigits import SETTINGS, fitted

Seeds = int | Iterable[int]


def smoke(seeds: Seeds = 5) -> Grid:
    """Small worlds, few epochs: every part of the bench in a minute. Its numbers say nothing of methods."""
    world = {"name": "dial", "train_size": 512, "valid_size": 200, "test_size": 400, "bayes_samples": 1000}
    return grid(
        data=world,
        method=["joint", "uniform", "ogm_ge"],
        sharpness=["none", "sam", "msam"],
        seeds=seeds,
        epochs=4,
    )


def avdigits(seeds: Seeds = 10) -> Grid:
    """Every method, and joint training with every sharpness rule, on AV-digits with late and early fusion."""
    return _everything("avdigits", seeds, SETTINGS["joint"])


def dial(seeds: Seeds = 20) -> Grid:
    """The same on twenty worlds of the dial, late fusion."""
    return _everything("dial", seeds, SETTINGS["joint"], fusions=("late",))


def pairs(seeds: Seeds = 10) -> Grid:
    """Every method that admits it, without a rule, with SAM, and with M-SAM, on AV-digits, late fusion."""
    return grid(
        data="avdigits",
        method=[fitted(name) for name in methods.names() if name not in ("unimodal", "ensemble")],
        sharpness=["none", "sam", "msam"],
        seeds=seeds,
        **SETTINGS["joint"],
    )


def _paper(dataset: str, seeds: Seeds = 5) -> Grid:
    """The rows of the paper's tables on one of its datasets, late and early fusion, at its settings (`paper/...`)."""
    found = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    names = [name for name in paper.names() if paper.found(name).dataset == dataset]
    return Grid({name.removeprefix(paper.PREFIX): {**paper.settings(name), **HELD} for name in names}, found)


GRIDS: Mapping[str, Callable[..., Grid]] = {
    "smoke": smoke,
    "avdigits": avdigits,
    "dial": dial,
    "pairs": pairs,
    **{f"{evidence.PREFIX}{name}": make for name, make in evidence.GRIDS.items()},
    **{f"{paper.PREFIX}{dataset}": partial(_paper, dataset) for dataset in DATASETS},
}


def load_grid(name: str) -> Callable[..., Grid]:
    """Return the function that makes a grid: one of ours, or `my_lab.grids.mine`, which takes `seeds` if it wants to.

    Raises:
        ValueError: if there is none, with the nearest known name.

    >>> len(load_grid("smoke")(seeds=2).cells())
    18
    """
    module, _, function = name.rpartition(".")
    if not module:
        return GRIDS[checks.one_of("grid", name, GRIDS)]
    try:
        found = getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(
            f"Unknown grid {name!r}: {error}. A dotted name must be a function of an importable module."
        ) from error
    if not callable(found):
        raise ValueError(f"Grid {name!r} must be a function that returns a Grid, found {type(found).__name__}.")
    return cast(Callable[..., Grid], found)


def _everything(
    data: str, seeds: Seeds, settings: Mapping[str, Any], fusions: tuple[str, ...] = ("late", "early")
) -> Grid:
    common = {"data": data, "fusion": list(fusions), "seeds": seeds, **settings}
    rows = grid(method=[fitted(name) for name in methods.names()], **common)
    rules = grid(sharpness=sharpness.names(), **common)
    return Grid({**rows.rows, **rules.rows}, rows.seeds, left_out=rows.left_out)
