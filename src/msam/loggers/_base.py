"""What a logger is: a run begins, scalars arrive, a run ends."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from msam.loggers._scalars import RunInfo

Memory = Mapping[str, Any]
"""What a logger remembers of a run between processes, as plain values; empty for a run it has not seen."""


class Logger(ABC):
    """Logs one run to one tool. Loggers are the final classes of their files; one object serves one run in one thread.

    The calls are `begin`, `log` and `flush` as often as wanted, `end` if the run ended, `close`. Every line of the record
    arrives once, in whichever process; a run that was seen before is begun with what `flush` returned at last.

    Arguments:
        folder: where it may keep files; made when the run begins.
    """

    package: ClassVar[str] = ""
    """The package that must be installed, by its import name."""
    extra: ClassVar[str] = ""
    """The extra of msam that installs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def knows(self, memory: Memory) -> bool:
        """Tell whether what was logged of a run is still there; if not, it is logged anew from its first line."""
        return True

    @abstractmethod
    def begin(self, run: RunInfo, memory: Memory) -> None:
        """Begin a run, or go on with one."""

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int, time: float) -> None:
        """Log scalars of a step.

        Arguments:
            values: by name; may be NaN or infinite.
            step: optimizer steps since the begin, >= 0; never less than before.
            time: seconds since 1970, as far as the record knows it: when the epoch before ended.
        """

    @abstractmethod
    def end(self, status: str, time: float) -> None:
        """Say how the run ended, "finished" or "diverged"."""

    def flush(self) -> dict[str, Any]:
        """Bring what was logged to safety; return what is to be remembered of the run, as plain values."""
        return {}

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of what is held; the run may not have ended."""

    @classmethod
    def look(cls, folder: Path) -> str:
        """Return how to look at what lies in `folder`, or nothing."""
        return ""
