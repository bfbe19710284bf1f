"""What to take where the best model is wanted: the candidates that were held against one another, and what was chosen.

The choice is of options of `msam.MSAM` and a radius, one for late fusion and one for early fusion, each for all data: fixed
settings at the default learning rate, in places that differ in data and number of modalities. Validation accuracy chose, on
seeds of its own; what it brings is reported on others (docs/evidence.md). `msam.MSAM` by itself remains the algorithm as
printed.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from msam.bench.grid import SEARCH, Grid, Settings, grid
from msam.recipes.evidence import DIAL

CHOSEN: Mapping[str, Settings] = {
    "late": {"name": "msam", "loss": "response", "scope": "dominant", "rho": 0.3},
    "early": {"name": "msam", "scope": "dominant", "rho": 1.0},
}
"""By fusion, the candidate that gains most over joint training (`python benchmarks/evidence recommend`)."""

RECIPES: Mapping[str, Settings] = {
    "recommended": {"sharpness": CHOSEN["late"]},
    "recommended-early": {"fusion": {"name": "early"}, "sharpness": CHOSEN["early"]},
}
"""The same as recipes, by name: joint training with it."""

DATA: tuple[Any, ...] = (DIAL, {**DIAL, "modalities": 3}, "avdigits")
FORMS: tuple[Settings, ...] = (
    {},
    {"scope": "dominant"},
    {"loss": "response"},
    {"loss": "response", "scope": "dominant"},
)
RADII = (0.1, 0.3, 0.5, 1.0)

CHOICE_SEEDS = range(2000, 2003)
"""Worlds and seeds on which the choice was made; tuning begins at 1000, reports at 0."""

HELD_OUT: Mapping[str, range] = {"avdigits": range(100, 110), "dial": range(100, 120)}
"""Worlds and seeds on which it is confirmed, by data."""


def candidates(fusion: str) -> Grid:
    """M-SAM as printed and the forms of it that the evidence speaks for, at four radii, beside joint training.

    Args:
        fusion: "late" or "early".
    """
    rules: list[Any] = ["none", *({"name": "msam", **form, "rho": rho} for form in FORMS for rho in RADII)]
    return _everywhere(DATA, fusion, CHOICE_SEEDS, sharpness=rules)


def confirmed(fusion: str, data: str) -> Grid:
    """The choice, as it is and without climbing, beside what costs less: joint training, SAM, M-SAM, three controls.

    Args:
        fusion: "late" or "early".
        data: where, "avdigits" or "dial".
    """
    places = [one for one in DATA if data == (one["name"] if isinstance(one, dict) else one)]
    still = {**CHOSEN[fusion], "rho": 0.0}
    same_losses = "loss" in still  # else it is joint training
    rules = ["none", "sam", "msam", CHOSEN[fusion], *([still] if same_losses else [])]
    of_rules = _everywhere(places, fusion, HELD_OUT[data], sharpness=rules)
    controls = _everywhere(places, fusion, HELD_OUT[data], method=["uniform", "modality_dropout", "ensemble"])
    return Grid({**of_rules.rows, **controls.rows}, of_rules.seeds, left_out=of_rules.left_out)


def _everywhere(places: Iterable[Any], fusion: str, seeds: Iterable[int], **axes: Any) -> Grid:
    """Return a grid of several data, of which nothing is to be tuned."""
    made = grid(data=list(places), fusion=fusion, **axes, seeds=seeds)
    return made.with_rows({name: {**row, SEARCH: {}} for name, row in made.rows.items()})
