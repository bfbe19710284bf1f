"""SLURM: job arrays, through submitit."""

import math
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msam.bench.engines import _slurm_folder, _slurm_queue
from msam.bench.engines._base import Engine, Lost, Result, Task, lost, on_threads
from msam.bench.engines._slurm_job import Job, begun, read, result_of
from msam.checks import Range

LOOKS = 0.25, 5.0
"""Seconds between two looks into the folder of results, at first and when nothing has come for long."""
ASKS = 1.0, 30.0
"""Seconds between two questions to SLURM, at first and later."""


@dataclass(frozen=True)
class Slurm(Engine):
    """Run tasks in the jobs of SLURM arrays.

    This process waits for results, so start it where it may stay: on a login node in tmux, or in a job of its own. A job
    that ends without all its results (time limit, memory, preemption, machine) is submitted again with those tasks that
    have none. If this process is killed its jobs go on; the next map with the same `logs` cancels them and begins where
    they are.

    Arguments:
        parallelism: jobs at a time, >= 1.
        tasks: tasks of a job, one after the other, >= 1. Starting Python and torch costs more than a small run.
        minutes: time limit of a job with all its tasks, >= 1.
        memory: of a job, in GB, >= 0; 0 stands for the default of the cluster.
        cpus: of a job, >= 1; also its CPU threads.
        gpus: of a job, >= 0.
        partition: where to queue, SLURM's default if empty.
        account: whose hours, SLURM's default if empty.
        options: more options of `sbatch`, as `--qos=long --constraint=a100`.
        setup: shell commands before Python starts, as `module load cuda`.
        logs: folder that all machines share, for scripts, logs and results under way; what went well is deleted.
        retries: how often a task is begun again whose job ended, >= 0.

    >>> Slurm(options="qos=long")
    Traceback (most recent call last):
    ValueError: `options` must be long options, as '--qos=long --exclusive', received 'qos=long'.
    """

    parallelism: Annotated[int, Range(ge=1)] = 16
    tasks: Annotated[int, Range(ge=1)] = 1
    minutes: Annotated[int, Range(ge=1)] = 60
    memory: Annotated[float, Range(ge=0)] = 0.0
    cpus: Annotated[int, Range(ge=1)] = 1
    gpus: Annotated[int, Range(ge=0)] = 0
    partition: str = ""
    account: str = ""
    options: str = ""
    setup: str = ""
    logs: str = "slurm"
    retries: Annotated[int, Range(ge=0)] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._more()

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result | Lost]]:
        """Yield results as they finish, job or not; see `Engine.map`."""
        _submitit()
        jobs = [tuple(range(at, min(at + self.tasks, len(tasks)))) for at in range(0, len(tasks), self.tasks)]
        if not jobs:
            return
        self._fits(len(jobs), len(tasks))
        folder = _slurm_folder.claim(Path(self.logs).absolute())
        missing, deaths, live = set(range(len(tasks))), Counter[int](), dict[str, tuple[int, ...]]()
        try:
            live |= self._submit(folder, function, tasks, jobs)
            for gone in _departures(live, folder):
                for position in _finished(folder, missing):
                    missing.remove(position)
                    yield position, read(result_of(folder, position))
                if not missing:
                    break
                again = []
                for job, positions in gone.items():
                    left = [position for position in positions if position in missing]
                    if not left:
                        continue
                    at = next((p for p in reversed(left) if begun(folder, p).exists()), left[0])
                    deaths[at] += 1
                    if deaths[at] > self.retries:
                        left.remove(at)
                        missing.remove(at)
                        yield at, lost(deaths[at], _end(job, folder))
                    if left:
                        again.append(tuple(left))
                live |= self._submit(folder, function, tasks, again)
        finally:
            if missing:
                _slurm_queue.cancel(live)
            _slurm_queue.until_gone(live)
            _slurm_folder.release(folder, keep=bool(deaths))

    def _submit(
        self, folder: Path, function: Callable[..., Any], tasks: Sequence[Any], jobs: Sequence[tuple[int, ...]]
    ) -> dict[str, tuple[int, ...]]:
        """Submit one job for every tuple of positions; return the tuple of each by the job's name."""
        if not jobs:
            return {}
        import cloudpickle

        submitit = _submitit()
        executor = submitit.SlurmExecutor(folder=folder)
        executor.update_parameters(
            job_name="msam",
            time=self.minutes,
            mem=f"{math.ceil(self.memory * 1024)}M" if self.memory else None,
            cpus_per_task=self.cpus,
            gpus_per_node=self.gpus or None,
            partition=self.partition or None,
            account=self.account or None,
            array_parallelism=self.parallelism,
            additional_parameters=self._more(),
            srun_args=[f"--cpus-per-task={self.cpus}"],  # which srun does not take over from sbatch
            setup=[f"export {name}={value}" for name, value in on_threads(self.cpus).items()] + [self.setup],
        )
        work = [
            Job(folder, positions, cloudpickle.dumps((function, [tasks[p] for p in positions])), tuple(sys.path))
            for positions in jobs
        ]
        try:
            names = [job.job_id for job in executor.submit_array(work)]
        except submitit.core.utils.FailedJobError as error:
            raise ValueError(f"SLURM refuses the jobs: {error}") from error
        _slurm_folder.note(folder, names)
        return dict(zip(names, jobs, strict=True))

    def _more(self) -> dict[str, str | bool]:
        words = shlex.split(self.options)
        if not all(word.startswith("--") for word in words):
            raise ValueError(f"`options` must be long options, as '--qos=long --exclusive', received {self.options!r}.")
        pairs = (word.removeprefix("--").partition("=") for word in words)
        return {name: value if sign else True for name, sign, value in pairs}

    def _fits(self, jobs: int, tasks: int) -> None:
        largest = _slurm_queue.largest_array()
        if jobs > largest:
            raise ValueError(
                f"{jobs} jobs are more than a SLURM array may have here ({largest}). Let each do several tasks: `tasks` "
                f"must be >= {math.ceil(tasks / largest)}, received {self.tasks}."
            )


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ValueError("The slurm engine needs submitit: pip install 'msam[slurm]'.") from error
    if not shutil.which("sbatch"):
        raise ValueError("The slurm engine needs SLURM's commands: no `sbatch` on the PATH. Start it on a login node.")
    return submitit


