"""A grid that is killed again and again ends with the records of one that was left in peace."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from msam import record
from msam.record import without_volatile
from tests.bench.grids import slower

ROOT = Path(__file__).parents[2]
KILLS = 10


def start(folder: Path) -> subprocess.Popen:
    command = ["bench", "run", "tests.bench.grids.slower", "--out", str(folder), "--engine.workers", "2"]
    return subprocess.Popen(
        [sys.executable, "-c", "from msam.cli import main; main()", *command],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def what_is_said(folder: Path) -> dict:
    found = {one.path.name: one for one in record.find(folder)}
    return {
        name: without_volatile([{**one.header, "commit": None}, *one.epochs, one.end or {}])
        for name, one in found.items()
    }


def recorded(folder: Path) -> int:
    return len(list(folder.glob("*.jsonl.gz")))


def test_killed_at_ten_random_moments_the_records_are_those_of_an_undisturbed_run(tmp_path):
    peace, war = tmp_path / "peace", tmp_path / "war"
    assert start(peace).wait(timeout=300) == 0
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    seen, while_at_work = [], 0
    for kill in range(KILLS):
        process = start(war)
        begun = time.monotonic()
        while process.poll() is None and not list(war.glob(".work/*/record.jsonl")) and time.monotonic() - begun < 60:
            time.sleep(0.01)  # imports last longer than cells: only what comes after is worth a kill
        time.sleep(moments.uniform(0, 1.0))
        while_at_work += process.poll() is None
        if kill % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()  # the workers live on, and hold their cells until they see that they are orphans
        process.wait()
        seen.append(recorded(war))
    assert start(war).wait(timeout=300) == 0, f"seed {seed}"
    made = slower()
    assert recorded(peace) == recorded(war) >= len(made.cells()), f"seed {seed}: {seen}"
    assert what_is_said(war) == what_is_said(peace), f"seed {seed}"
    assert while_at_work >= 3, f"seed {seed}: too few kills met a grid at work ({seen})"
