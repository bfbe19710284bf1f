"""Rows for tuning, and a runner whose runs take no time: what they measure is a function of their configuration."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msam import record
from msam.train import RunConfig
from tests.bench.grids import WORLD

ROWS = {
    "joint": {"data": WORLD, "epochs": 2},
    "ogm-ge-msam": {"data": WORLD, "epochs": 2, "method": "ogm_ge", "sharpness": "msam"},
}
"""Two and four dimensions."""

Epochs = list[dict[str, Any]]


def epoch(accuracy: float, nll: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"valid": {"accuracy": accuracy, "nll": nll}, "test": {"accuracy": 1 - accuracy, "nll": 1 / nll}, **more}


def chance(config: RunConfig) -> Epochs:
    """Two epochs of any accuracy, the same whenever the run is run; few values, so that there are ties."""
    draw = random.Random(str(config))
    return [epoch(draw.randrange(5) / 4, draw.randrange(1, 3)) for _ in range(2)]


class Runs:
    """A runner: takes `measure`'s word for every run, and remembers which it was asked for and which it made."""

    def __init__(self, measure: Callable[[RunConfig], Epochs | None] = chance) -> None:
        self.measure = measure
        self.asked: list[RunConfig] = []
        self.made: list[RunConfig] = []

    def __call__(self, configs, folder: Path, /, **_: Any) -> list[record.Record]:
        self.asked += configs
        return [self._record(config, folder) for config in configs]

    def _record(self, config: RunConfig, folder: Path) -> record.Record:
        name = config.run_name()
        path = folder / f"{name}.jsonl"
        if not path.exists():
            self.made.append(config)
            epochs = self.measure(config)
            with record.Writer(path) as lines:
                lines.write("header", run=name, config=config.model_dump())
                for number, line in enumerate(epochs or [epoch(0.9)], start=1):
                    lines.write("epoch", epoch=number, **line)
                lines.write("end", status="diverged" if epochs is None else "finished")
        return record.read(path)
