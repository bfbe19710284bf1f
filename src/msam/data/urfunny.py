"""UR-FUNNY: is it the punchline? Voice, face and words of speakers, aligned word by word."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from msam.data import _humor
from msam.data._card import Card, folder_of
from msam.data._check import Check
from msam.data._humor import CLASSES, LENGTH, SIZES, SPLITS
from msam.data._loaders import Dataset
from msam.types import Batch


def urfunny(*, root: str = "") -> Dataset:
    """Return UR-FUNNY as MultiBench distributes it and AGM reads it, prepared from `humor.pkl`.

    Inputs: "audio" `(50, 81)` (COVAREP), "vision" `(50, 371)` (OpenFace) and "text" `(50, 300)` (GloVe), a row for each
    word. The zeros that the file has *before* the first word are cut off, and zeros follow the last one, up to 50 rows.
    Nothing is standardised. Rows of zeros are padding: an encoder that masks has all it needs, and `split.lengths` has
    the numbers of words. AGM pads a batch to its longest sample, here it is always 50; its transformer, which does not
    mask, sees the difference.

    Splits are those of the file. AGM chooses the epoch on "valid" and reports it there; here "test" is reported.

    The fingerprint is the sha256 of the prepared content, taken when it was prepared.

    Args:
        root: the folder that `msam data prepare urfunny` wrote; by default `urfunny` in the folder MSAM_DATA.

    Raises:
        ValueError: if it is not prepared, or a file of it is missing or damaged.
    """
    folder = folder_of("urfunny", root)
    manifest = _humor.manifest_of(folder)
    train, valid, test = (RaggedSplit(_humor.read(folder, split, manifest)) for split in SPLITS)
    described = card()
    return Dataset(
        described.name,
        train,
        valid,
        test,
        num_classes=described.num_classes,
        shapes=described.shapes,
        encoders=described.encoders,
        fingerprint=manifest["fingerprint"],
        classes=described.classes,
    )


def card(*, root: str = "") -> Card:
    """Return what is known of UR-FUNNY before a file is read."""
    shapes = {name: (LENGTH, size) for name, size in SIZES.items()}
    return Card("urfunny", shapes, dict.fromkeys(SIZES, "transformer"), 2, CLASSES)


def prepare(root: str, out: str) -> Path:
    """Turn `humor.pkl` into the new folder `out`, without running anything that the pickle says.

    Items whose text is all zero are dropped; -inf in audio becomes 0; what comes before the first word (the first row of
    text that is not zero) is cut off from all three; the label is 1 where the file's is at least 1. The counts are printed
    and stand in the manifest; none is expected, since versions of the dataset differ.

    Args:
        root: the pickle.
        out: the folder to make.

    Raises:
        ValueError: if the pickle is missing, damaged, or holds anything but numpy arrays of the right names and shapes, or
            if `out` is not free.
    """
    return _humor.prepare(Path(root), Path(out))


def check(root: str = "") -> Check:
    """Look at a prepared UR-FUNNY: read everything and compare it with what was written.

    Args:
        root: the prepared folder; by default `urfunny` in the folder MSAM_DATA.
    """
    found = Check("urfunny", classes=CLASSES)
    folder = folder_of("urfunny", root)
    try:
        manifest = _humor.manifest_of(folder)
    except ValueError as error:
        found.missing(str(error))
        return found
    contents = {}
    for split in SPLITS:
        try:
            contents[split] = _humor.read(folder, split, manifest)
        except ValueError as error:
            found.broken(str(error))
            continue
        found.ok(f"{split}: {_humor.told(manifest['splits'][split])}")
        found.split(split, contents[split]["label"], CLASSES)
    if found.sound and _humor.fingerprint(contents) != manifest["fingerprint"]:
        found.broken(f"The content of {folder} has changed since it was prepared.")
    if found.sound:
        train = RaggedSplit(contents["train"])
        found.fingerprint, found.batch = manifest["fingerprint"], train[range(min(8, len(train)))]
    return found


class RaggedSplit:
    """Sequences of any length that lie in memory one after another; batches are padded with zeros on the right.

    Arguments:
        content: the arrays of a split, as `msam.data._humor` writes them.

    Attributes:
        lengths: `(n,)` int64, words of every sample.
    """

    def __init__(self, content: Mapping[str, NDArray[Any]]) -> None:
        self._rows = {name: torch.from_numpy(content[name]) for name in SIZES}
        self._starts: list[int] = content["start"].tolist()
        self._target = torch.from_numpy(content["label"])
        self.lengths = torch.from_numpy(np.diff(content["start"]))

    def __len__(self) -> int:
        return len(self._target)

    def __getitem__(self, index: Sequence[int]) -> Batch:
        inputs = {name: rows.new_zeros(len(index), LENGTH, rows.shape[1]) for name, rows in self._rows.items()}
        for place, sample in enumerate(index):
            start, stop = self._starts[sample], self._starts[sample + 1]
            for name, rows in self._rows.items():
                inputs[name][place, : stop - start] = rows[start:stop]
        return Batch(inputs, self._target[torch.as_tensor(index)])
