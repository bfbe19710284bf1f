"""Read a record along while it is written: loggers that never hold a run up, and never end one."""

import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from msam.loggers._base import Logger
from msam.loggers._find import load_all
from msam.loggers._scalars import Line
from msam.loggers._session import Session

LOOK = 1.0
"""Seconds between looks at the record."""

PATIENCE = 60.0
"""Seconds that loggers are given to come to the end when the run is over."""


class Follower:
    """Gives the lines of a record to loggers while it is written, to each in a thread of its own.

    The file is the queue: the run only says how far it is written, and a slow logger, or one that waits for its server,
    falls behind at nobody's cost. One that fails is named once and left; `replay` logs the rest afterwards, and lines that
    were logged are not logged again, by a resumed run neither. Serves one run, as a context manager around it.

    Arguments:
        names: of loggers, as `load` takes them.
        out: folder with a folder for each logger.
        with_test: log measures on the test split too.
        say: hears of what went wrong; by default it becomes a warning.

    Raises:
        ValueError: if there is no such logger or its package is not installed.
    """

    def __init__(
        self,
        names: Sequence[str],
        out: str | os.PathLike[str],
        *,
        with_test: bool = False,
        say: Callable[[str], None] = lambda message: warnings.warn(message, stacklevel=2),
    ) -> None:
        self._kinds, self._out, self._with_test, self._say = load_all(names), Path(out), with_test, say
        self._over = threading.Event()
        self._position = 0
        self._threads: dict[str, threading.Thread] = {}
        self._failed: dict[str, str] = {}
        self._path: Path | None = None

    @property
    def heard(self) -> bool:
        """Whether a record was opened: none is for a run that had finished before."""
        return self._path is not None

    def opened(self, path: Path, position: int) -> None:
        """Begin to read."""
        assert self._path is None, "a follower serves one run"
        self._path, self._position = path, position
        for name, kind in self._kinds.items():
            self._threads[name] = threading.Thread(target=self._follow, args=(name, kind), name=name, daemon=True)
            self._threads[name].start()

    def written(self, position: int) -> None:
        """Take note of how far the record is written."""
        self._position = position
        self._tell()

    def closed(self) -> None:
        """Take note that no more lines will come."""
        self._over.set()

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        until = time.monotonic() + PATIENCE
        for name, thread in self._threads.items():
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                self._failed.setdefault(name, f"not done {PATIENCE:g} seconds after the run")
        self._tell()

    def _follow(self, name: str, kind: type[Logger]) -> None:
        assert self._path is not None
        try:
            session = Session(kind, self._out / name, with_test=self._with_test)
            try:
                with open(self._path, "rb") as file:
                    self._read(file.read, session)
            finally:
                session.close()
        except Exception as error:
            self._failed[name] = f"{error or type(error).__name__}"

    def _read(self, read: Callable[[int], bytes], session: Session) -> None:
        position, over = 0, False
        while not over:
            over = self._over.wait(LOOK)
            end = self._position
            session.take(_parsed(read(end - position)))
            position = end

    def _tell(self) -> None:
        for name in tuple(self._failed):
            reason = self._failed.pop(name)
            self._say(
                f"Logger {name} has failed: {reason.rstrip('.')}. The run is not affected; `msam log {self._path} --to "
                f"{name} --out {self._out}` logs the rest."
            )


def _parsed(whole: bytes) -> Iterator[Line]:
    for line in whole.splitlines():
        yield json.loads(line)
