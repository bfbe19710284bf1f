"""Processes of tests: whether they live, and one that has a task under way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.engines._tasks import beginnings

ROOT = Path(__file__).parents[3]


def until(holds, seconds=20):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} seconds"
        time.sleep(0.05)


def lives(process):
    """Tell whether there is a process of this id that has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent(process):
    """Return the id of a process's parent, None if the process has ended."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def with_an_endless_task(folder, *words, end):
    """Start a process, end it by a signal once its endless task runs; return its error stream and the task's process."""
    command = [sys.executable, "-m", "tests.bench.engines.endless", str(folder), *words]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as started:
        try:
            until(lambda: beginnings(folder, "endless"), 40)
            os.kill(started.pid, end)
            return started.communicate(timeout=20)[1], beginnings(folder, "endless")[0]
        finally:
            if started.poll() is None:
                os.kill(started.pid, signal.SIGKILL)
