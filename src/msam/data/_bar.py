"""How far a preparation is: done of all, rate, time left."""

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Bar:
    """Shows one preparation on standard error; where that is no terminal, a line at its end.

    Arguments:
        name: of the dataset.
        total: number of its items.
    """

    def __init__(self, name: str, total: int) -> None:
        self.console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._progress.add_task(name, total=total, note="")
        self._name, self._failed = name, 0

    def checking(self, read: int, of: int) -> None:
        """So many items of an earlier preparation have been read back."""
        self._progress.update(self._task, completed=read, note=f"reading back {of} items of an earlier start")

    def begin(self, done: int, absent: Sequence[str]) -> None:
        """The work begins, `done` items behind it, and it is known already that sources of some are not there."""
        self._progress.reset(self._task, completed=done, note="")
        if done:
            self.told(f"going on after {done} items")
        if absent:
            self.told(f"sources of {len(absent)} items are not there, e.g. of {absent[0]}; looking at the others")

    def advance(self, failed: bool) -> None:
        """One item more is made, or has failed."""
        self._failed += failed
        self._progress.update(self._task, advance=1, note=f"{self._failed} failed" if self._failed else "")

    def told(self, message: str) -> None:
        """Print a line."""
        self.console.print(Text(f"{self._name}: {message}"), soft_wrap=True)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Return items a second."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} a second" if speed else "", style="progress.data.speed")
