"""SLURM's own words about jobs: its commands, which need no accounting to be set up."""

import re
import subprocess
import time
from collections.abc import Collection

HOPELESS = frozenset(
    {
        "AssocMaxCpuPerJobLimit",
        "AssocMaxGRESPerJob",
        "AssocMaxMemPerJob",
        "AssocMaxWallDurationPerJobLimit",
        "BadConstraints",
        "InvalidAccount",
        "InvalidQOS",
        "JobHoldMaxRequeue",
        "PartitionNodeLimit",
        "PartitionTimeLimit",
        "QOSMaxCpuPerJobLimit",
        "QOSMaxGRESPerJob",
        "QOSMaxMemoryPerJob",
        "QOSMaxWallDurationPerJobLimit",
        "launch failed requeued held",
        "launch_failed_requeued_held",
    }
)
"""Why SLURM lets jobs wait that will never start as they are."""


def queued(jobs: Collection[str]) -> dict[str, str] | None:
    """Return which of the jobs are queued or running, each with why it waits; None if SLURM did not answer.

    A job is `ID`, or `ID_INDEX` in an array.
    """
    first = ",".join(sorted({job.split("_")[0] for job in jobs}))
    answer = _ask("squeue", "--noheader", "--array", "--format=%i|%r", f"--jobs={first}")
    if answer.returncode:
        return {} if "Invalid job id" in answer.stderr else None
    lines = (line.strip().split("|", 1) for line in answer.stdout.splitlines() if "|" in line)
    return {job: reason for job, reason in lines if job in jobs}


def end_of(job: str) -> str:
    """Return how a job ended, as far as SLURM still knows: its state and exit code."""
    answer = _ask("scontrol", "--oneliner", "show", "job", job).stdout
    state, code = re.search(r"JobState=(\S+)", answer), re.search(r" ExitCode=(\S+)", answer)
    if state and code:
        return f"{state[1]}, exit code {code[1]}"
    lines = _ask("sacct", "--noheader", "--allocations", "--parsable2", "--format=State,ExitCode", "-j", job).stdout
    return lines.splitlines()[0].replace("|", ", exit code ") if lines.strip() else "state unknown"


def cancel(jobs: Collection[str]) -> None:
    """Cancel jobs; those that have ended are no mistake."""
    if jobs:
        _ask("scancel", *sorted(jobs))


def until_gone(jobs: Collection[str], seconds: float = 30) -> None:
    """Wait until none of the jobs is queued or running, but not longer than so many seconds."""
    end = time.monotonic() + seconds
    while jobs and queued(jobs) != {} and time.monotonic() < end:
        time.sleep(0.5)


def largest_array() -> int:
    """Return how many jobs an array may have."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config").stdout)
    return int(found[1]) - 1 if found else 1000


def _ask(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)
