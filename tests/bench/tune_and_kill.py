"""Tune, be killed at random moments, go on; tell whether the choices are those of a tuning that was left in peace.

Run by test_tune_interrupted.py in a process of its own: modules are imported once and no torch work is done here, so that
each tuning can be a fork.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import lightning_fabric  # noqa: F401 - imported by the engine when it is first needed, here before the forks
import optuna  # noqa: F401 - likewise
import scipy.stats.qmc  # noqa: F401 - likewise

from msam.bench.tune import tune
from tests.bench.grids import WORLD
from tests.bench.inline import Inline

ROWS = {
    "joint": {"data": {**WORLD, "train_size": 384}, "epochs": 2, "batch_size": 16},
    "sam": {"data": {**WORLD, "train_size": 384}, "epochs": 2, "batch_size": 16, "sharpness": "sam"},
}


def forked(folder: Path) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            tune(ROWS, folder, trials=5, seeds=1, sampler="tpe", engine=Inline(), quiet=True)
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    return child


def choices(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((folder / "chosen").glob("*.json"))}


def main(root: Path) -> None:
    seed = random.randrange(10**6)
    draw = random.Random(seed)
    assert os.waitpid(forked(root / "peace"), 0)[1] == 0
    killed = 0
    for _ in range(5):
        child = forked(root / "war")
        time.sleep(draw.uniform(0.05, 0.5))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert os.waitpid(forked(root / "war"), 0)[1] == 0
    runs = [sorted(path.name for path in (root / name / "trials").glob("*.gz")) for name in ("peace", "war")]
    equal = runs[0] == runs[1] and len(choices(root / "war")) == 2 and choices(root / "war") == choices(root / "peace")
    print(json.dumps({"seed": seed, "killed": killed, "equal": equal}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
