"""AV-MNIST: written digits that have lost most of their energy, and spectrograms of spoken ones in noise."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from msam import checks
from msam.checks import Range
from msam.data import _archives, _splits
from msam.data._card import Card, folder_of
from msam.data._check import Check
from msam.data._loaders import Dataset
from msam.types import Batch

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHAPES = {"audio": (1, 112, 112), "image": (1, 28, 28)}
ENCODERS = {"audio": "resnet18", "image": "resnet18"}
ROWS = {"audio": ((112, 112), (1, 112, 112)), "image": ((784,), (28, 28), (1, 28, 28))}
"""Forms that a row of the files may have."""
OFFICIAL = {"train": 60000, "test": 10000}
VALID_SHARE = 5000 / 60000
Carve = Literal["multibench", "stratified"]
Seed = Annotated[int, Range(ge=0)]
SAMPLED = 256
"""Rows of every file that go into the fingerprint."""


def avmnist(*, root: str = "", split: Carve = "multibench", seed: Seed = 0) -> Dataset:
    """Return AV-MNIST as MultiBench and MFAS distribute it, read from disk row by row.

    Inputs: "audio" `(1, 112, 112)` and "image" `(1, 28, 28)`, the numbers of the files divided by 255 and nothing else
    (MultiBench); no augmentation. The files may hold bytes, 32-bit or 64-bit floats. They are mapped into memory, and of a
    batch only its rows are read.

    Validation is one twelfth of train: by default its last rows, 55000 to 59999 of 60000, as MultiBench has it; of files of
    another size `round(n / 12)`. AGM has none: it trains on the first 54000, and chooses the epoch on the test set.

    The fingerprint is a sha256 over names, shapes, types, all labels, the split, and 256 rows of every file, evenly spaced.

    Args:
        root: the folder of the six files, or one that holds it; by default `avmnist` in the folder MSAM_DATA.
        split: which rows of train are held out: the last ones, or as many at random, each class in its share.
        seed: of the random ones; the order of the files knows none.

    Raises:
        ValueError: if a file is missing, damaged or not of its shape, labels are no classes, or values lie in 0 to 1: they
            have been divided already.
    """
    checks.arguments_among_words(avmnist, {"split": split})
    checks.arguments_in_range(avmnist, {"seed": seed})
    files = read(folder_of("avmnist", root))
    train, valid = _carved(files["train"].labels, split, seed)
    test = np.arange(len(files["test"].labels))
    described = card()
    return Dataset(
        described.name,
        MappedSplit(files["train"], train),
        MappedSplit(files["train"], valid),
        MappedSplit(files["test"], test),
        num_classes=described.num_classes,
        shapes=described.shapes,
        encoders=described.encoders,
        fingerprint=_fingerprint(files, valid),
        classes=described.classes,
    )


def card(*, root: str = "", split: Carve = "multibench", seed: Seed = 0) -> Card:
    """Return what is known of AV-MNIST before a file is read."""
    return Card("avmnist", SHAPES, ENCODERS, 10, CLASSES)


def prepare(root: str, out: str) -> Path:
    """Unpack the six files of `avmnist.tar.gz` into the new folder `out`; links and foreign paths are refused.

    Args:
        root: the archive.
        out: the folder to make.

    Raises:
        ValueError: if the archive is damaged or lacks a file, a file is not as `avmnist` reads it, or `out` is not free.
    """
    return _archives.extract(Path(root), tuple(file_names()), Path(out), read)


def check(root: str = "", *, split: Carve = "multibench", seed: Seed = 0) -> Check:
    """Look at the files of AV-MNIST: each one there, of its form, and of the official size or another.

    Args:
        root: the folder of the six files; by default `avmnist` in the folder MSAM_DATA.
        split: whose sizes are shown.
        seed: of the split.
    """
    found = Check("avmnist", classes=CLASSES)
    folder = _folder(folder_of("avmnist", root))
    for part in OFFICIAL:
        lacking = [name for name in file_names() if part in name and not (folder / name).is_file()]
        for name in lacking:
            found.missing(f"{name}: none at {folder / name}")
        if lacking:
            continue
        try:
            files = _read_part(folder, part)
        except ValueError as error:
            found.broken(str(error))
            continue
        forms = ", ".join(f"{name} {values.shape[1:]} {values.dtype}" for name, values in files.inputs.items())
        found.ok(f"{part}: {len(files.labels)} rows, {forms}")
        if len(files.labels) != OFFICIAL[part]:
            found.note(
                f"{part}: the official files have {OFFICIAL[part]} rows; a twelfth of train is held out all the same"
            )
    if found.sound:
        dataset = avmnist(root=root, split=split, seed=seed)
        for name, held in (("train", dataset.train), ("valid", dataset.valid), ("test", dataset.test)):
            assert isinstance(held, MappedSplit)
            found.split(name, held.labels, CLASSES)
        found.fingerprint, found.batch = dataset.fingerprint, dataset.train[range(min(8, len(dataset.train)))]
    return found


class Files(NamedTuple):
    """The three files of train or test.

    Attributes:
        inputs: modality -> `(n, ...)`, mapped into memory.
        labels: `(n,)`.
    """

    inputs: dict[str, NDArray[Any]]
    labels: NDArray[np.int64]


class MappedSplit:
    """Rows of files that stay on disk.

    Arguments:
        files: the files.
        rows: the rows of the split.
    """

    reads_ahead = True

    def __init__(self, files: Files, rows: NDArray[np.int64]) -> None:
        self.files, self.rows = files, rows

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of every sample."""
        return self.files.labels[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Sequence[int]) -> Batch:
        rows = self.rows[list(index)]
        inputs = {
            name: torch.from_numpy(values[rows].astype(np.float32).reshape(len(rows), *SHAPES[name])).div_(255)
            for name, values in self.files.inputs.items()
        }
        return Batch(inputs, torch.from_numpy(self.files.labels[rows]))


