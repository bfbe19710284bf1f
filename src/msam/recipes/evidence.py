"""The grids behind docs/evidence.md, with what each row may tune; `budget` is the same for all of a grid.

Every row tunes the learning rate and what its method and rule declare. Weight decay is held at 1e-4: with few trials one
dimension less is worth more. Radii share one space, which is wide enough for rules that bear large ones.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from msam import methods, sharpness
from msam.bench._spaces import tunable
from msam.bench.grid import SEARCH, Axis, Grid, Settings, grid
from msam.checks import Search
from msam.recipes.avdigits import fitted

Seeds = int | Iterable[int]


class Budget(NamedTuple):
    """What each row of a grid may spend on tuning: trials, and runs of each."""

    trials: int
    seeds: int


BUDGETS: Mapping[str, Budget] = {
    "dial": Budget(12, 3),
    "dial-early": Budget(12, 3),
    "pairs": Budget(12, 3),
    "many": Budget(12, 3),
    "noise": Budget(12, 3),
    "avdigits": Budget(12, 1),
    "avdigits-early": Budget(12, 1),
}
"""By grid, stated before any run of it."""

PREFIX = "evidence/"
"""Of the grids' names."""

DIAL: Settings = {"name": "dial", "shuffle": True}
"""Worlds in which it is drawn who is strong: a rule that always picks one place cannot pass for aware."""

RATE = Search(0.01, 0.2, log=True)
RADIUS = Search(0.02, 2.0, log=True)

SCOPES = ("dominant", "dominant+fusion")
FORMS: tuple[Settings, ...] = (
    *({"name": "msam", "scope": scope, **share} for scope in SCOPES for share in ({}, {"share": "one"})),
    {"name": "msam", "weighting": "sample"},
    {"name": "msam", "loss": "response"},
    {"name": "msam", "loss": "masked"},
)
"""What the paper's words promise beyond its printed algorithm."""

PAIRED = ("joint", "uniform", "modality_dropout", "mmpareto", "ogm_ge", "mlb", "agm", "pmr", "cggm", "mslr")
PAPER = ("joint", "uniform", "mses", "mslr", "ogm_ge", "agm", "mmpareto", "cggm", "reconboost", "ensemble")
"""Rows of the paper's tables, and the two controls beside them."""


def dial(seeds: Seeds = 20) -> Grid:
    """Every method, every rule, every form of M-SAM, and its controls of awareness, on worlds of the dial."""
    names = ("modality_0", "modality_1")
    who = [
        {"name": "msam", "scope": scope, "modality": modality}
        for scope in ("all", "dominant")
        for modality in ("weakest", "random", *names)
    ]
    rules: list[Any] = ["none", "sam", "msam", *FORMS, *who]
    others = [name for name in sharpness.names() if name not in rules]
    return _joined(grid(data=DIAL, sharpness=[*rules, *others], seeds=seeds), _methods(DIAL, seeds))


def dial_early(seeds: Seeds = 20) -> Grid:
    """The rows of the paper's tables on worlds of the dial, early fusion."""
    return _paper(DIAL, seeds)


def pairs(seeds: Seeds = 20) -> Grid:
    """Balancing methods under SAM, under M-SAM, and under M-SAM that climbs in the dominant modality, on the dial."""
    rules: Axis = ["none", "sam", "msam", {"name": "msam", "scope": "dominant"}]
    return _joined(grid(data=DIAL, method=[fitted(name) for name in PAIRED], sharpness=rules, seeds=seeds))


def many(seeds: Seeds = 20) -> Grid:
    """The same with three and four modalities, the rows that matter."""
    data = [{**DIAL, "modalities": count} for count in (3, 4)]
    names = ("joint", "uniform", "ensemble", "ogm_ge", "mmpareto", "modality_dropout")
    rules: Axis = ["sam", "msam", *({"name": "msam", "scope": scope} for scope in SCOPES)]
    common: dict[str, Any] = {"data": data, "seeds": seeds}
    return _joined(grid(method=[fitted(n) for n in names], **common), grid(sharpness=rules, **common))


def noise(seeds: Seeds = 20) -> Grid:
    """Worlds whose slow modality is nearly noise, and worlds with a code that only both modalities together tell."""
    data = [{**DIAL, "signal": (1.0, 3.0)}, {**DIAL, "synergy": 2.0}]
    rules: Axis = ["none", "sam", "msam", {"name": "msam", "scope": "dominant"}]
    return _joined(grid(data=data, sharpness=rules, seeds=seeds))


def avdigits(seeds: Seeds = 10) -> Grid:
    """Every method, every rule, and the forms of M-SAM that the dial speaks for, on AV-digits, late fusion."""
    forms: list[Any] = ["none", "sam", "msam", *({"name": "msam", "scope": scope} for scope in SCOPES)]
    forms.append({"name": "msam", "loss": "response"})
    others = [name for name in sharpness.names() if name not in forms]
    rules = [grid(data="avdigits", sharpness=names, seeds=seeds) for names in (forms, others)]
    return _joined(rules[0], _methods("avdigits", seeds), rules[1])


def avdigits_early(seeds: Seeds = 10) -> Grid:
    """The rows of the paper's tables on AV-digits, early fusion."""
    return _paper("avdigits", seeds)


GRIDS = {
    "dial": dial,
    "dial-early": dial_early,
    "pairs": pairs,
    "many": many,
    "noise": noise,
    "avdigits": avdigits,
    "avdigits-early": avdigits_early,
}


def _methods(data: str | Settings, seeds: Seeds) -> Grid:
    return grid(data=data, method=[fitted(name) for name in methods.names() if name != "unimodal"], seeds=seeds)


def _paper(data: str | Settings, seeds: Seeds) -> Grid:
    common: dict[str, Any] = {"data": data, "fusion": "early", "seeds": seeds}
    return _joined(grid(method=[fitted(name) for name in PAPER], **common), grid(sharpness=["sam", "msam"], **common))


def _joined(*grids: Grid) -> Grid:
    """Return one grid of all rows, each with what it may tune."""
    first = grids[0]
    rows = {name: {**row, SEARCH: _searched(row)} for made in grids for name, row in made.rows.items()}
    return Grid(rows, first.seeds, left_out=first.left_out)


def _searched(row: Settings) -> dict[str, Search | None]:
    """Return the spaces of a row: the shared ones for what all rows or all radii have, its own declared ones else."""
    spaces: dict[str, Search | None] = {"optimizer.lr": RATE, "optimizer.weight_decay": None, "sharpness.rho": RADIUS}
    return {key: space for key, space in spaces.items() if key in tunable(row)}
