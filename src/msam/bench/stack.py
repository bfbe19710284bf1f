"""Runs that differ in nothing but their seeds, trained together in one process.

A step of a small model is mostly overhead: what is done once for all runs of a stack costs each of them a fraction. It pays
for models of linear layers; convolutions keep a processor busy by themselves, and are left alone.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msam import data, methods, sharpness
from msam.bench._datasets import kept
from msam.bench._stack import NEXT, Stack
from msam.data import Card, TensorSplit
from msam.models import Encoder, Fusion, MultimodalModel
from msam.models.fusion import Maxout
from msam.record import Record, Writer
from msam.train import RunConfig, checkpoint, parts, train
from msam.train.config import options
from msam.train.loop import begun, same_data
from msam.train.trainer import CHECKPOINT, RECORD, Diverged, Trainer

WIDTH = 10
"""Runs of a stack, at most."""

CONTAINERS = (Encoder, Fusion, MultimodalModel, nn.ModuleDict, nn.Sequential)
PAYING = (*CONTAINERS, Maxout, nn.BatchNorm1d, nn.Flatten, nn.Linear, nn.ReLU)
"""Modules that run faster in a stack."""

POSSIBLE = (*PAYING, nn.BatchNorm2d, nn.Conv2d, nn.MaxPool2d)
"""Modules that run in a stack. Those that draw at random (dropout) cannot: each run has a source of its own."""


def stackable(settings: RunConfig) -> bool:
    """Tell whether runs of a configuration can be trained together: method and rule say so, and so do the model's layers.

    >>> from msam.train import config
    >>> stackable(config(data="dial", sharpness="msam")), stackable(config(data="dial", method="agm"))
    (True, False)
    """
    return _declared(settings) and _made_of(settings, POSSIBLE)


def worthwhile(settings: RunConfig) -> bool:
    """Tell whether training runs of a configuration together saves time: their model has no convolutions.

    >>> from msam.train import config
    >>> worthwhile(config(data="avdigits", sharpness="msam"))
    False
    """
    return _declared(settings) and _made_of(settings, PAYING)


def groups(configs: Sequence[RunConfig]) -> list[list[RunConfig]]:
    """Return the runs in groups that are trained together: alone, or with others that differ in nothing but seeds.

    Which runs go together depends on their seeds, ten to a stack, not on what else is asked for, so that a bench that is
    taken up again finds the same stacks.

    >>> from msam.train import config
    >>> [len(group) for group in groups([config(data="dial", seed=seed) for seed in range(12)])]
    [10, 2]
    """
    found: dict[str, list[RunConfig]] = {}
    for settings in configs:
        key = settings.model_dump_json()
        if worthwhile(settings):
            key = f"{settings.seed // WIDTH} {_but_for_seeds(settings)}"
        found.setdefault(key, []).append(settings)
    return list(found.values())


def train_together(configs: Sequence[RunConfig], folders: Sequence[Path]) -> None:
    """Train runs that differ in nothing but seeds, or go on with them; each ends in its folder as a run of `train` does.

    Where the data are not in memory, or the runs have not the same number of samples, they are trained one by one.

    Record and weights of a run are those it would have alone, to rounding. A run that diverges has an end line of status
    "diverged", and the others go on. Checkpoints are made every ten seconds at most, for all runs together: what was killed
    goes on from them, and gives the same records as if it had not been.

    Arguments:
        configs: of the runs.
        folders: one for each; a run that has ended there is let be.

    Raises:
        ValueError: if the configurations differ in more than seeds or cannot be stacked; as `train`, where a folder holds
            another run; if the data are not finite.
        OSError: if a record or checkpoint cannot be written.
    """
    _alike(configs)
    _commit(folders)
    if not _side_by_side(configs):
        for settings, folder in zip(configs, folders, strict=True):
            _alone(settings, Path(folder))
        return
    places = [_Place(settings, folder) for settings, folder in zip(configs, map(Path, folders), strict=True)]
    for epoch in sorted({place.epoch for place in places if not place.ended}):
        _train([place if place.epoch == epoch and not place.ended else None for place in places])


class _Place:
    """Where one run is: its folder, and what is there of it."""

    def __init__(self, settings: RunConfig, folder: Path) -> None:
        self.config, self.folder = settings, folder
        self.record: Record | None
        self.record, self.saved = begun(folder, settings, resume=True)
        self.epoch = self.saved["at"]["epoch"] if self.saved else 0
        self.ended = self.record is not None and self.record.end is not None

    def opened(self, files: ExitStack, lanes: int) -> Trainer:
        """Return the run's trainer at the place where the run stands."""
        trainer = Trainer(self.config, self.folder, dataset=kept(self.config))
        if self.record is not None:
            same_data(self.record, trainer.dataset, self.folder)
        if self.saved is None:
            (self.folder / RECORD).unlink(missing_ok=True)
        writer = Writer(self.folder / RECORD, keep=self.saved["record"] if self.saved else None)
        files.callback(writer.close)
        trainer.open(writer, self.saved, lanes)
        return trainer


