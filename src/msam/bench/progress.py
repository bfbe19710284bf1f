"""The progress of a grid, read off its folder: so it is the same for every engine, and for cells of other processes."""

import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from msam.bench.cells import WORK
from msam.train.trainer import RECORD

LOOK = 1.0
"""Seconds between looks at the folder."""


class Board:
    """Shows how far a grid is, in epochs of all its cells, with the time left.

    Arguments:
        epochs: of every cell, by name.
        recorded: names of those that have a record.
        folder: of the records.
        quiet: show nothing.
        console: where to draw; one that is no terminal gets a line at the end.
    """

    def __init__(
        self,
        epochs: Mapping[str, int],
        recorded: Iterable[str],
        folder: Path,
        quiet: bool = False,
        console: Console | None = None,
    ) -> None:
        self._epochs, self._recorded, self._folder, self._quiet = dict(epochs), set(recorded), folder, quiet
        self._console = console or Console(stderr=True)
        self._before, self._began = len(self._recorded), time.monotonic()
        self._over = threading.Event()
        self._progress: Progress | None = None
        self._waiting = ""

    def done(self, names: Iterable[str]) -> None:
        """Take note of cells that have a record now."""
        self._recorded |= set(names) & set(self._epochs)
        self._waiting = ""

    def waits_for(self, names: list[str]) -> None:
        """Say that all that is left is being trained by other processes."""
        self._waiting = f"waiting for {len(names)} cells of another process"

    def __enter__(self) -> "Board":
        if self._console.is_terminal and not self._quiet and len(self._recorded) < len(self._epochs):
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
                transient=True,
            )
            self._task = self._progress.add_task("", total=sum(self._epochs.values()), completed=self.far(), note="")
            self._progress.start()
            self._looker = threading.Thread(target=self._keep_looking, daemon=True)
            self._looker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._progress:
            self._looker.join()
            self._progress.stop()
        if not self._quiet:
            new, seconds = len(self._recorded) - self._before, time.monotonic() - self._began
            cells = f"{len(self._recorded)} of {len(self._epochs)} cells recorded"
            line = f"{self._folder}: {cells}, {new} of them now, in {_clock(seconds)}"
            self._console.print(Text(line), soft_wrap=True)

    def look(self) -> None:
        """Draw how far the grid is."""
        if self._progress:
            cells = f"{len(self._recorded)} of {len(self._epochs)} cells"
            self._progress.update(self._task, description=cells, completed=self.far(), note=self._waiting)

    def far(self) -> int:
        """Return how many epochs are done, those of cells under way among them."""
        under_way = set(self._epochs) - self._recorded
        return sum(self._epochs[name] for name in self._recorded) + sum(map(self._epochs_of, under_way))

    def _keep_looking(self) -> None:
        while not self._over.wait(LOOK):
            self.look()

    def _epochs_of(self, name: str) -> int:
        try:
            lines = (self._folder / WORK / name / RECORD).read_bytes().count(b'{"kind":"epoch"')
        except OSError:
            return 0
        return min(lines, self._epochs[name])


def _clock(seconds: float) -> str:
    """
    >>> _clock(3723)
    '1 h 02 min'
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
