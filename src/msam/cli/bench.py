"""`msam bench run` and `msam bench tune`: grids by name, on the engine of one's choice, whose options are flags."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Group, Parameter
from rich.console import Console
from rich.text import Text

from msam import bench, checks, recipes
from msam.bench import engines
from msam.bench import tune as tuning
from msam.bench.grid import Grid
from msam.cli._flags import flag, limits, token_type
from msam.train.checkpoint import differing
from msam.train.config import KINDS, signature

Set = Annotated[
    tuple[str, ...],
    Parameter(
        "--set", help="KEY=VALUE, laid over every row; may be given more than once", show_default=False, negative=()
    ),
]
ENGINE = Group("Engine", sort_key=2)
RUNS, TUNING = Path("runs"), Path("tuning")


def bench_app(tokens: Sequence[str]) -> App:
    """Make `msam bench` with the flags of the engine that `tokens` choose."""
    app = App(name="bench", help="Run a grid: many methods, many seeds, what is recorded is skipped.")
    engine = _chosen_engine(tokens) if tokens[:1] == ["bench"] else "local"
    for command in (run, tune):
        app.command(_with_engine(command, engine), name=command.__name__)
    return app


def run(
    recipe: str,
    /,
    *,
    engine: engines.Engine,
    seeds: int | None = None,
    set_: Set = (),
    out: Path | None = None,
    tuned: Path | None = None,
    stacked: bool = False,
    controls: bool = True,
    keep_weights: bool = False,
) -> None:
    """Run what is missing of a grid; the same command goes on after anything that stopped it.

    Parameters
    ----------
    recipe
        name of a grid (`msam list grids`), or my_lab.grids.mine: a function that returns one.
    seeds
        how many; by default as many as the recipe wants.
    out
        folder of the records; default runs/RECIPE, with --tuned runs/RECIPE-tuned.
    tuned
        folder of `msam bench tune`: what it chose is laid over each row.
    stacked
        train runs that differ in nothing but seeds together, where that is worth it.
    controls
        add the controls of rows with M-SAM.
    keep_weights
        keep the last weights of every run.
    """
    grid, over = _grid(recipe, seeds), _nested(set_)
    if tuned is not None:
        grid = _tuned(grid, tuned, over)
    grid = grid.with_settings(over)
    folder = out or RUNS / (recipe if tuned is None else f"{recipe}-tuned")
    for reason in grid.left_out:
        Console(stderr=True).print(Text(f"left out: {reason}"), soft_wrap=True)
    options: dict[str, Any] = {"engine": engine, "keep_weights": keep_weights, "stacked": stacked}
    records = bench.run(grid.cells(), folder, **options)
    more = bench.controls(grid, records).cells() if controls else []
    if more:
        bench.run(more, folder, **options)
    Console().print(Text(f"Records: {folder}   Look at them: msam report {folder}"), soft_wrap=True)


def tune(
    recipe: str,
    /,
    *,
    engine: engines.Engine,
    trials: int = 12,
    seeds: int = 3,
    set_: Set = (),
    sampler: Literal["sobol", "random", "tpe"] = "sobol",
    out: Path | None = None,
    stacked: bool = False,
) -> None:
    """Tune every row of a grid with the same budget; validation accuracy, or R² of numbers, decides.

    Parameters
    ----------
    recipe
        name of a grid, or my_lab.grids.mine.
    trials
        settings that each row tries; the first is the row as it is.
    seeds
        runs of each trial, with seeds 1000, 1001, ...; those of the grid must be others.
    sampler
        how settings are drawn from a row's space: sobol and random see no result, tpe looks near the good ones.
    out
        folder of trials and choices; default tuning/RECIPE.
    stacked
        train runs that differ in nothing but seeds together, where that is worth it.
    """
    checks.in_range("trials", trials, checks.Range(ge=1))
    checks.in_range("seeds", seeds, checks.Range(ge=1))
    grid, folder = _grid(recipe, None).with_settings(_nested(set_)), out or TUNING / recipe
    tuning.seeds_apart(tuning.tuning_seeds(seeds), grid.seeds)
    options: dict[str, Any] = {"engine": engine, "sampler": sampler, "stacked": stacked}
    tuning.tune(grid.rows, folder, trials=trials, seeds=seeds, **options)
    said = f"Chosen: {folder / 'chosen'}   Run it: msam bench run {recipe} --tuned {folder}"
    Console().print(Text(said), soft_wrap=True)


def _grid(recipe: str, seeds: int | None) -> Grid:
    make = recipes.load_grid(recipe)
    if seeds is not None:
        checks.in_range("seeds", seeds, checks.Range(ge=1))
        if not _takes_seeds(make):
            raise ValueError(f"`--seeds` is given but grid {recipe!r} has its own: its function takes no `seeds`.")
    found = make() if seeds is None else make(seeds=seeds)
    if not isinstance(found, Grid):
        raise ValueError(f"Grid {recipe!r} must return a msam.bench.Grid, returned {type(found).__name__}.")
    return found


def _tuned(grid: Grid, folder: Path, over: Mapping[str, Any]) -> Grid:
    """Return the grid with what a tuning chose; it was of these rows, as they are or with the same settings laid over.

    Raises:
        ValueError: if a seed served the tuning, a row was not tuned, or was another one when it was.
    """
    choices = tuning.chosen(folder)
    tuned = grid.tuned({name: choice.settings for name, choice in choices.items()})
    for name in grid.rows:
        choice = choices[name]
        tuning.seeds_apart(choice.plan.seeds, grid.seeds)
        now = [_begins(one.rows[name]) for one in (grid, grid.with_settings(over))]
        if choice.plan.begins not in now:
            lines = "; ".join(differing(now[0], choice.plan.begins))
            raise ValueError(
                f"Row {name!r} has changed since it was tuned in {folder} (now != then): {lines}. Tune it anew."
            )
    return tuned


def _begins(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as tuning remembers where it began."""
    chosen = bench.cell(row, 0).chosen()
    return {key: value for key, value in chosen.items() if key != "seed"}


