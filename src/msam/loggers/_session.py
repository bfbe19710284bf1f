"""The lines of one record, each given to a logger once, in whichever process."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msam.loggers._base import Logger
from msam.loggers._ledger import Ledger
from msam.loggers._scalars import Line, RunInfo, described, scalars, step_of


class Session:
    """Takes the lines of one record in order, from its first; lets those be that are logged already.

    Lines that a resumed run cuts off and writes again are the same lines again, time aside, so that counting suffices.

    Arguments:
        kind: the logger; made when there is a line for it.
        folder: where it keeps its files, and the ledger its own.
        with_test: whether measures on the test split are logged.
    """

    def __init__(self, kind: type[Logger], folder: Path, *, with_test: bool = False) -> None:
        self._kind, self._folder, self._with_test = kind, folder, with_test
        self._run: RunInfo | None = None
        self._ledger: Ledger | None = None
        self._logger: Logger | None = None
        self._seen, self._time, self._step = 0, 0.0, 0
        self.logged = 0
        """Lines that were new to the logger."""

    def take(self, lines: Iterable[Line]) -> None:
        """Log what is new in the next lines, and remember so on disk.

        Raises:
            ValueError: if the first line is no header, another process is logging the run, or test measures are wanted
                of a run that is logged without, or the reverse.
        """
        for line in lines:
            if self._ledger is None:
                self._open(line)
            assert self._ledger is not None
            self._seen += 1
            if self._seen > self._ledger.entry.lines:
                self._log(line)
                self.logged += 1
            if line.get("kind") == "epoch":
                self._time = max(self._time, self._started + float(line.get("seconds", 0.0)))
        self._remember()

    def close(self) -> None:
        """Let go of logger and ledger; more lines may come in a later session."""
        try:
            if self._logger:
                self._logger.close()
        finally:
            if self._ledger:
                self._ledger.close()

    def _open(self, header: Line) -> None:
        if header.get("kind") != "header":
            raise ValueError(f"The first line of a record must be of kind 'header', found {header.get('kind')!r}.")
        self._run = described(header)
        self._started = self._time = self._run.started
        self._ledger = Ledger(self._folder, self._run, self._with_test)
        memory = self._ledger.entry.memory
        if self._ledger.entry.lines and not self._kind(self._folder).knows(memory):
            self._ledger.forget()

    def _log(self, line: Line) -> None:
        assert self._run is not None
        assert self._ledger is not None
        if self._logger is None:
            self._logger = self._kind(self._folder)
            named = RunInfo(**{**vars(self._run), "name": self._ledger.name})
            self._logger.begin(named, self._ledger.entry.memory)
        values = scalars(line, self._run.modalities, with_test=self._with_test)
        ends = line.get("kind") == "end"
        time = self._started + float(line["seconds"]) if ends and "seconds" in line else self._time
        if values:
            self._logger.log(values, step_of(line), time)
        if ends:
            self._logger.end(str(line.get("status")), time)

    def _remember(self) -> None:
        if self._logger is not None:
            assert self._ledger is not None
            memory: dict[str, Any] = self._logger.flush()
            if self._seen > self._ledger.entry.lines:
                self._ledger.note(self._seen, memory)
