"""The folder of one map on SLURM: scripts, logs, results under way, and whose it is."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from msam.bench.engines import _slurm_queue


def claim(logs: Path) -> Path:
    """Make a folder for a map; jobs that a killed process of this machine has left in the queue are cancelled.

    They would otherwise train what the new ones train.

    Raises:
        ValueError: if a process of another machine has jobs in the queue: whether it is alive cannot be told from here.
    """
    logs.mkdir(parents=True, exist_ok=True)
    for owner in sorted(logs.glob("*/owner")):
        _succeed(owner)
    folder = Path(tempfile.mkdtemp(dir=logs, prefix=time.strftime("%Y%m%d-%H%M%S-")))  # for this user's eyes only
    begin = folder / "owner.begin"
    begin.write_text(f"{socket.gethostname()}\n{os.getpid()}\n{_birth(os.getpid())}\n")
    os.replace(begin, folder / "owner")
    return folder


def note(folder: Path, jobs: Iterable[str]) -> None:
    """Write down jobs, for whoever comes after a killed process."""
    with (folder / "jobs").open("a") as file:
        file.writelines(f"{job}\n" for job in jobs)


def release(folder: Path, keep: bool) -> None:
    """Give the folder up: the logs stay where something went wrong."""
    if keep:
        (folder / "owner").unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _succeed(owner: Path) -> None:
    try:
        host, process, birth = owner.read_text().splitlines()
        jobs = (owner.parent / "jobs").read_text().splitlines()
    except FileNotFoundError:  # given up by now, or killed before it had jobs
        return
    if host == socket.gethostname():
        if _birth(int(process)) != birth:
            _slurm_queue.cancel(jobs)
            _slurm_queue.until_gone(jobs)
            release(owner.parent, keep=True)
    elif left := _slurm_queue.queued(jobs):
        raise ValueError(
            f"Jobs of process {process} on {host} are in the queue: {', '.join(sorted(left))}. If it is no longer running, "
            f"`scancel {' '.join(sorted({job.split('_')[0] for job in left}))}` and try again; if it is, give another "
            "folder as `logs`."
        )


def _birth(process: int) -> str:
    """Return when a process began, in ticks since the machine did; empty if there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
