"""A Ray cluster: machines that come and go."""

import logging
import os
import pickle
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from msam.bench.engines._base import Engine, Lost, Result, Task, lost
from msam.checks import Range

PATIENCE = 10
"""Seconds that a cluster is given to answer, and tasks to end when the map is closed."""


@dataclass(frozen=True)
class Ray(Engine):
    """Run tasks on a cluster of Ray's.

    A machine that goes away costs the tasks it was at a new begin elsewhere. All machines need the same Python with the
    same packages, and the folders that tasks read and write under the same path.

    Arguments:
        address: of the cluster, `HOST:PORT`; `auto` for the one that this machine belongs to; `local` for one that is
            started on this machine and ends with the map. A connection that is already open is used and left open.
        cpus: CPUs of a task, > 0; also its CPU threads, rounded down, at least 1.
        gpus: GPUs of a task, >= 0; 0.5 lets two share one.
        memory: memory that a task is counted for, in GB, >= 0.
        retries: how often a task is begun again whose worker died, >= 0.
    """

    address: str = "local"
    cpus: Annotated[float, Range(gt=0)] = 1.0
    gpus: Annotated[float, Range(ge=0)] = 0.0
    memory: Annotated[float, Range(ge=0)] = 0.0
    retries: Annotated[int, Range(ge=0)] = 1

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result | Lost]]:
        """Yield results as they finish; see `Engine.map`."""
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            self._connect(ray)
        running: dict[Any, int] = {}
        deaths: Counter[int] = Counter()
        try:
            # Ray's own retries know no end where memory is short.
            remote = ray.remote(_as_here).options(
                num_cpus=self.cpus, num_gpus=self.gpus, memory=int(self.memory * 1e9) or None, max_retries=0
            )
            start = partial(remote.remote, os.getcwd(), tuple(sys.path))
            work = [ray.cloudpickle.dumps((function, task)) for task in tasks]
            running |= {start(one): position for position, one in enumerate(work)}
            while running:
                for future in ray.wait(list(running))[0]:
                    position = running.pop(future)
                    try:
                        result: Result | Lost = ray.get(future)
                    except ray.exceptions.RayTaskError as error:
                        raise (error.cause if isinstance(error.cause, BaseException) else error) from error
                    except ray.exceptions.RayError as error:
                        deaths[position] += 1
                        if deaths[position] <= self.retries:
                            running[start(work[position])] = position
                            continue
                        result = lost(deaths[position], str(error).split("\n")[0])
                    yield position, result
        finally:
            for future in running:
                ray.cancel(future, force=True)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=PATIENCE)
            if ours:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        """Connect to the cluster, or start one for `local`.

        Raises:
            ValueError: if no cluster answers, or this machine alone, being the cluster, has less than a task needs.
        """
        alone = self.address == "local"
        if alone:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
            os.environ.setdefault("RAY_TQDM_PATCH_PRINT", "0")  # nor is `print` replaced in the user's process
        try:
            _knock(self.address)
            ray.init(
                address=self.address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False if alone else None,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"No Ray cluster answers at {self.address!r}: {error} Start one with `ray start --head`, or take "
                "the address 'local' for one on this machine alone."
            ) from error
        there = ray.cluster_resources()
        for name, wanted in {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory * 1e9}.items():
            if alone and wanted > there.get(name, 0.0):
                ray.shutdown()
                raise ValueError(
                    f"A task needs {wanted:g} {name}, this machine has {there.get(name, 0.0):g}: it would wait for ever. "
                    "Ask for less, or give the address of a cluster."
                )


def _as_here(folder: str, path: tuple[str, ...], work: bytes) -> Any:
    """Do a task with the folder and the import path of the map's process: a worker is born elsewhere with another."""
    try:
        os.chdir(folder)
    except FileNotFoundError as error:
        raise ValueError(
            f"Machine {socket.gethostname()} of the Ray cluster has no folder {folder}: start from one that all share."
        ) from error
    sys.path.extend(entry for entry in path if entry not in sys.path)
    function, task = pickle.loads(work)
    return function(task)


def _knock(address: str) -> None:
    """Raise OSError or ValueError if nobody listens at `HOST:PORT`: Ray itself would go on trying for many minutes."""
    if ":" in address:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ValueError("The ray engine needs Ray: pip install 'msam[ray]'.") from error
    return ray