def _takes_seeds(make: Callable[..., Any]) -> bool:
    known = inspect.signature(make).parameters.values()
    return any(p.name == "seeds" or p.kind is inspect.Parameter.VAR_KEYWORD for p in known)


def _nested(pairs: Sequence[str]) -> dict[str, Any]:
    """Return `KEY=VALUE` words as nested settings."""
    nested: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ValueError(f"`--set` must be KEY=VALUE, as in --set optimizer.lr=0.01, received {pair!r}.")
        part, _, option = key.partition(".")
        if option or part in KINDS:
            nested.setdefault(part, {})[option or "name"] = value
        else:
            nested[part] = value
    return nested


def _chosen_engine(tokens: Sequence[str]) -> str:
    """Find the engine's name in the tokens, before its flags are known."""
    finder = App(help_flags=[], version_flags=[])

    @finder.default
    def find(*rest: Annotated[str, Parameter(allow_leading_hyphen=True)], engine: str = "local") -> str:
        return engine

    name: str = finder(list(tokens[2:]), result_action="return_value", exit_on_error=False, print_error=False)
    return name


def _with_engine(command: Callable[..., None], name: str) -> Callable[..., None]:
    """Give a command the flags of an engine in place of the engine."""
    made = engines.load(name)
    options = signature(made)
    known = ", ".join([*engines.names(), "or a module of your own"])
    annotations: dict[str, Any] = {"engine": flag(str, "engine", f"one of {known} [default: local]", ENGINE)}
    for key, option in options.items():
        said = f"{option.help.rstrip('.')} {limits(option.default, option.range)}"
        annotations[f"engine__{key}"] = flag(token_type(option.type), f"engine.{key}", said, ENGINE)

    @functools.wraps(command)
    def wrapped(*arguments: Any, engine: str | None = None, **given: Any) -> None:
        own = {key: given.pop(f"engine__{key}", None) for key in options}
        command(*arguments, engine=made(**{k: v for k, v in own.items() if v is not None}), **given)

    plain = inspect.signature(command).parameters.values()
    more = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for key, hint in annotations.items()
    ]
    parameters = [*(p for p in plain if p.name != "engine"), *more]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped
