"""What to take where the best model is wanted: the candidates that were held against one another, and what was chosen.

The choice is of an option of `msam.MSAM` and a radius, one for all data: fixed settings at the default learning rate, in
places that differ in data, fusion and number of modalities. Validation accuracy chose, on seeds of its own; what it brings
is reported on others (docs/evidence.md). `msam.MSAM` by itself remains the algorithm as printed.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from msam.bench.grid import SEARCH, Grid, Settings, grid
from msam.recipes.evidence import DIAL

NAME = "recommended"
SETTINGS: Settings = {"method": {"name": "joint"}, "sharpness": {"name": "msam", "loss": "response", "rho": 0.5}}
"""The choice (`python benchmarks/evidence recommend`): the candidate that gains most over joint training."""

DATA: tuple[Any, ...] = (DIAL, {**DIAL, "modalities": 3}, "avdigits")
FUSIONS = ("late", "early")
FORMS: tuple[Settings, ...] = (
    {},
    {"scope": "dominant"},
    {"loss": "response"},
    {"loss": "response", "scope": "dominant"},
)
RADII = (0.1, 0.3, 0.5, 1.0)

CHOICE_SEEDS = range(2000, 2003)
"""Worlds and seeds on which the choice was made; tuning begins at 1000, reports at 0."""

HELD_OUT: Mapping[str, range] = {"dial": range(100, 120), "avdigits": range(100, 110)}
"""Worlds and seeds on which it is confirmed, by data."""


def candidates() -> Grid:
    """M-SAM as printed and the forms of it that the evidence speaks for, at four radii, beside joint training."""
    rules: list[Any] = ["none", *({"name": "msam", **form, "rho": rho} for form in FORMS for rho in RADII)]
    return _everywhere(CHOICE_SEEDS, sharpness=rules)


def confirmed(data: str) -> Grid:
    """The choice, as it is and without climbing, beside what costs less: joint training, SAM, M-SAM, three controls.

    Args:
        data: where, "dial" or "avdigits".
    """
    seeds = HELD_OUT[data]
    still = {**SETTINGS["sharpness"], "rho": 0.0}
    rules = _everywhere(seeds, data, sharpness=["none", "sam", "msam", SETTINGS["sharpness"], still])
    controls = _everywhere(seeds, data, method=["uniform", "modality_dropout", "ensemble"])
    return Grid({**rules.rows, **controls.rows}, rules.seeds, left_out=rules.left_out)


def _everywhere(seeds: Iterable[int], data: str = "", **axes: Any) -> Grid:
    """Return a grid of all places, or of those of one dataset; nothing of it is to be tuned."""
    places = [one for one in DATA if not data or data in (one, one["name"] if isinstance(one, dict) else one)]
    made = grid(data=places, fusion=list(FUSIONS), **axes, seeds=seeds)
    return made.with_rows({name: {**row, SEARCH: {}} for name, row in made.rows.items()})
