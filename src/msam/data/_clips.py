"""A split of prepared clips: a spectrogram and some frames of each, read when they are asked for."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from msam.data import _frames
from msam.data._prepared import FrameStore, Prepared
from msam.types import Batch

Choice = Literal["even", "random"]


@dataclass(frozen=True)
class Clips:
    """Clips of a prepared folder that has an array "audio" `(257, frames)` and frames "video".

    As it stands, a clip gives evenly spaced frames, resized to 224 x 224. In an epoch of training (`in_epoch`) all
    frames of a clip get one crop and one flip, drawn from `(seed, epoch, sample)` alone.

    Attributes:
        prepared: the folder.
        places: the clips of this split, as places in the folder's lists.
        frames: T, how many frames of each.
        choice: which frames in training: "even", or "random" ones in every epoch.
        drawn: seed and epoch of training, or None.
    """

    prepared: Prepared
    places: tuple[int, ...]
    frames: int = 1
    choice: Choice = "even"
    drawn: tuple[int, int] | None = None

    reads_ahead = True

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Sequence[int]) -> Batch:
        places = [self.places[sample] for sample in index]
        rows = [self.prepared.rows[place] for place in places]
        audio = torch.from_numpy(np.stack([self.prepared.arrays["audio"][row] for row in rows])).unsqueeze(1)
        video = torch.stack([self._clip(sample, row) for sample, row in zip(index, rows, strict=True)])
        target = torch.tensor([self.prepared.labels[place] for place in places])
        return Batch({"audio": audio, "video": video}, target)

    def in_epoch(self, seed: int, epoch: int) -> "Clips":
        """Return the split as training sees it in one epoch."""
        return replace(self, drawn=(seed, epoch))

    @property
    def labels(self) -> list[int]:
        """Classes of the clips."""
        return [self.prepared.labels[place] for place in self.places]

    @property
    def ids(self) -> list[str]:
        """Names of the clips."""
        return [self.prepared.ids[place] for place in self.places]

    def _clip(self, sample: int, row: int) -> Tensor:
        rng = None if self.drawn is None else np.random.default_rng([*self.drawn, sample])
        return taken(self.prepared.frames["video"], row, self.frames, self.choice, rng)


def taken(
    store: FrameStore,
    row: int,
    wanted: int,
    choice: str,
    rng: Generator | None,
    size: int = _frames.SIZE,
    *,
    crop: bool = True,
) -> Tensor:
    """Return frames of a row as a clip `(3, wanted, size, size)`.

    Arguments:
        store: where they are.
        row: of the store.
        wanted: how many.
        choice: which with `rng`: "even" or "random"; evenly spaced ones without.
        rng: source of what is drawn in training; None as at evaluation.
        size: height and width of the clip.
        crop: whether one crop and one flip are drawn for all frames.
    """
    count = store.count(row)
    if rng is not None and choice == "random":
        chosen = _frames.at_random(count, wanted, rng)
    else:
        chosen = _frames.evenly(count, wanted)
    pictures = [store.frame(row, number) for number in chosen]
    part, flip = None, False
    if rng is not None and crop:
        height, width, _ = pictures[0].shape
        part = _frames.random_crop(height, width, rng)
        flip = bool(rng.random() < 0.5)
    return _frames.standardised([_frames.resized(picture, part, size, flip=flip) for picture in pictures])


def fingerprint(prepared: Prepared, splits: Mapping[str, Clips]) -> str:
    """Return the sha256 of what a dataset is: the fingerprint of the prepared content, and which clip is in which split."""
    lists = {name: split.ids for name, split in splits.items()}
    return hashlib.sha256(json.dumps([prepared.fingerprint, lists]).encode()).hexdigest()
