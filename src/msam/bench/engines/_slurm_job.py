"""What a SLURM job does on its machine: some tasks one after the other, a file for each."""

import os
import pickle
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """Tasks of one SLURM job. Called, it does those that have no result yet, and notes each before it begins it.

    Arguments:
        folder: on the file system that all machines share; it gets `POSITION.begun` and `POSITION.result`.
        positions: of the tasks in the map.
        work: the function and the tasks, pickled by value where they are of no module.
        path: the import path of the process that asked for the map.
    """

    folder: Path
    positions: tuple[int, ...]
    work: bytes
    path: tuple[str, ...]

    def __call__(self) -> None:
        """Do the tasks.

        SLURM's signals end the process at once: what a task has done is in its checkpoints, and a Python handler would
        raise in the midst of it.
        """
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        sys.path.extend(entry for entry in self.path if entry not in sys.path)
        function, tasks = pickle.loads(self.work)
        for position, task in zip(self.positions, tasks, strict=True):
            if result_of(self.folder, position).exists():
                continue
            begun(self.folder, position).touch()
            try:
                found: tuple[str, Any] = "returned", function(task)
            except Exception as error:
                found = "raised", error
            write(result_of(self.folder, position), found)


def begun(folder: Path, position: int) -> Path:
    """Return the file that says that a task was begun."""
    return folder / f"{position}.begun"


def result_of(folder: Path, position: int) -> Path:
    """Return the file that holds a task's result."""
    return folder / f"{position}.result"


def write(path: Path, found: tuple[str, Any]) -> None:
    """Write what became of a task, whole or not at all; an exception that cannot be pickled goes as its text."""
    import cloudpickle

    try:
        content = cloudpickle.dumps(found)
    except Exception as error:
        word = f"{found[1]!r}" if found[0] == "raised" else f"the result of a task cannot be pickled: {error}"
        content = pickle.dumps(("raised", RuntimeError(word)))
    begin = path.with_suffix(f".{os.getpid()}")
    begin.write_bytes(content)
    os.replace(begin, path)


def read(path: Path) -> Any:
    """Return a task's result, or raise what it raised."""
    how, value = pickle.loads(path.read_bytes())
    if how == "raised":
        raise value
    return value
