"""Work spread over processes, its results in the order of the work."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")

WAITING = 4
"""Pieces of work under way for each process: enough to keep it busy, few enough to hold their results in memory."""


def cores() -> int:
    """Return the number of cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def mapped(task: Callable[[Work], Result], works: Sequence[Work], workers: int) -> Generator[Result, None, None]:
    """Yield `task(work)` for every work, in order.

    Arguments:
        task: a function that pickles (of a module, or a partial of one).
        works: what it is called with.
        workers: processes; 0: one for each core; 1: none, the work is done here.

    Raises:
        ChildProcessError: if a process died.

    >>> list(mapped(abs, [-1, 2, -3], workers=1))
    [1, 2, 3]
    """
    workers = min(workers or cores(), len(works))
    if workers <= 1:
        yield from map(task, works)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
    coming: deque[Future[Result]] = deque()
    try:
        for work in works:
            coming.append(pool.submit(task, work))
            if len(coming) >= WAITING * workers:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "A worker process died: killed from outside, out of memory, or crashed by a file. Take fewer --workers, or "
            "--workers 1 to see it happen in the main process."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """Set up a worker: one thread, no interest in Ctrl-C, and an end when its parent ends."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()


def _leave_with_the_parent() -> None:
    """A worker holds both ends of its own queue, so that it would wait for ever after a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