def _train(places: Sequence[_Place | None]) -> None:
    """Train the runs of a stack that stand at the same epoch; the others' rows stay empty."""
    with ExitStack() as files:
        trainers: list[Trainer | None] = []
        random = []
        for place in places:
            trainers.append(place.opened(files, len(places)) if place else None)
            random.append(torch.get_rng_state())
        lead = next(trainer for trainer in trainers if trainer is not None)
        pattern = parts.model(lead.config, lead.dataset).to(next(lead.network.parameters()))
        Stack(trainers, random, pattern).go()


def _side_by_side(configs: Sequence[RunConfig]) -> bool:
    """Tell whether the runs of a stack have the same number of samples, in memory."""
    splits = [kept(settings).train for settings in configs]
    return all(isinstance(split, TensorSplit) for split in splits) and len(set(map(len, splits))) == 1


def _alone(settings: RunConfig, folder: Path) -> None:
    if _Place(settings, folder).ended:
        return
    with suppress(Diverged):
        train(settings, folder, resume=True, dataset=kept(settings))


def _commit(folders: Sequence[Path]) -> None:
    """Where a kill came between the renames of a stack's checkpoints, rename the rest; drop unfinished sets.

    Nothing is renamed before all are written: so where one lane has no new checkpoint left and is ahead, all had one.
    """
    waiting = [folder for folder in map(Path, folders) if (folder / NEXT).exists()]
    done = [folder for folder in map(Path, folders) if (folder / CHECKPOINT).exists() and folder not in waiting]
    ahead = max((_epoch(folder / CHECKPOINT) for folder in done), default=-1)
    for folder in waiting:
        here = _epoch(folder / CHECKPOINT) if (folder / CHECKPOINT).exists() else -1
        if here < _epoch(folder / NEXT) == ahead:
            (folder / NEXT).replace(folder / CHECKPOINT)
        else:
            (folder / NEXT).unlink()


def _epoch(path: Path) -> int:
    found: int = checkpoint.load(path)["at"]["epoch"]
    return found


def _alike(configs: Sequence[RunConfig]) -> None:
    for settings in configs:
        lines = checkpoint.differing(_seedless(configs[0]), _seedless(settings))
        if lines:
            raise ValueError(f"Runs of a stack must differ in nothing but seeds, found {'; '.join(lines)}.")
        if not stackable(settings):
            raise ValueError(
                f"Runs of {settings.run_name()} cannot be stacked: method, rule, options or layers are not made for it. "
                "Train them one by one."
            )


def _declared(settings: RunConfig) -> bool:
    plain = settings.precision in ("32-true", "64-true") and settings.accelerator == "cpu"
    if not plain or settings.checkpoint_every or settings.probes or not methods.load(settings.method["name"]).stackable:
        return False
    rule = settings.sharpness
    if rule is None:
        return True
    free = sharpness.load(rule["name"]).stackable
    return free is not None and all(rule[key] == value for key, value in _defaults(rule["name"]) if key not in free)


def _made_of(settings: RunConfig, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Tell whether a model has modules of some kinds alone; one that cannot be made says why when it is trained."""
    plain = _seedless(settings)["data"]
    try:
        with torch.random.fork_rng(devices=[]):
            model = parts.model(settings, _card(plain.pop("name"), json.dumps(plain)))
    except (OSError, ValueError):
        return False
    return all(isinstance(module, kinds) for module in model.modules())


@lru_cache(maxsize=64)
def _card(name: str, chosen: str) -> Card:
    return data.card(name, **json.loads(chosen))


@lru_cache(maxsize=64)
def _defaults(rule: str) -> tuple[tuple[str, Any], ...]:
    return tuple((key, option.default) for key, option in options("sharpness", rule).items())


def _seedless(settings: RunConfig) -> dict[str, Any]:
    plain = settings.model_dump()
    del plain["seed"]
    return {**plain, "data": {key: value for key, value in plain["data"].items() if key != "seed"}}


def _but_for_seeds(settings: RunConfig) -> str:
    return json.dumps(_seedless(settings), sort_keys=True)
