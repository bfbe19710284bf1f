"""Small configurations of runs that differ in seeds, and what two records have in common."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from msam.bench import _stack
from msam.record import read, without_volatile
from msam.train import RunConfig, config
from msam.train.trainer import Trainer

DIAL = {"name": "dial", "train_size": 160, "valid_size": 30, "test_size": 30, "bayes_samples": 100}
DIGITS = {"name": "avdigits", "train_size": 80, "valid_size": 20, "test_size": 20}


def seeds(count: int, **more: Any) -> list[RunConfig]:
    """Return runs of two epochs of ten steps, in double precision: what differs is no rounding."""
    given: dict[str, Any] = {"data": DIAL, "epochs": 2, "batch_size": 16, "precision": "64-true", "threads": 1} | more
    data = given.pop("data")
    return [config(given, data={**data, "seed": 7 + seed}, seed=seed) for seed in range(count)]


def lines(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a record, without time, host and the digest of the weights."""
    record = read(folder / "record.jsonl")
    found = [without_volatile(line) for line in (record.header, *record.steps, *record.epochs, record.end)]
    for line in found:
        line.pop("weights", None)
        line.pop("commit", None)
    return found


def furthest(a: Any, b: Any) -> float:
    """Return the largest difference between two numbers at the same place; infinity where anything else differs."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max((furthest(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return max(map(furthest, a, b), default=0.0)
    if isinstance(a, float) and isinstance(b, float) and math.isfinite(a) and math.isfinite(b):
        return abs(a - b)
    return 0.0 if a == b or (a != a and b != b) else math.inf


class Interrupted(BaseException):
    """Ends a stack as Ctrl-C does."""


@contextmanager
def stopped_in_its_second_epoch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a stack inside the block interrupted when seed 1 has ended its second epoch; checkpoints are of the first."""
    monkeypatch.setattr(_stack, "CHECKPOINT_SECONDS", 0.0)

    def interrupted(self: Trainer, line: dict[str, Any], ended: Any = Trainer.end_epoch) -> None:
        ended(self, line)
        if self.at.epoch == 2 and self.config.seed == 1:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "end_epoch", interrupted)
        with pytest.raises(Interrupted):
            yield
