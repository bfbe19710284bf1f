"""Tune every row of a comparison with the same budget; validation decides, no test number is looked at."""

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, Protocol

import torch
from rich.console import Console
from rich.text import Text

import msam
from msam import selection
from msam.bench._chosen import Chosen, Trial, best, chosen, edges, place, read, write
from msam.bench._plans import Plan, Row, plans, seeds_apart, tuning_seeds
from msam.bench._spaces import Spaces, space
from msam.bench.engines import Engine
from msam.bench.execute import run
from msam.record import Record
from msam.train import RunConfig

__all__ = ["Chosen", "Plan", "Trial", "chosen", "seeds_apart", "space", "tune", "tuning_seeds"]

Sampler = Literal["sobol", "random", "tpe"]


class Runner(Protocol):
    """What trains cells: `msam.bench.execute.run`."""

    def __call__(
        self, configs: Sequence[RunConfig], folder: Path, /, *, engine: Engine | None, stacked: bool, quiet: bool
    ) -> list[Record]:
        """Return the records of the cells, in their order."""


def tune(
    rows: Mapping[str, Mapping[str, Any]],
    folder: str | Path,
    *,
    trials: int = 12,
    seeds: int | Sequence[int] = 3,
    sampler: Sampler = "sobol",
    spaces: Spaces | None = None,
    engine: Engine | None = None,
    stacked: bool = False,
    quiet: bool = False,
    runner: Runner = run,
) -> dict[str, Chosen]:
    """Try settings of every row, and choose the one with the best validation accuracy.

    Every row gets the same number of trials, each run with the same seeds for the same epochs. The first trial is the row
    as it is, so that no row comes out worse on validation than it went in. The value of a trial is the mean over seeds of
    the best validation accuracy over epochs (`msam.selection`), R² of a regression, 0 where it is below; a run that
    diverged counts as 0. Of equal trials the one with the lower validation NLL is chosen, then the earlier one.

    What was asked lies in `folder/journal.log`, the records of the trials in `folder/trials`, each choice in
    `folder/chosen/ROW.json`. A tuning that was killed goes on with the same call, to the same choice; a row that has been
    chosen is returned as it is.

    Arguments:
        rows: settings by name; what of them is tuned begins at the row's own value. A row's key `search` holds spaces of
            its own, None for what stays as it is: `{"method": "ogm_ge", "search": {"optimizer.lr": None}}`.
        folder: of all of it, made if it does not exist.
        trials: of each row, >= 1.
        seeds: of the runs of every trial, how many (1000, 1001, ...), or which; keep them apart from those that are
            reported (`seeds_apart`).
        sampler: "sobol" (points that fill the space), "random", or "tpe" (later trials look near the good ones).
        spaces: by key, in place of the declared ones for every row that has the key; None for what no row tunes.
        engine: runs the cells; the CPUs of this machine if None.
        stacked: train cells that differ in nothing but seeds together where that is worth it.
        quiet: show neither progress nor what was chosen.
        runner: trains the cells, `msam.bench.execute.run`.

    Raises:
        ValueError: for an unknown key, a row with nothing to tune, a row that begins outside of its space, rows of
            different epochs, no or equal seeds; if the folder holds a tuning of another plan, or another process is at it;
            naming the cells that failed, after all others are recorded.
    """
    folder = Path(folder)
    seeds = tuning_seeds(seeds) if isinstance(seeds, int) else seeds
    asked = plans(rows, trials=trials, seeds=seeds, sampler=sampler, spaces=spaces or {})
    found = {row.name: _known(row, folder) for row in asked}
    missing = [row for row in asked if found[row.name] is None]
    if missing:
        _tune(missing, folder, partial(runner, engine=engine, stacked=stacked, quiet=quiet))
    made = {row.name: found[row.name] or read(place(folder, row.name)) for row in asked}
    if not quiet:
        for choice in made.values():
            Console(stderr=True).print(Text(choice.describe()), soft_wrap=True)
    return made


def _known(row: Row, folder: Path) -> Chosen | None:
    """Return what was chosen of a row before; None where nothing was."""
    path = place(folder, row.name)
    if not path.exists():
        return None
    found = read(path)
    row.plan.check_same(found.plan, str(path))
    return found


def _tune(rows: Sequence[Row], folder: Path, train: Callable[[list[RunConfig], Path], list[Record]]) -> None:
    from msam.bench import _studies

    tried: dict[str, list[Trial]] = {row.name: [] for row in rows}
    with _studies.storage(folder, list(tried)) as storage:
        studies = {row.name: _studies.Study(storage, row) for row in rows}
        for first, count in rows[0].plan.rounds:
            asked = [(row, values) for row in rows for values in studies[row.name].ask(first, count)]
            cells = [row.cells(values) for row, values in asked]
            records = iter(train([cell for trial in cells for cell in trial], folder / "trials"))
            for (row, values), trial in zip(asked, cells, strict=True):
                found = _trial(values, [next(records) for _ in trial])
                studies[row.name].tell(len(tried[row.name]), found.accuracy)
                tried[row.name].append(found)
        for row in rows:
            write(_choice(row, tried[row.name], _studies.VERSION), place(folder, row.name))


def _choice(row: Row, tried: Sequence[Trial], optuna: str) -> Chosen:
    k = best(tried)
    at = edges(tried[k].values, row.plan.space, row.ranges)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "msam": msam.__version__}
    return Chosen(row.name, row.at(tried[k].values), k, at, tuple(tried), row.plan, {**versions, "optuna": optuna})


def _trial(values: Mapping[str, Any], records: Sequence[Record]) -> Trial:
    """Return what the runs of a trial come to; nothing but their validation metrics is read."""
    measured = [_best_epoch(record) for record in records]
    accuracies = tuple(accuracy for accuracy, _ in measured)
    losses = [nll for _, nll in measured if nll is not None]
    nll = fmean(losses) if len(losses) == len(measured) else None
    return Trial(dict(values), fmean(accuracies), nll, accuracies, tuple(r.header["run"] for r in records))


def _best_epoch(record: Record) -> tuple[float, float | None]:
    """Return validation accuracy and NLL of the selected epoch; of a run that diverged, 0 and None.

    Of a regression it is R², and 0 where it is below: no better than the mean.
    """
    assert record.end is not None
    valid = [epoch["valid"] for epoch in selection.without_auxiliary(record).epochs]
    if record.end["status"] != "finished" or not valid:
        return 0.0, None
    metrics = valid[selection.load("best_validation").choose(valid)]
    accuracy, nll = selection.score(metrics), metrics["nll"]
    return max(accuracy, 0.0) if math.isfinite(accuracy) else 0.0, nll if math.isfinite(nll) else None
