"""`msam list`: what ships, with options, defaults and ranges."""

import inspect
from functools import partial
from itertools import groupby
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from msam import checks, loggers, recipes
from msam.bench import engines
from msam.cli._flags import limits
from msam.loggers._find import find, installed
from msam.methods import _catalogue as catalogue
from msam.train.config import KINDS, options, signature
from msam.train.probes import PROBES


def list_(
    kind: Literal[
        "all",
        "data",
        "engines",
        "fusions",
        "grids",
        "loggers",
        "methods",
        "optimizers",
        "probes",
        "recipes",
        "schedules",
        "sharpness",
    ] = "all",
    /,
) -> None:
    """List what ships, or one kind of it, with options, defaults and ranges."""
    wanted = [k for k in KINDS if kind in ("all", k, f"{k}s")]
    for one in wanted:
        table = Table("name", "what", "options", title=one, title_justify="left", show_lines=True)
        for name in KINDS[one].names():
            summary = _in_the_catalogue(name) if one == "method" else _summary(KINDS[one].find(name))
            lines = [_described(key, o.default, o.range) for key, o in options(one, name).items()]
            table.add_row(name, Text(summary), Text("\n".join(lines)))
        Console().print(table)
    if kind in ("all", "recipes"):
        Console().print(_recipes())
    if kind in ("all", "grids"):
        Console().print(_grids())
    if kind in ("all", "engines"):
        Console().print(_engines())
    if kind in ("all", "loggers"):
        Console().print(_loggers())
    if kind in ("all", "probes"):
        Console().print(_probes())


def _recipes() -> Table:
    """Return a table with a line for each dataset and fusion: the names are too many for one each."""
    table = Table("begins with", "what", "ends with", title="recipe", title_justify="left", show_lines=True)
    for name in recipes.recommended.RECIPES:
        table.add_row(name, Text(_summary(recipes.recommended)), "")
    rows = [recipes.paper.found(name) for name in recipes.paper.names()]
    for (dataset, fusion), group in groupby(rows, key=lambda row: (row.dataset, row.fusion)):
        about = f"{recipes.paper.DATASETS[dataset].about}; {fusion} fusion"
        table.add_row(f"{recipes.paper.PREFIX}{dataset}-{fusion}-", Text(about), ", ".join(row.row for row in group))
    return table


def _grids() -> Table:
    table = Table("name", "what", "rows", "seeds", title="grid", title_justify="left", show_lines=True)
    for name, make in recipes.GRIDS.items():
        made = make()
        about = make.func if isinstance(make, partial) else make
        table.add_row(name, Text(_summary(about)), str(len(made.rows)), str(len(made.seeds)))
    return table


def _engines() -> Table:
    table = Table("name", "what", "options", title="engine", title_justify="left", show_lines=True)
    for name in engines.names():
        lines = [_described(key, o.default, o.range) for key, o in signature(engines.load(name)).items()]
        table.add_row(name, Text(_summary(engines.load(name))), Text("\n".join(lines)))
    return table


def _loggers() -> Table:
    table = Table("name", "what", "extra", title="logger", title_justify="left", show_lines=True)
    for name in loggers.names():
        kind = find(name)
        there = "" if installed(kind) else ", not installed"
        table.add_row(name, Text(_summary(kind)), Text(f"msam[{kind.extra}]{there}"))
    return table


def _probes() -> Table:
    table = Table("name", "what", "when", title="probe", title_justify="left", show_lines=True)
    when = {"epoch": "before the first epoch and after every one", "end": "once, of the last weights"}
    for name, probe in PROBES.items():
        table.add_row(name, Text(_summary(inspect.getmodule(probe.measure))), when[probe.when])
    return table


def _summary(part: Any) -> str:
    return (inspect.getdoc(part) or "").split("\n\n")[0].replace("\n", " ")


def _in_the_catalogue(name: str) -> str:
    """Return what the catalogue says of a method, a line for each point."""
    found = catalogue.entry(name)
    shown = ("paper", "family", "changes", "heads", "passes", "fusions", "modalities", "variants")
    lines = [f"{key}: {value}" for key in shown if (value := getattr(found, key))]
    return "\n".join([found.what, *lines])


def _described(key: str, default: Any, allowed: checks.Range | None) -> str:
    return f"{key} {limits(default, allowed)}"
