"""Short runs for tests of the loop."""

from pathlib import Path
from typing import Any

from msam.record import Record
from msam.train import RunConfig, config, train

WORLD = {"name": "tests.train.world"}
MSAM = {"name": "msam", "rho": 0.2}


def settings(**more: Any) -> RunConfig:
    return config({"data": WORLD, "epochs": 2, "batch_size": 16, "threads": 1} | more)


def trained(folder: Path, **more: Any) -> Record:
    return train(settings(**more), folder)


def files(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()} if folder.exists() else {}


class Ear:
    """A watcher that remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def started(self, name, steps, done):
        self.heard.append(("started", (name, steps, done)))

    def stepped(self, loss, share):
        self.heard.append(("stepped", (loss, share)))

    def measured(self, line):
        self.heard.append(("measured", line["epoch"]))

    def finished(self):
        self.heard.append(("finished", None))


class StopAt(Ear):
    """A watcher that interrupts the run after some steps."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def stepped(self, loss, share):
        super().stepped(loss, share)
        if sum(kind == "stepped" for kind, _ in self.heard) == self.step:
            raise KeyboardInterrupt
