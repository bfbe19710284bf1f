"""An engine for the tests: tasks one after the other, in this process."""

from collections.abc import Iterator
from dataclasses import dataclass

from msam.bench.engines import Engine


@dataclass(frozen=True)
class Inline(Engine):
    def map(self, function, tasks) -> Iterator:
        yield from ((position, function(task)) for position, task in enumerate(tasks))
