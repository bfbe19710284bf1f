"""What a worker does with cells: train them, file their records, and say what became of each."""

import errno
import shutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from msam import record
from msam.bench._datasets import kept
from msam.train import RunConfig, train
from msam.train.trainer import CHECKPOINT, RECORD

WORK = ".work"
"""Folder, inside that of the records, of the cells that are under way."""


@dataclass(frozen=True)
class Outcome:
    """What became of the cells of a task.

    Attributes:
        filed: names of those that have a record now.
        elsewhere: names of those that another process is training.
        failed: reasons by name.
        full: what the system said when the disk was full, or "".
    """

    filed: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    full: str = ""


def filed(folder: str | Path, name: str) -> Path:
    """Return where the record of a finished cell lies."""
    return Path(folder) / f"{name}.jsonl.gz"


def free(folder: str | Path, name: str) -> bool:
    """Tell whether no other process is training a cell, be it done or given up."""
    with _claimed(Path(folder), [name]) as ours:
        return ours


def train_cells(configs: Sequence[RunConfig], *, folder: Path, keep_weights: bool) -> Outcome:
    """Train the cells of one task, one alone or several stacked, and file their records.

    It raises nothing that a cell may raise; the traceback of an error that is not the user's making lies in the cell's
    folder as `error.txt`.
    """
    names = tuple(config.run_name() for config in configs)
    with _claimed(folder, names) as ours:
        if not ours:
            return Outcome(elsewhere=names)
        missing = [config for config in configs if not filed(folder, config.run_name()).exists()]
        places = [folder / WORK / config.run_name() for config in missing]
        try:
            _train(missing, places)
            for place in places:
                _file(place, filed(folder, place.name), folder / place.name if keep_weights else None)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                return Outcome(full=str(error))
            return Outcome(failed=dict.fromkeys((place.name for place in places), _reason(error, places)))
    return Outcome(filed=names)


def _train(configs: Sequence[RunConfig], places: Sequence[Path]) -> None:
    """Train what has not ended; a run that diverges has ended."""
    if all(map(_ended, places)):
        return
    if len(configs) > 1:
        from msam.bench.stack import train_together

        train_together(configs, places)
        return
    (place,) = places
    if (place / RECORD).exists() and not (place / CHECKPOINT).exists():
        shutil.rmtree(place)  # what a stack left cannot be gone on with alone
    try:
        train(configs[0], place, resume=True, dataset=kept(configs[0]))
    except ValueError:
        if not _ended(place):
            raise


def _ended(place: Path) -> bool:
    try:
        return record.read(place / RECORD).end is not None
    except (FileNotFoundError, ValueError):  # not begun, killed before its header was written, or damaged
        return False


def _file(place: Path, target: Path, weights: Path | None) -> None:
    # Weights first: a cell that has its record is never looked at again.
    if weights is not None and (place / CHECKPOINT).exists():
        weights.mkdir(exist_ok=True)
        (place / CHECKPOINT).replace(weights / CHECKPOINT)
    record.file(place / RECORD, target)
    shutil.rmtree(place)


def _reason(error: Exception, places: Sequence[Path]) -> str:
    if isinstance(error, ValueError | OSError):
        return str(error)
    notes = places[0] / "error.txt"
    notes.parent.mkdir(parents=True, exist_ok=True)
    notes.write_text(traceback.format_exc())
    return f"{type(error).__name__}: {error} (see {notes})"


@contextmanager
def _claimed(folder: Path, names: Sequence[str]) -> Iterator[bool]:
    """Keep other processes from the cells inside the block; tell whether they are ours. A killed process keeps none."""
    import filelock

    (folder / WORK).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        locks = [filelock.FileLock(folder / WORK / f"{name}.lock", timeout=0) for name in sorted(names)]
        try:
            for lock in locks:
                stack.enter_context(lock)
        except filelock.Timeout:
            yield False
            return
        yield True
        for lock in locks:
            Path(lock.lock_file).unlink(missing_ok=True)
