"""Functions that engines are given: they note in a folder every time they are begun."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple


class Noted(NamedTuple):
    """A task: its name, the folder that its beginnings are noted in, how many of these are its worker's last, and how.

    It takes so many seconds, and lasts until there is a file `awaits` in the folder.
    """

    name: str
    folder: str
    dies: int = 0
    how: str = "exit"
    seconds: float = 0.0
    awaits: str = ""


def do(task: Noted) -> str:
    """Return the task's name, unless this beginning is among those that its worker does not survive."""
    folder = Path(task.folder)
    before = len(beginnings(folder, task.name))
    (folder / f"{task.name}.{before}.{os.getpid()}").touch()
    if before < task.dies:
        if task.how == "exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(task.seconds)
    while task.awaits and not (folder / task.awaits).exists():
        time.sleep(0.05)
    return task.name.upper()


def beginnings(folder: Path, name: str) -> list[str]:
    """Return the process ids of the times a task was begun."""
    return [path.name.rsplit(".", 1)[1] for path in sorted(folder.glob(f"{name}.*"))]


def fails(word: str) -> None:
    """Raise what a function should have caught."""
    raise KeyError(word)


def threads_and_folder(_: int) -> tuple[int, str]:
    """Return the threads that torch takes, and the folder that relative paths start from."""
    import torch

    return torch.get_num_threads(), os.getcwd()


def process(_: int) -> int:
    """Return the process id."""
    return os.getpid()


def kill(process: int) -> None:
    """End a process, as the system does that has run out of memory."""
    os.kill(process, signal.SIGKILL)


def grow(megabytes: int) -> int:
    """Take memory and never give it back; return the process id."""
    sys.__dict__.setdefault("kept", []).append(bytearray(os.urandom(1024)) * (1024 * megabytes))
    time.sleep(1.1)  # loky looks once a second
    return os.getpid()
