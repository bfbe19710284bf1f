"""Who watches a run: anyone who listens, or a progress bar with live metrics."""

from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from msam import selection


class Watcher(Protocol):
    """Whoever wants to see a run go by."""

    def started(self, name: str, steps: int, done: int) -> None:
        """A run of `steps` steps begins, `done` of them already behind it."""

    def stepped(self, loss: float, share: float | None) -> None:
        """One step is done."""

    def measured(self, line: Mapping[str, Any]) -> None:
        """An epoch is done; `line` is its line in the record."""

    def finished(self) -> None:
        """The run is over, well or not."""


class Bar:
    """Shows one run at a time: steps, loss, share of the dominant modality, validation accuracy (R² of a regression, in %).

    Arguments:
        console: where to draw; a console that is no terminal gets one line per run instead.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._progress: Progress | None = None
        self._shown: dict[str, str] = {}
        self._steps = 0
        self._name = ""

    def started(self, name: str, steps: int, done: int) -> None:
        """Begin a bar."""
        self._name, self._steps, self._shown = name, steps, {}
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[shown]}"),
                console=self.console,
                transient=True,
            )
            self._progress.start()
            self._task = self._progress.add_task(name, total=steps, completed=done, shown="")

    def stepped(self, loss: float, share: float | None) -> None:
        """Advance by one step."""
        self._shown["loss"] = f"{loss:.3f}"
        if share is not None:
            self._shown["share"] = f"{share:.2f}"
        if self._progress:
            self._progress.update(self._task, advance=1, shown=self._text())

    def measured(self, line: Mapping[str, Any]) -> None:
        """Show the epoch's validation accuracy or R²."""
        self._shown["epoch"] = str(line["epoch"])
        word = "R² " if "r2" in line["valid"] else ""
        self._shown["valid"] = f"{word}{100 * selection.score(line['valid']):.1f} %"

    def finished(self) -> None:
        """Close the bar and leave one line behind."""
        if self._progress:
            self._progress.stop()
            self._progress = None
        self.console.print(f"[bold]{self._name}[/]  {self._text()}", highlight=False, soft_wrap=True)

    def _text(self) -> str:
        return "  ".join(f"{key} {value}" for key, value in self._shown.items())