def read(root: Path) -> Mapping[str, Files]:
    """Return the files of "train" and "test" of a folder, or of the `avmnist` in it.

    Raises:
        ValueError: if one is missing, damaged, not of its shape, or does not fit the others.
    """
    folder = _folder(root)
    return {part: _read_part(folder, part) for part in OFFICIAL}


def file_names() -> Iterator[str]:
    """Yield the six files of the dataset, as paths from its folder."""
    for part in OFFICIAL:
        yield from (f"{name}/{part}_data.npy" for name in SHAPES)
        yield f"{part}_labels.npy"


def _folder(root: Path) -> Path:
    if root.is_file():
        raise ValueError(
            f"`root` must be the folder of AV-MNIST, received the file {root}. Unpack it: "
            f"msam data prepare avmnist --root {root} --out FOLDER"
        )
    nested = root / "avmnist"
    return nested if nested.is_dir() and not (root / "train_labels.npy").exists() else root


def _read_part(folder: Path, part: str) -> Files:
    inputs = {name: _mapped(folder / name / f"{part}_data.npy", "biuf") for name in SHAPES}
    place = folder / f"{part}_labels.npy"
    labels = np.asarray(_mapped(place, "iuf")).reshape(-1)
    if not len(labels):
        raise ValueError(f"{place} must hold labels, found none.")
    wrong = np.flatnonzero(~np.isin(labels, np.arange(10)))
    if len(wrong):
        raise ValueError(f"{place} must hold classes 0 to 9, found {labels[wrong[0]]} in row {wrong[0]}.")
    for name, values in inputs.items():
        where = folder / name / f"{part}_data.npy"
        if values.shape[1:] not in ROWS[name]:
            forms = " or ".join(str((len(labels), *row)) for row in ROWS[name][:2])
            raise ValueError(f"{where} must be {forms}, found {values.shape}.")
        if len(values) != len(labels):
            raise ValueError(f"{where} must have a row for each of {len(labels)} labels, found {len(values)} rows.")
        _in_255(where, values[_spread(len(values))])
    return Files(inputs, labels.astype(np.int64))


def _mapped(place: Path, kinds: str) -> NDArray[Any]:
    """Map an npy file of numbers into memory.

    Raises:
        ValueError: if it is missing, damaged, or holds something else; a pickle in it is never opened.
    """
    if not place.is_file():
        raise ValueError(f"AV-MNIST needs six files, found none at {place}. See docs/data/avmnist.md for the layout.")
    try:
        values = np.load(place, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged file raises a dozen kinds
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise ValueError(f"{place} is damaged or holds no numbers ({reason}). Get it again.") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in kinds:
        found = values.dtype if isinstance(values, np.ndarray) else "an archive"
        raise ValueError(f"{place} must be an array of numbers (uint8, float32 or float64), found {found}.")
    return values


def _in_255(place: Path, rows: NDArray[Any]) -> None:
    if not np.isfinite(rows).all():
        raise ValueError(f"{place} must hold numbers, found NaN or infinity. Get it again.")
    if 0 < rows.max() <= 1:
        raise ValueError(
            f"{place} must hold values of about 0 to 255, found none above {rows.max():g}: they have been divided already. "
            "Take the file as it is distributed, or multiply by 255."
        )


def _carved(labels: NDArray[np.int64], split: str, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of train and of valid."""
    if split == "multibench":
        first = len(labels) - round(len(labels) * VALID_SHARE)
        train, valid = np.arange(first), np.arange(first, len(labels))
    else:
        valid = np.array(_splits.stratified(labels.tolist(), VALID_SHARE, seed))
        train = np.setdiff1d(np.arange(len(labels)), valid)
    if not len(train) or not len(valid):
        raise ValueError(
            f"A twelfth of train is held out for validation, and {len(labels)} rows leave no sample for it. Take more rows."
        )
    return train, valid


def _spread(size: int) -> NDArray[np.int64]:
    """Return the rows that are looked at, evenly spaced, first and last among them."""
    return np.unique(np.linspace(0, size - 1, min(size, SAMPLED)).astype(np.int64))


def _fingerprint(files: Mapping[str, Files], valid: NDArray[np.int64]) -> str:
    digest = hashlib.sha256()
    for part, (inputs, labels) in files.items():
        digest.update(f"{part} {len(labels)};".encode() + labels.tobytes())
        for name, values in inputs.items():
            digest.update(f"{name} {values.shape[1:]} {values.dtype};".encode())
            digest.update(np.ascontiguousarray(values[_spread(len(values))]).tobytes())
    digest.update(valid.astype(np.int64).tobytes())
    return digest.hexdigest()
