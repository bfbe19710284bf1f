"""Weights & Biases: offline without an account, online with one."""

import hashlib
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from msam.loggers._base import Logger, Memory
from msam.loggers._scalars import RunInfo

PROJECT = "msam"


class WandB(Logger):
    """Log to Weights & Biases: the configuration, tags, the group of runs that differ in nothing but their seeds, scalars.

    Its own environment variables count: `WANDB_MODE`, `WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_BASE_URL` and so on. Without
    `WANDB_MODE` it is online for who has logged in and offline for all others; `wandb sync` sends offline runs later. A run
    that is gone on with has the same id and a folder more. What was under way when a process was killed is lost there.
    """

    package = "wandb"
    extra = "wandb"

    def begin(self, run: RunInfo, memory: Memory) -> None:
        """Open the run."""
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(f"{run.name} {run.header.get('started')}".encode()).hexdigest()
        self._id = str(memory.get("id", digest[:12]))
        self._run: Any = wandb.init(
            dir=str(self.folder),
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self._id,
            name=run.name,
            group=run.group,
            tags=sorted({*run.tags.values()} - {"none"}),
            config={**run.config, "tags": dict(run.tags), "header": _facts(run)},
            resume="allow",
            reinit="create_new",
            mode=mode(),
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
            ),
        )
        self._code: int | None = None

    def log(self, values: Mapping[str, float], step: int, time: float) -> None:
        """Log one row of the history; lines of the same step share theirs."""
        self._run.log(dict(values), step=step)

    def end(self, status: str, time: float) -> None:
        """Set the status; a run that diverged counts as failed."""
        self._run.summary["status"] = status
        self._code = 0 if status == "finished" else 1

    def flush(self) -> dict[str, Any]:
        """Remember the id; wandb's own process keeps what was logged."""
        return {"id": self._id}

    def close(self) -> None:
        """Finish the run; one without an end counts as failed, until it is gone on with."""
        self._run.finish(exit_code=1 if self._code is None else self._code)

    @classmethod
    def look(cls, folder: Path) -> str:
        """Return how runs that are offline are sent."""
        return f"wandb sync {folder}/wandb/offline-run-*" if mode() == "offline" else ""


def mode() -> str:
    """Return `WANDB_MODE`, or else online for who has logged in and offline for all others."""
    given = os.environ.get("WANDB_MODE")
    return given or ("online" if _logged_in() else "offline")


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    for path in (Path(os.environ.get("NETRC") or Path.home() / ".netrc"), Path.home() / "_netrc"):
        try:
            if path.is_file() and host in netrc.netrc(path).hosts:
                return True
        except (netrc.NetrcParseError, OSError):
            continue
    return False


def _facts(run: RunInfo) -> dict[str, Any]:
    return {key: value for key, value in run.header.items() if key not in ("kind", "config")}
