"""Grids: rows that are to be compared, and the seeds that each of them gets."""

import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from msam import data as datasets
from msam import methods
from msam.record import WORLDS
from msam.train import RunConfig, config
from msam.train.config import laid_over, part_name

Settings = Mapping[str, Any]
"""Nested values as a configuration file holds them, without a seed."""

Axis = str | None | Settings | Sequence[str | Settings | None]
"""One part or several: a name, or a table with a `name` and options."""

SEARCH = "search"
"""Key of a row's own spaces for tuning, which no configuration has."""

AXES = ("data", "fusion", "method", "sharpness", "optimizer")
EARLY = ("early", "maxout")
HELD: Settings = {"threads": 1, "record_every": 0}
"""What all cells share: one thread, as many run side by side, and records per epoch."""


@dataclass(frozen=True)
class Grid:
    """Rows, each of them run with every seed.

    Attributes:
        rows: settings by the row's name.
        seeds: what each row is run with; for worlds drawn from a seed (dial) the world's seed too.
        controlled: whether rows with M-SAM are joined by their controls (`msam.bench.controls`).
        left_out: combinations that are not defined, and why, in words.
    """

    rows: Mapping[str, Settings]
    seeds: tuple[int, ...]
    controlled: bool = True
    left_out: tuple[str, ...] = ()

    def cells(self) -> list[RunConfig]:
        """Return every row with the first seed, then every row with the second, and so on: an early end is a fair one.

        Raises:
            ValueError: for settings that are none.
        """
        return [cell(settings, seed) for seed in self.seeds for settings in self.rows.values()]

    def cells_of(self, row: str) -> list[RunConfig]:
        """Return a row with every seed."""
        return [cell(self.rows[row], seed) for seed in self.seeds]

    def tuned(self, chosen: Mapping[str, Settings]) -> "Grid":
        """Return the grid with what tuning chose laid over each row.

        Raises:
            ValueError: if a row was not tuned: an untuned row beside tuned ones is no fair comparison.
        """
        missing = [name for name in self.rows if name not in chosen]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self.rows)} rows were not tuned, e.g. {missing[0]!r}. Tune them with the same "
                "budget (`msam bench tune` on this recipe), or run all rows untuned."
            )
        return replace(self, rows={name: laid_over(row, chosen[name]) for name, row in self.rows.items()})

    def with_settings(self, over: Settings) -> "Grid":
        """Return the grid with the same settings laid over every row, `{"accelerator": "cuda"}` for instance."""
        return replace(self, rows={name: laid_over(row, over) for name, row in self.rows.items()})

    def with_rows(self, more: Mapping[str, Settings]) -> "Grid":
        """Return the grid with other rows in place of its own."""
        return replace(self, rows=dict(more))


def grid(
    *,
    data: Axis = "avdigits",
    fusion: Axis = "late",
    method: Axis = "joint",
    sharpness: Axis = "none",
    optimizer: Axis = "sgd",
    seeds: int | Iterable[int] = 10,
    controls: bool = True,
    **common: Any,
) -> Grid:
    """Return every combination of the parts.

    A method that is defined for late fusion, or few modalities, alone takes its extension where it has one, and is left
    out where it has none. `unimodal` stands for one row per modality.

    Arguments:
        data: dataset or datasets.
        fusion: one or several.
        method: one or several.
        sharpness: one or several; "none" is training without a rule.
        optimizer: one or several.
        seeds: how many (0, 1, ...), or which.
        controls: whether rows with M-SAM are joined by their controls.
        common: what all rows share, `epochs=30` for instance.

    Raises:
        ValueError: for unknown parts, options out of range, no seed, or two rows of one name.

    >>> made = grid(data="dial", method=["joint", "unimodal"], sharpness=["none", "msam"], seeds=2, epochs=3)
    >>> list(made.rows)[:2], len(made.cells())
    (['dial-late-joint-none-sgd', 'dial-late-joint-msam-sgd'], 12)
    """
    found = tuple(range(seeds)) if isinstance(seeds, int) else tuple(dict.fromkeys(seeds))
    if not found:
        raise ValueError(f"`seeds` must be at least one, received {seeds!r}.")
    axes = [_several(axis) for axis in (data, fusion, method, sharpness, optimizer)]
    several = [kind for kind, axis in zip(AXES, axes, strict=True) if _repeats(kind, axis)]
    rows: dict[str, Settings] = {}
    left_out: list[str] = []
    for parts in itertools.product(*axes):
        given = dict(zip(AXES, parts, strict=True))
        for combined in _defined(given, left_out):
            alone = part_name("method", combined["method"]) == "unimodal"
            name = row_name(combined, [*several, "method"] if alone else several)
            if name in rows:
                raise ValueError(f"Two rows are called {name!r}. Every combination must be asked for once.")
            cell({**common, **combined}, found[0])
            rows[name] = {**common, **combined}
    return Grid(rows, found, controls, tuple(dict.fromkeys(left_out)))


