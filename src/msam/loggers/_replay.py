"""Log records afterwards: of one run or of thousands, what is there already left out."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msam import record
from msam.loggers._base import Logger
from msam.loggers._find import load_all
from msam.loggers._session import Session

GIVE_UP = 3
"""Failures of a tool in a row after which its other records are not tried."""


@dataclass(frozen=True)
class Replayed:
    """What one logger was given.

    Attributes:
        logged: runs of which there was something new.
        there: runs that were logged already.
        look: how to look at them, or an empty text.
    """

    logged: int
    there: int
    look: str


def replay(
    *paths: str | os.PathLike[str],
    to: Sequence[str],
    out: str | os.PathLike[str],
    with_test: bool = False,
    quiet: bool = False,
) -> dict[str, Replayed]:
    """Log the records under files and folders; lines that are logged already are not logged again.

    What is logged equals what is logged while a run trains. A run that has not finished is logged as far as it is, and the
    rest when it is there.

    Arguments:
        paths: records (`*.jsonl`, `*.jsonl.gz`) or folders that hold some.
        to: names of loggers, as `load` takes them.
        out: folder with a folder for each logger.
        with_test: log measures on the test split too.
        quiet: show no progress.

    Returns:
        What was done, by logger.

    Raises:
        FileNotFoundError: if a path does not exist or holds no record.
        ValueError: if there is no such logger, its package is not installed, or some records could not be logged; those
            are named, and all others logged.
    """
    kinds, files = load_all(to), record.files(*paths)
    done, failed = {}, list[str]()
    with _progress(len(kinds) * len(files), quiet) as advance:
        for name, kind in kinds.items():
            done[name], reasons = _replayed(files, kind, Path(out) / name, with_test, advance)
            failed += [f"  to {name}, {reason}" for reason in reasons]
    if failed:
        raise ValueError("\n".join(["These records could not be logged; all others are:", *failed]))
    return done


def _replayed(
    files: Sequence[Path], kind: type[Logger], folder: Path, with_test: bool, advance: Callable[[], None]
) -> tuple[Replayed, list[str]]:
    """Log records with one logger; return what was done, and which were not logged and why."""
    logged, in_a_row, failed = 0, 0, list[str]()
    for number, file in enumerate(files):
        try:
            logged += _one(file, kind, folder, with_test)
            in_a_row = 0
        except (ValueError, OSError) as error:
            failed.append(f"{file}: {error}")
        except Exception as error:  # whatever a tool raises of its own
            failed.append(f"{file}: {error or type(error).__name__}")
            in_a_row += 1
        advance()
        if in_a_row == GIVE_UP:
            failed.append(f"{len(files) - number - 1} more: not tried, as the last {GIVE_UP} failed")
            break
    return Replayed(logged, len(files) - logged - len(failed), kind.look(folder)), failed


def _one(file: Path, kind: type[Logger], folder: Path, with_test: bool) -> bool:
    """Log one record; return whether anything of it was new."""
    session = Session(kind, folder, with_test=with_test)
    try:
        session.take(list(record.lines(file)))  # all of them first: a damaged record is not logged by half
    finally:
        session.close()
    return session.logged > 0


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """Show how many records are done; yield what is called after each."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as progress:
        task = progress.add_task("records", total=total)
        yield lambda: progress.advance(task)
