"""Run cells: what is recorded is skipped, what is missing is trained, and what was killed goes on where it stopped."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from msam import record
from msam.bench import engines
from msam.bench._datasets import kept
from msam.bench.cells import WORK, Outcome, filed, free, train_cells
from msam.bench.engines import Engine, Lost
from msam.bench.progress import Board
from msam.record import Record
from msam.train import RunConfig
from msam.train.checkpoint import differing
from msam.train.config import KINDS
from msam.train.config import config as checked
from msam.train.loop import same_data

PATIENCE = 2.0
"""Seconds between looks at cells that another process is training."""


class Failed(ValueError):
    """Cells that could not be run; the message names each and why. All others are recorded."""


def run(
    configs: Sequence[RunConfig],
    folder: str | Path,
    *,
    engine: Engine | None = None,
    keep_weights: bool = False,
    stacked: bool = False,
    quiet: bool = False,
) -> list[Record]:
    """Train the cells that have no record yet; return all records in the order of `configs`.

    A finished cell is one small file, `folder/NAME.jsonl.gz`; one under way is a folder `folder/.work/NAME` that a killed
    run goes on from. Several processes, on several machines with the same file system, may run the same cells: each takes
    what no other is training.

    Arguments:
        configs: the cells; equal ones are run once.
        folder: of the records, made if it does not exist.
        engine: runs the tasks; the CPUs of this machine if None.
        keep_weights: keep each cell's checkpoint as `folder/NAME/checkpoint.pt`.
        stacked: train cells that differ in nothing but seeds together where that is worth it (`msam.bench.stack`).
        quiet: show no progress.

    Raises:
        Failed: naming the cells that failed and why, after all others are done. A run that diverged has not failed: its
            record says so.
        ValueError: if a record in the folder is not of the configuration its name says, or of other data; for cells that
            differ in nothing but where their data lie.
    """
    folder = Path(folder)
    wanted = _by_name(configs)
    found = {name: _recorded(folder, config) for name, config in wanted.items() if filed(folder, name).exists()}
    missing = {name: config for name, config in wanted.items() if name not in found}
    with Board({name: config.epochs for name, config in wanted.items()}, set(found), folder, quiet) as board:
        work = partial(train_cells, folder=folder, keep_weights=keep_weights)
        _train(missing, partial(_results, engine or engines.load("local")(), work, stacked), folder, board)
    with suppress(OSError):
        (folder / WORK).rmdir()  # stays while another process has cells under way
    found |= {name: _recorded(folder, config) for name, config in wanted.items() if name not in found}
    return [found[config.run_name()] for config in configs]


def _train(
    missing: dict[str, RunConfig], results: Callable[[list[RunConfig]], Iterator[Outcome]], folder: Path, board: Board
) -> None:
    failed: dict[str, str] = {}
    while missing:
        elsewhere: list[str] = []
        for outcome in results(list(missing.values())):
            if outcome.full:
                raise Failed(
                    f"{outcome.full} Cells that are done are recorded in {folder}; make room and give the same command "
                    "again."
                )
            failed |= outcome.failed
            elsewhere += outcome.elsewhere
            for name in (*outcome.filed, *outcome.failed):
                missing.pop(name, None)
            board.done(outcome.filed)
        if elsewhere:
            board.waits_for(elsewhere)
            while not any(free(folder, name) for name in elsewhere):
                time.sleep(PATIENCE)
    if failed:
        lines = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
        raise Failed(f"{len(failed)} of the cells failed, all others are recorded in {folder}:\n{lines}")


def _results(
    engine: Engine, work: Callable[[Sequence[RunConfig]], Outcome], stacked: bool, missing: list[RunConfig]
) -> Iterator[Outcome]:
    """Have an engine do the cells, alone or in stacks; a task that was lost counts as failed."""
    tasks = [[config] for config in missing]
    if stacked:
        from msam.bench.stack import groups

        tasks = groups(missing)
    for position, outcome in engine.map(work, tasks):
        if isinstance(outcome, Lost):
            yield Outcome(failed={config.run_name(): outcome.reason for config in tasks[position]})
        else:
            yield outcome


def _by_name(configs: Sequence[RunConfig]) -> dict[str, RunConfig]:
    wanted: dict[str, RunConfig] = {}
    for config in configs:
        same = wanted.setdefault(config.run_name(), config)
        if same.data != config.data:
            lines = differing(same.data, config.data)
            raise ValueError(
                f"Two cells are called {config.run_name()}, with data in two places ({'; '.join(lines)}): where data lie "
                "is no part of the name. Give each its own grid and folder."
            )
    return wanted


def _recorded(folder: Path, config: RunConfig) -> Record:
    """Return the record of a cell, after a look at whether it is one."""
    path = filed(folder, config.run_name())
    found = record.read(path)
    try:
        lines = differing(config.decisive(), checked(found.config).decisive())
    except ValueError as error:
        raise ValueError(
            f"The configuration in {path} is none of this version: {error} Move it away to have the cell run anew."
        ) from error
    if lines:
        raise ValueError(
            f"{path} is of another configuration (asked for != found): {'; '.join(lines)}. It was renamed or made by "
            "another version; move it away to have the cell run anew."
        )
    if any(found.config["data"].get(place) != config.data.get(place) for place in KINDS["data"].places):
        same_data(found, kept(config), path)
    return found
