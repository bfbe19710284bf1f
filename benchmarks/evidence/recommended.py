"""The recommended setting: candidates on seeds of their own, the choice by validation, and what it brings on others."""

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from found import FOLDER, accuracy, runs_of, validation

from msam import bench, record
from msam.bench import engines
from msam.bench.grid import Grid
from msam.recipes import recommended
from msam.report import stats
from msam.report.runs import Run

PLACE = FOLDER / recommended.NAME
JOINT = "joint-none-sgd"
Rows = Mapping[str, Mapping[str, Mapping[int, Run]]]
"""Place ("dial.shuffle=True-late") -> what stands there ("joint-sam-sgd") -> seed -> run."""


def choose(engine: engines.Engine) -> None:
    """Run the candidates."""
    bench.run(recommended.candidates().cells(), PLACE / "candidates", engine=engine, stacked=True)


def confirm(engine: engines.Engine) -> None:
    """Run the choice and what it is held against, where nothing was chosen.

    Raises:
        ValueError: if the candidates say that another setting is the choice.
    """
    best = max(told := gains(candidates()), key=lambda row: told[row])
    if best != (mine := row_of(recommended.SETTINGS["sharpness"])):
        raise ValueError(
            f"`msam.recipes.recommended.SETTINGS` is {mine}, the candidates on validation choose {best}. Set it first."
        )
    for data, seeds in recommended.HELD_OUT.items():
        bench.run(recommended.confirmed(seeds, data).cells(), PLACE / "confirmed", engine=engine, stacked=True)


def candidates() -> Rows:
    """Return the runs of the candidates."""
    return _rows(recommended.candidates(), "candidates")


def confirmed() -> Rows:
    """Return the runs on held-out worlds and seeds."""
    found: dict[str, Mapping[str, Mapping[int, Run]]] = {}
    for data, seeds in recommended.HELD_OUT.items():
        found |= _rows(recommended.confirmed(seeds, data), "confirmed")
    return found


def gains(rows: Rows) -> dict[str, float]:
    """Return by how many points of validation accuracy each candidate is above joint training.

    It is the mean over datasets of the mean over their places, so that no dataset counts for its many places; a run that
    diverged counts as an accuracy of 0.
    """
    names = [row for row in next(iter(rows.values())) if row != JOINT] if rows else []
    by_data: dict[str, list[str]] = {}
    for place in rows:
        by_data.setdefault(place.split(".")[0].split("-")[0], []).append(place)
    return {
        row: fmean(fmean(_mean(rows[p][row]) - _mean(rows[p][JOINT]) for p in places) for places in by_data.values())
        for row in names
    }


def row_of(rule: Mapping[str, Any]) -> str:
    """Return the name of the row of joint training with a rule."""
    options = ".".join(f"{key}={value}" for key, value in rule.items() if key != "name")
    return f"joint-{rule['name']}.{options}-sgd"


def comparisons(rows: Rows) -> Iterator[tuple[str, str, stats.Comparison]]:
    """Yield place, rival and the choice against it in test accuracy; Holm's correction over all of them."""
    mine = row_of(recommended.SETTINGS["sharpness"])
    asked = [(place, rival) for place, there in rows.items() for rival in there if rival != mine and there[rival]]
    compared = []
    for place, rival in asked:
        a, b = rows[place][mine], rows[place][rival]
        seeds = sorted(a.keys() & b.keys())
        compared.append(stats.compare(mine, rival, [accuracy(a[s]) for s in seeds], [accuracy(b[s]) for s in seeds]))
    for (place, rival), comparison in zip(asked, stats.family(compared), strict=True):
        yield place, rival, comparison


def _mean(runs: Mapping[int, Run]) -> float:
    seeds = len(recommended.CHOICE_SEEDS)
    return sum(validation(run) for run in runs.values()) / seeds


def _rows(grid: Grid, folder: str) -> Rows:
    records = {one.header["run"]: one for one in record.find(PLACE / folder)} if (PLACE / folder).is_dir() else {}
    found: dict[str, dict[str, Mapping[int, Run]]] = {}
    for name, settings in grid.rows.items():
        place = "-".join(name.split("-")[:2])
        found.setdefault(place, {})[name.removeprefix(f"{place}-")] = runs_of(settings, grid.seeds, records)[0]
    return found