def _finished(folder: Path, missing: set[int]) -> list[int]:
    """Return which of the missing results are there."""
    folder.chmod(folder.stat().st_mode)  # a client of NFS then looks anew
    found = (int(path.stem) for path in folder.glob("*.result"))
    return sorted(missing.intersection(found))


def _end(job: str, folder: Path) -> str:
    """Return how a job ended: SLURM's word, and the last errors of its own log."""
    log = folder / f"{job}_0_log.err"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    said = "; ".join([line.strip() for line in lines if "error" in line.lower()][-2:])
    return f"SLURM's job {job} ended ({_slurm_queue.end_of(job)}){said and f': {said}'}. Its logs are in {folder}"


def _departures(live: dict[str, tuple[int, ...]], folder: Path) -> Iterator[dict[str, tuple[int, ...]]]:
    """Go on for ever: yield, and remove from `live`, the jobs that have left the queue; pause in between, ever longer.

    A job counts when SLURM has twice not known it any more, with a look at the results in between: files come late over
    a network.

    Raises:
        ValueError: if SLURM lets a job wait that will never start as it is.
    """
    look, ask = LOOKS[0], ASKS[0]
    absent: set[str] = set()
    asked = time.monotonic()
    while True:
        gone: dict[str, tuple[int, ...]] = {}
        if time.monotonic() - asked >= (ASKS[0] if absent else ask):
            found = _slurm_queue.queued(live)
            asked, ask = time.monotonic(), min(ask * 1.3, ASKS[1])
            if found is not None:
                for job, reason in found.items():
                    if reason in _slurm_queue.HOPELESS:
                        raise ValueError(
                            f"SLURM will not start job {job} as it is: {reason}. Ask for less or elsewhere."
                        )
                gone = {job: live.pop(job) for job in absent - set(found)}
                absent = set(live) - set(found)
        yield gone
        look, ask = LOOKS[0] if gone else min(look * 1.1, LOOKS[1]), ASKS[0] if gone else ask
        time.sleep(look)
