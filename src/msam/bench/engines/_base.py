"""What an engine is: one `map`, on one machine or on many."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from msam import checks

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Lost:
    """Stands for the result of a task whose worker died more often than is worth another attempt.

    Arguments:
        reason: how often, and what is known of why.
    """

    reason: str


@dataclass(frozen=True)
class Engine(ABC):
    """Where tasks run. Engines are frozen dataclasses, one per file; their fields are their options and their flags.

    Raises:
        ValueError: on construction, if an option is out of its range.
    """

    def __post_init__(self) -> None:
        checks.arguments_in_range(type(self), {f.name: getattr(self, f.name) for f in fields(self)})

    @abstractmethod
    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result | Lost]]:
        """Yield `(position, function(tasks[position]))` for every task, in the order in which they finish.

        A worker that is killed, or whose machine goes away, costs nobody but the task it was at: that one is begun again,
        elsewhere if need be, and becomes `Lost` when its workers have died once more than there are retries. A task may so
        be begun twice, never in two places at once. Closing the iterator, or Ctrl-C, ends the tasks under way.

        Arguments:
            function: picklable. What it raises ends the map and is raised here: a task that may fail says so in its result.
            tasks: picklable, like the results.

        Raises:
            ValueError: if the engine is not there: its package, its cluster.
        """


def lost(deaths: int, last: str) -> Lost:
    """Return the `Lost` of a task whose worker died so often.

    >>> lost(2, "killed by SIGKILL").reason
    'its worker died 2 times, at last: killed by SIGKILL'
    """
    return Lost(f"its worker died {deaths} time{'s' * (deaths != 1)}, at last: {last}")


def on_threads(threads: int) -> dict[str, str]:
    """Return the environment that keeps a process, and the libraries of numbers in it, to so many threads.

    >>> on_threads(2)["OMP_NUM_THREADS"]
    '2'
    """
    libraries = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")
    return {f"{library}_NUM_THREADS": str(threads) for library in libraries}
