"""This machine: worker processes that are kept alive, from joblib's loky."""

import os
import re
import sys
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Annotated, Any

from msam.bench.engines._base import Engine, Lost, Result, Task, lost, on_threads
from msam.checks import Range

IDLE = 300
"""Seconds after which a worker with nothing to do leaves."""


@dataclass(frozen=True)
class Local(Engine):
    """Run tasks in processes of this machine.

    Every worker is a pool of one, so that a worker that dies takes no other along, and it is known what it was at. Workers
    stay for the next `map`: starting Python and torch costs more than a small run. They leave when they have been idle for
    five minutes or when this process ends, be it killed.

    Arguments:
        workers: processes, >= 0; 0 stands for the CPUs that this process may use.
        threads: CPU threads of each, >= 1.
        retries: how often a task is begun again whose worker died, >= 0.

    >>> from operator import neg
    >>> sorted(Local(workers=1).map(neg, [1, 2]))
    [(0, -1), (1, -2)]
    """

    workers: Annotated[int, Range(ge=0)] = 0
    threads: Annotated[int, Range(ge=1)] = 1
    retries: Annotated[int, Range(ge=0)] = 1

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result | Lost]]:
        """Yield results as they finish; see `Engine.map`."""
        loky = _loky()
        crew = _Crew(loky, self.threads)
        waiting = deque(range(len(tasks)))
        deaths: Counter[int] = Counter()
        running: dict[Future[Result], tuple[int, Any]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < (self.workers or loky.cpu_count()):
                    position = waiting.popleft()
                    future, worker = crew.submit(function, tasks[position])
                    running[future] = position, worker
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    position, worker = running.pop(future)
                    error = future.exception()
                    if not isinstance(error, loky.process_executor.TerminatedWorkerError):
                        crew.rest(worker)
                        yield position, future.result()
                        continue
                    worker.shutdown(kill_workers=True)
                    deaths[position] += 1
                    if deaths[position] > self.retries:
                        yield position, lost(deaths[position], _end(error))
                    else:
                        waiting.appendleft(position)
        finally:
            for _, worker in running.values():
                worker.shutdown(kill_workers=True)


class _Crew:
    """Workers, each a pool of one: those that rest are taken first."""

    resting: dict[Any, list[Any]] = {}  # noqa: RUF012 (shared on purpose: workers outlive a map)

    def __init__(self, loky: Any, threads: int) -> None:
        self.loky = loky
        self.threads = threads
        # A worker keeps the folder and the import path it was born with.
        self.kind = threads, os.getcwd(), tuple(sys.path)

        # loky lets a worker go that has grown by 300 MB and starts another: as it should be, and no news to anyone. Where
        # warnings are errors it would be one in loky's own thread, and its tasks would never end.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)

    def submit(self, function: Callable[[Task], Result], task: Task) -> tuple["Future[Result]", Any]:
        """Start a task; return its future and the worker that has it."""
        rested = self.resting.get(self.kind, [])
        while rested:
            worker = rested.pop()
            try:
                return worker.submit(function, task), worker
            except self.loky.process_executor.BrokenProcessPool:  # died while it rested
                worker.shutdown(kill_workers=True)
        worker = self.loky.ProcessPoolExecutor(
            max_workers=1,
            timeout=IDLE,
            env=on_threads(self.threads),
            initializer=_end_with,
            initargs=(os.getpid(),),
        )
        return worker.submit(function, task), worker

    def rest(self, worker: Any) -> None:
        """Keep a worker that has done its task."""
        self.resting.setdefault(self.kind, []).append(worker)


def _loky() -> Any:
    try:
        from joblib.externals import loky
    except ImportError as error:
        raise ValueError("The local engine needs joblib: pip install 'msam[bench]'.") from error
    return loky


def _end_with(parent: int) -> None:
    """Let this process end when its parent has gone, lest an orphan go on writing what a new run writes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _end(error: BaseException) -> str:
    """Return how a worker ended, from loky's long message.

    >>> _end(RuntimeError("The exit codes of the workers are {SIGKILL(-9)}"))
    'SIGKILL(-9), as a process ends that took more memory than there is'
    """
    found = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
    code = found[1] if found else "unknown exit code"
    return code + ", as a process ends that took more memory than there is" * ("SIGKILL" in code)
