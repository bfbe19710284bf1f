"""How many lines of each run are logged already: one small file per run, held by one process at a time."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from msam._files import write_whole
from msam.loggers._scalars import RunInfo

FOLDER = ".logged"


@dataclass
class Entry:
    """What is known of a run in a logger's folder.

    Attributes:
        started: when the run started, as its header says: tells runs of one name apart.
        with_test: whether test measures are logged.
        lines: lines of the record that are logged.
        memory: what the logger remembers.
    """

    started: str
    with_test: bool
    lines: int = 0
    memory: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """The entry of one run, which this object alone may change until it is closed.

    Arguments:
        folder: of the logger.
        run: whose entry it is.
        with_test: whether test measures are to be logged.

    Raises:
        ValueError: if another process is logging the run, or if test measures are logged and not wanted, or the reverse.
    """

    def __init__(self, folder: Path, run: RunInfo, with_test: bool) -> None:
        self._folder = folder / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        started = str(run.header.get("started", ""))
        found = self._take(run.name)
        if found is not None and found.started != started:
            self.close()
            found = self._take(f"{run.name}-{datetime.fromtimestamp(run.started, UTC):%Y%m%dT%H%M%S}")
        self.entry = found or Entry(started, with_test)
        if self.entry.lines and self.entry.with_test != with_test:
            self.close()
            logged, asked = ("with", "without") if self.entry.with_test else ("without", "with")
            raise ValueError(
                f"Run {self.name} is logged in {folder} {logged} test measures and was asked for {asked}. Ask for it "
                f"{logged}, or choose another folder."
            )
        self.entry.with_test = with_test

    def _take(self, name: str) -> Entry | None:
        self.name, self._lock = name, FileLock(self._folder / f"{name}.lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"Another process is logging run {name} in {self._folder.parent}.") from None
        try:
            return self._read(name)
        except ValueError:
            self.close()
            raise

    def _read(self, name: str) -> Entry | None:
        path = self._folder / f"{name}.json"
        try:
            return Entry(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}). Delete it to have the run logged anew.") from error

    def forget(self) -> None:
        """Begin the entry anew."""
        self.entry.lines, self.entry.memory = 0, {}

    def note(self, lines: int, memory: Mapping[str, Any]) -> None:
        """Take note, on disk, of how many lines are logged."""
        self.entry.lines, self.entry.memory = lines, dict(memory)
        write_whole(self._folder / f"{self.name}.json", f"{json.dumps(asdict(self.entry))}\n".encode())

    def close(self) -> None:
        """Let others change the entry."""
        self._lock.release()
