"""Train a stack, kill it over and over while it works, go on until it is done; print how each attempt ended.

Run by test_stack_ends.py in a process of its own; attempts are forks of it, as in kill_and_resume.py.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import lightning_fabric  # noqa: F401 - imported by the engine when it is first needed, here before the forks

sys.path.insert(0, str(Path(__file__).parents[2]))

from msam.bench import _stack
from msam.bench.stack import train_together
from tests.bench.stacks import seeds


def forked(folder: Path) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            configs = seeds(3, epochs=15, sharpness="msam", precision="32-true")
            train_together(configs, [folder / str(i) for i in range(3)])
            code = 0
        finally:
            os._exit(code)
    return child


def written(folder: Path) -> int:
    """Return when the checkpoint of the last lane was written."""
    path = folder / "2" / "checkpoint.pt"
    return path.stat().st_mtime_ns if path.exists() else 0


def main(root: Path) -> None:
    _stack.CHECKPOINT_SECONDS = 0.0
    assert os.waitpid(forked(root / "undisturbed"), 0)[1] == 0
    draw = random.Random(0)
    for _ in range(5):
        before = written(root / "killed")
        child = forked(root / "killed")
        while written(root / "killed") == before:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        print(os.waitpid(child, 0)[1])
    print(os.waitpid(forked(root / "killed"), 0)[1])


main(Path(sys.argv[1]))
