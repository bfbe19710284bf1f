"""Trackio: a database in the folder, with the pages of its own that show it."""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msam.loggers._base import Logger, Memory
from msam.loggers._scalars import RunInfo

PROJECT = "msam"


class Trackio(Logger):
    """Log to Trackio: the configuration, the group of runs that differ in nothing but their seeds, tags, scalars.

    Its own environment variables count: `TRACKIO_DIR` for where (without it, the logger's folder), `TRACKIO_SPACE_ID`,
    `TRACKIO_SERVER_URL`. It stores what it is given a little later: what was under way when a process was killed is lost
    there. One process logs to one folder.
    """

    package = "trackio"
    extra = "trackio"

    def begin(self, run: RunInfo, memory: Memory) -> None:
        """Open the run."""
        trackio = self._trackio()
        with _aside():
            self._run: Any = trackio.init(
                project=PROJECT,
                name=run.name,
                group=run.group,
                config={**run.config, "tags": dict(run.tags), "commit": run.header.get("commit")},
                resume="allow" if memory else "never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self._name = run.name

    def log(self, values: Mapping[str, float], step: int, time: float) -> None:
        """Log one row."""
        self._run.log(dict(values), step=step)

    def end(self, status: str, time: float) -> None:
        """Nothing: Trackio knows no status; the scalars of the end are its last row."""

    def flush(self) -> dict[str, Any]:
        """Remember the name."""
        return {"run": self._name}

    def close(self) -> None:
        """Wait until everything is stored."""
        with _aside():
            self._run.finish()

    @classmethod
    def look(cls, folder: Path) -> str:
        """Return the command that shows the runs."""
        return f"TRACKIO_DIR={_place(folder)} trackio show --project {PROJECT}"

    def _trackio(self) -> Any:
        """Import Trackio, which asks for its folder then and never again."""
        place = _place(self.folder)
        place.mkdir(parents=True, exist_ok=True)
        given = os.environ.get("TRACKIO_DIR")
        os.environ["TRACKIO_DIR"] = str(place)
        try:
            import trackio
            from trackio.utils import TRACKIO_DIR
        finally:
            if given is None:
                del os.environ["TRACKIO_DIR"]
        if place != Path(TRACKIO_DIR):
            raise ValueError(f"Trackio logs to {TRACKIO_DIR} in this process. Log to {place} in another.")
        return trackio


def _place(folder: Path) -> Path:
    return Path(os.environ.get("TRACKIO_DIR") or folder).absolute()


@contextlib.contextmanager
def _aside() -> Any:
    """Send what Trackio prints to where messages go."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
