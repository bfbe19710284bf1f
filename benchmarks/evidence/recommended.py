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

PLACE = FOLDER / "recommended"
JOINT = "joint-none-sgd"
Rows = Mapping[str, Mapping[str, Mapping[int, Run]]]
"""Place ("dial.shuffle=True-late") -> what stands there ("joint-sam-sgd") -> seed -> run."""


def choose(engine: engines.Engine) -> None:
    """Run the candidates."""
    for fusion in recommended.CHOSEN:
        bench.run(recommended.candidates(fusion).cells(), PLACE / "candidates", engine=engine, stacked=True)


def confirm(engine: engines.Engine) -> None:
    """Run the choices and what they are held against, where nothing was chosen.

    Raises:
        ValueError: if the candidates say that another setting is the choice.
    """
    for fusion, rule in recommended.CHOSEN.items():
        told = gains(candidates(fusion))
        best = max(told, key=lambda row: told[row])
        if best != row_of(rule):
            raise ValueError(
                f"For {fusion} fusion `msam.recipes.recommended.CHOSEN` is {row_of(rule)}, the candidates on validation "
                f"choose {best}. Set it first."
            )
    for data in recommended.HELD_OUT:
        cells = [cell for fusion in recommended.CHOSEN for cell in recommended.confirmed(fusion, data).cells()]
        bench.run(cells, PLACE / "confirmed", engine=engine, stacked=True)


def candidates(fusion: str) -> Rows:
    """Return the runs of the candidates."""
    return _rows(recommended.candidates(fusion), "candidates")


def confirmed(fusion: str) -> Rows:
    """Return the runs on held-out worlds and seeds."""
    found: dict[str, Mapping[str, Mapping[int, Run]]] = {}
    for data in recommended.HELD_OUT:
        found |= _rows(recommended.confirmed(fusion, data), "confirmed")
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


def comparisons(fusion: str) -> Iterator[tuple[str, str, stats.Comparison]]:
    """Yield place, rival and the choice against it in test accuracy; Holm's correction over all of a fusion."""
    rows, mine = confirmed(fusion), row_of(recommended.CHOSEN[fusion])
    asked = [(place, rival) for place, there in rows.items() for rival in there if rival != mine and there[rival]]
    compared = []
    for place, rival in asked:
        a, b = rows[place][mine], rows[place][rival]
        seeds = sorted(a.keys() & b.keys())
        compared.append(stats.compare(mine, rival, [accuracy(a[s]) for s in seeds], [accuracy(b[s]) for s in seeds]))
    for (place, rival), comparison in zip(asked, stats.family(compared), strict=True):
        yield place, rival, comparison


def candidates_table(fusion: str) -> list[str]:
    """Return the candidates and their gains on validation, the choice first."""
    rows = candidates(fusion)
    told = gains(rows)
    heads = ["Setting", "All", *map(place_name, rows)]
    lines = [heads, [":---", *["---:"] * (len(heads) - 1)]]
    for row in sorted(told, key=lambda row: -told[row]):
        apart = [f"{_mean(there[row]) - _mean(there[JOINT]):+.1f}" for there in rows.values()]
        lines.append([f"`{short(row)}`", f"{told[row]:+.2f}", *apart])
    return [f"| {' | '.join(line)} |" for line in lines]


def confirmed_table(fusion: str) -> list[str]:
    """Return the choice and its rivals on held-out worlds and seeds."""
    rows, mine = confirmed(fusion), row_of(recommended.CHOSEN[fusion])
    held = {(place, rival): comparison for place, rival, comparison in comparisons(fusion)}
    heads = ["Where", "Runs", "Recommended", *(short(r) for r in next(iter(rows.values())) if r != mine)]
    lines = [heads, [":---", *["---:"] * (len(heads) - 1)]]
    for place, there in rows.items():
        cells = [place_name(place), str(len(there[mine])), _pm(there[mine])]
        for rival in (r for r in there if r != mine):
            c = held[place, rival]
            star = "*" if c.p_holm < stats.LEVEL else ""
            cells.append(f"{_pm(there[rival])}; {c.mean:+.1f}{star} [{c.low:+.1f}, {c.high:+.1f}]")
        lines.append(cells)
    return [f"| {' | '.join(line)} |" for line in lines]


def verdicts(fusion: str) -> list[str]:
    """Return in how many places the choice is shown to be above each rival, and in how many below, a line for each."""
    told: dict[str, list[stats.Comparison]] = {}
    for _, rival, comparison in comparisons(fusion):
        told.setdefault(rival, []).append(comparison)
    lines = []
    for rival, found in told.items():
        shown = [c.mean for c in found if c.p_holm < stats.LEVEL]
        above, below = sum(mean > 0 for mean in shown), sum(mean < 0 for mean in shown)
        lines.append(f"- {short(rival)}: above in {above} of {len(found)} places, below in {below}")
    return lines


def place_name(place: str) -> str:
    """Return a place in words.

    >>> place_name("dial.shuffle=True.modalities=3-early")
    'dial, 3 modalities, early'
    """
    data, _, fusion = place.rpartition("-")
    return f"{data.split('.')[0]}{', 3 modalities' if 'modalities=3' in data else ''}, {fusion}"


def short(row: str) -> str:
    """Return a row's name as the tables have it.

    >>> short("joint-msam.loss=response.rho=0.0-sgd"), short("joint-msam.scope=dominant.rho=0.3-sgd")
    ('without climbing', 'scope=dominant.rho=0.3')
    """
    method, _, rule = row.removesuffix("-sgd").partition("-")
    if method != "joint":
        return method
    if rule.endswith("rho=0.0"):
        return "without climbing"
    return {"none": "joint", "sam": "SAM", "msam": "M-SAM as printed"}.get(rule, rule.removeprefix("msam."))


def _pm(runs: Mapping[int, Run]) -> str:
    told = stats.summary([accuracy(run) for run in runs.values()])
    return f"{told.mean:.1f} ± {told.sd:.1f}"


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
