"""Train, be killed at random moments, go on; print the digests. Run by test_resume.py in a process of its own.

Modules are imported once and no torch work is done here, so that each run can be a fork: ten runs are killed and resumed
in the time that a few imports take.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import lightning_fabric  # noqa: F401 - imported by the engine when it is first needed, here before the forks

from msam.record import read, without_volatile
from msam.train import config, train


def settings(checkpoint_every: int):
    return config(
        data={"name": "dial", "train_size": 192, "valid_size": 50, "test_size": 50, "bayes_samples": 100},
        fusion={"name": "maxout", "hidden": [16], "dropout": 0.3},
        sharpness={"name": "msam", "rho": 0.2},
        optimizer={"lr": 0.05},
        epochs=4,
        batch_size=16,
        checkpoint_every=checkpoint_every,
        threads=1,
    )


def forked(folder: Path, checkpoint_every: int) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(settings(checkpoint_every), folder, resume=True)
            code = 0
        finally:
            os._exit(code)
    return child


def content(folder: Path):
    record = read(folder / "record.jsonl")
    lines = [without_volatile(line) for line in (record.header, *record.steps, *record.epochs, record.end)]
    for line in lines:
        line.get("config", {}).pop("checkpoint_every", None)
        line.pop("run", None)
    return lines


def main(root: Path, seed: int, moments: int) -> None:
    assert os.waitpid(forked(root / "undisturbed", 0), 0)[1] == 0
    duration = read(root / "undisturbed" / "record.jsonl").end["seconds"]
    draw = random.Random(seed)
    report = {"seed": seed, "killed_after": [], "killed": 0, "equal": 0}
    expected = content(root / "undisturbed")
    for number in range(moments):
        folder, every = root / str(number), (0, 3)[number % 2]
        child = forked(folder, every)
        while not (folder / "record.jsonl").exists():
            time.sleep(0.001)
        time.sleep(draw.random() * duration)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        report["killed"] += os.WIFSIGNALED(status)
        report["killed_after"].append((folder / "record.jsonl").read_bytes().count(b"\n"))
        assert os.waitpid(forked(folder, every), 0)[1] == 0
        report["equal"] += content(folder) == expected
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
