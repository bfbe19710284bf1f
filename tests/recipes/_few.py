"""Miniatures of the paper's datasets, prepared as a user would, and recipes cut down to what trains in seconds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from msam.data import Dataset, Split
from msam.data.ave import prepare as prepare_ave
from msam.data.cremad import prepare as prepare_cremad
from msam.data.urfunny import prepare as prepare_urfunny
from msam.models import Encoder
from msam.models.transformer import SequenceTransformer
from msam.types import Batch
from tests.fixtures import ave_clips, ave_features, avmnist, cremad, urfunny

SPLITS = ("train", "valid", "test")


class Few:
    """The first samples of a split, which is otherwise as it is: read from disk, drawn anew in every epoch."""

    reads_ahead = True

    def __init__(self, split: Split, size: int) -> None:
        self.split, self.size = split, min(size, len(split))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Sequence[int]) -> Batch:
        assert max(index) < self.size
        return self.split[index]

    def in_epoch(self, seed: int, epoch: int) -> "Few":
        drawn = getattr(self.split, "in_epoch", None)
        return Few(drawn(seed, epoch), self.size) if drawn else self


def cut(whole: Dataset, train: int, rest: int = 2) -> Dataset:
    sizes = {name: train if name == "train" else rest for name in SPLITS}
    return replace(whole, **{name: Few(getattr(whole, name), size) for name, size in sizes.items()})


def small_transformer(shape: Sequence[int]) -> Encoder:
    """Return the encoder of UR-FUNNY with one narrow layer: three of eight wide ones have 133 million parameters."""
    return Encoder([SequenceTransformer(shape[1], width=16, hidden=16, depth=1)], 16)


def small_resnet(shape: Sequence[int]) -> Encoder:
    """Return a net of one convolution for pictures and for frames."""
    time = [nn.Flatten(1, 2)] if len(shape) == 4 else []
    channels = shape[0] * (shape[1] if time else 1)
    return Encoder([*time, nn.Conv2d(channels, 8, 7, stride=7), nn.AdaptiveAvgPool2d(1), nn.Flatten()], 8)


def root_of(dataset: str, folder: Path) -> str:
    """Return the root of a dataset's miniature, written into `folder`."""
    return str(MADE[dataset](folder))


def _cremad(folder: Path) -> Path:
    raw = cremad.write_release(folder / "raw", cremad.names(2))
    return prepare_cremad(str(raw), str(folder / "prepared"), workers=1)


def _ave_clips(folder: Path) -> Path:
    raw = ave_clips.write_release(folder / "raw", ave_clips.events(4))
    return prepare_ave(str(raw), str(folder / "prepared"), workers=1)


def _urfunny(folder: Path) -> Path:
    return prepare_urfunny(str(urfunny.write(folder / "humor.pkl")), str(folder / "prepared"))


MADE: dict[str, Callable[[Path], Any]] = {
    "avmnist": lambda folder: avmnist.write(folder),
    "cremad": _cremad,
    "urfunny": _urfunny,
    "ave": _ave_clips,
    "ave_features": lambda folder: ave_features.write(folder / "ave"),
}