def cell(settings: Settings, seed: int) -> RunConfig:
    """Return one run of a row; of a world drawn from a seed (dial), the world of that seed.

    Raises:
        ValueError: for unknown keys and values out of range.

    >>> cell({"data": "dial", "epochs": 3}, seed=7).data["seed"]
    7
    """
    if "seed" in settings:
        raise ValueError(
            f"`seed` is given by the grid, run by run; received {settings['seed']!r}. Say which with `seeds`."
        )
    settings = laid_over(HELD, without_search(settings))
    table = dict(_table("data", settings.get("data")))
    if table["name"] in WORLDS:
        table = {"seed": seed, **table}
    return config({**settings, "data": table}, seed=seed)


def without_search(settings: Settings) -> dict[str, Any]:
    """Return a row without its own spaces: what a configuration has.

    >>> without_search({"data": "dial", "search": {"optimizer.lr": None}})
    {'data': 'dial'}
    """
    return {key: value for key, value in settings.items() if key != SEARCH}


def row_name(settings: Settings, told: Collection[str] = ()) -> str:
    """Return what a row is called: its parts, and the options of those kinds that are to be told.

    >>> row_name({"data": "dial", "sharpness": {"name": "msam", "rho": 0.3}}, told=["sharpness"])
    'dial-late-joint-msam.rho=0.3-sgd'
    """
    return "-".join(_part_name(kind, settings.get(kind), told=kind in told) for kind in AXES)


def _part_name(kind: str, value: Any, *, told: bool) -> str:
    table = _table(kind, value)
    options = [f"{key}={option}" for key, option in table.items() if told and key != "name"]
    return ".".join([str(table["name"]), *options]).replace("/", "_").replace(" ", "")


def _table(kind: str, value: Any) -> Settings:
    return {**value, "name": part_name(kind, value)} if isinstance(value, Mapping) else {"name": part_name(kind, value)}


def _several(axis: Axis) -> list[Any]:
    return [axis] if axis is None or isinstance(axis, str | Mapping) else list(axis)


@lru_cache(maxsize=16)
def _modalities(data: str) -> tuple[str, ...]:
    options = json.loads(data)
    return tuple(datasets.card(options.pop("name"), **options).encoders)


def _repeats(kind: str, axis: Sequence[Any]) -> bool:
    """Tell whether a part stands in an axis more than once, so that its options tell which is which."""
    names = [part_name(kind, value) for value in axis]
    return len(set(names)) < len(names)


def _defined(given: Settings, left_out: list[str]) -> Iterable[Settings]:
    """Return the rows that a combination stands for: one, one per modality, or none, with the reason in `left_out`."""
    table = dict(_table("method", given["method"]))
    modalities = _modalities(json.dumps(_table("data", given["data"]), sort_keys=True))
    fusion = part_name("fusion", given["fusion"])
    more = methods.load(table["name"]).about.admitted(early=fusion in EARLY, modalities=len(modalities))
    if more is None:
        left_out.append(f"{table['name']} is not defined for {fusion} fusion of {len(modalities)} modalities.")
        return []
    table = {**more, **table}
    if table["name"] == "unimodal" and "modality" not in table:
        return [{**given, "method": {**table, "modality": name}} for name in modalities]
    return [{**given, "method": table if len(table) > 1 else table["name"]}]
