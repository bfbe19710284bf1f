"""Scalars of a loop that writes no record, in a tool of the field."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from msam.loggers._find import load
from msam.loggers._scalars import described


class Scalars:
    """A run in TensorBoard, W&B, MLflow or Trackio that takes scalars by name and step, as `msam.Monitor(log=...)` does.

        with loggers.Scalars("tensorboard", run="mine") as scalars:
            monitor = msam.Monitor(model, log=scalars)

    Arguments:
        logger: its name (`msam list loggers`), or a module of your own.
        run: name of the run, that of a file without folders.
        folder: where loggers keep files; each in a folder of its name.
        config: hyper-parameters of the run, nested or not.

    Raises:
        ValueError: for an unknown logger, one whose package is missing, or a name that no file may have.
    """

    def __init__(
        self, logger: str, run: str, *, folder: str | Path = "logs", config: Mapping[str, Any] | None = None
    ) -> None:
        kind = load(logger)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        info = described({"kind": "header", "run": run, "config": dict(config or {}), "started": started})
        self._logger = kind(Path(folder) / logger)
        self._logger.begin(info, {})

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Log scalars of a step; steps never fall."""
        self._logger.log(values, step, time.time())
        self._logger.flush()

    def close(self, status: str = "finished") -> None:
        """End the run, "finished" or "diverged" (failed)."""
        self._logger.end(status, time.time())
        self._logger.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the run; one that an error ended has failed."""
        self.close("finished" if kind is None else "diverged")
