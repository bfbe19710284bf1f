"""What is seen while a diagnosis runs: its cost before it begins, then a bar for each part."""

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from msam.diagnosis.cost import Cost

Item = TypeVar("Item")


class Shown:
    """Bars on the standard error, one line of cost where that is no terminal; nothing where nobody wants to see it."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def over(self, items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
        """Yield items and show how many are done."""
        if self._progress is None:
            yield from items
            return
        task = self._progress.add_task(what, total=total or (len(items) if isinstance(items, Sized) else None))
        for item in items:
            yield item
            self._progress.advance(task)
        self._progress.remove_task(task)


@contextmanager
def shown(cost: Cost, wanted: bool) -> Iterator[Shown]:
    """Say what it costs, and show bars inside the block."""
    if not wanted:
        yield Shown(None)
        return
    console = Console(stderr=True)
    console.print(f"[bold]Diagnosis[/]: {cost}", highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Shown(progress)
