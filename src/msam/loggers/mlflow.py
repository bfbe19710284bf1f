"""MLflow: a database in the folder, or whatever its own environment variables say."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msam.loggers._base import Logger, Memory
from msam.loggers._scalars import RunInfo

EXPERIMENT = "msam"
AT_ONCE, PARAMS_AT_ONCE, LONGEST = 1000, 100, 6000
"""What MLflow takes in one call: metrics, parameters; and the length of a parameter."""


class MLflow(Logger):
    """Log to MLflow: the configuration as parameters, tags, scalars as metrics with the record's times.

    Its own environment variables count: `MLFLOW_TRACKING_URI` for where (without it, the database `mlflow.db` in the
    folder), `MLFLOW_EXPERIMENT_NAME`, and those of its servers. The package mlflow-skinny suffices to log; the command
    `mlflow ui` comes with mlflow.
    """

    package = "mlflow"
    extra = "mlflow"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._waiting: list[Any] = []

    def knows(self, memory: Memory) -> bool:
        """Tell whether the run is there and not deleted."""
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._client().get_run(memory["run"]).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def begin(self, run: RunInfo, memory: Memory) -> None:
        """Create the run, or set it running again."""
        from mlflow.entities import Param, RunTag

        self._mlflow, self._id = self._client(), str(memory.get("run", ""))
        if self._id:
            self._mlflow.update_run(self._id, status="RUNNING")
            return
        made = self._mlflow.create_run(
            self._experiment(),
            start_time=int(1000 * run.started),
            run_name=run.name,
            tags={**run.tags, "group": run.group, "commit": str(run.header.get("commit") or "")},
        )
        self._id = made.info.run_id
        params = [Param(name, str(value)[:LONGEST]) for name, value in run.hyperparameters.items()]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            self._mlflow.log_batch(self._id, params=params[start : start + PARAMS_AT_ONCE])
        data = run.header.get("data") or {}
        if data.get("fingerprint"):
            self._mlflow.log_batch(self._id, tags=[RunTag("data", data["fingerprint"])])

    def log(self, values: Mapping[str, float], step: int, time: float) -> None:
        """Keep metrics for one call with many."""
        from mlflow.entities import Metric

        self._waiting += [Metric(name, value, int(1000 * time), step) for name, value in values.items()]
        while len(self._waiting) >= AT_ONCE:
            self._send()

    def end(self, status: str, time: float) -> None:
        """Set status and time of the end; a run that diverged has failed."""
        while self._waiting:
            self._send()
        code = "FINISHED" if status == "finished" else "FAILED"
        self._mlflow.set_terminated(self._id, code, end_time=int(1000 * time))

    def flush(self) -> dict[str, Any]:
        """Send what waits; remember the run's id."""
        while self._waiting:
            self._send()
        return {"run": self._id}

    @classmethod
    def look(cls, folder: Path) -> str:
        """Return the command that shows the runs."""
        return f"mlflow ui --backend-store-uri {_uri(folder)}"

    def _send(self) -> None:
        self._mlflow.log_batch(self._id, metrics=self._waiting[:AT_ONCE])
        del self._waiting[:AT_ONCE]

    def _client(self) -> Any:
        from mlflow import MlflowClient

        self.folder.mkdir(parents=True, exist_ok=True)
        return MlflowClient(_uri(self.folder))

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._mlflow.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        files = None if "MLFLOW_TRACKING_URI" in os.environ else (self.folder / "artifacts").absolute().as_uri()
        return str(self._mlflow.create_experiment(name, artifact_location=files))


def _uri(folder: Path) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').absolute()}"
