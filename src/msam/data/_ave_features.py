"""AVE as features of every second: VGG19 maps and VGGish vectors in HDF5, read row by row."""

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from msam import checks
from msam.data._card import Card, folder_of
from msam.data._check import Check
from msam.data._loaders import Dataset
from msam.types import Batch

CATEGORIES = (
    "Church bell",
    "Male speech, man speaking",
    "Bark",
    "Fixed-wing aircraft, airplane",
    "Race car, auto racing",
    "Female speech, woman speaking",
    "Helicopter",
    "Violin, fiddle",
    "Flute",
    "Ukulele",
    "Frying (food)",
    "Truck",
    "Shofar",
    "Motorcycle",
    "Acoustic guitar",
    "Train horn",
    "Clock",
    "Banjo",
    "Goat",
    "Baby cry, infant cry",
    "Bus",
    "Chainsaw",
    "Cat",
    "Horse",
    "Toilet flush",
    "Rodents, rats, mice",
    "Accordion",
    "Mandolin",
)
"""The 28 categories of AVE, by the names of its annotations, in the order of the numbers."""
CLASSES = (*CATEGORIES, "background")
SEGMENTS = 10
SHAPES = {"audio": (SEGMENTS, 128), "video": (SEGMENTS, 7, 7, 512)}
ENCODERS = {"audio": "ave_audio", "video": "ave_video"}
FILES = {"audio": "audio_feature.h5", "video": "visual_feature.h5"}
LABELS = "right_labels.h5"
ORDERS = {"train": "train_order.h5", "valid": "val_order.h5", "test": "test_order.h5"}
FEATURE_KEY, ORDER_KEY = "avadataset", "order"
SAMPLED = 32
"""Videos whose features go into the fingerprint."""


def features(root: str) -> Dataset:
    """Return AVE's features; see `msam.data.ave.ave`."""
    folder = folder_of("ave", root)
    stores, classes, orders = opened(folder)
    splits = {name: FeatureSplit(stores, classes, rows) for name, rows in orders.items()}
    described = card()
    return Dataset(
        described.name,
        splits["train"],
        splits["valid"],
        splits["test"],
        num_classes=described.num_classes,
        shapes=described.shapes,
        encoders=described.encoders,
        fingerprint=_fingerprint(stores, classes, orders),
        classes=described.classes,
    )


def card() -> Card:
    """Return what is known of AVE's features before a file is read."""
    return Card("ave", SHAPES, ENCODERS, len(CLASSES), CLASSES)


def check(root: str) -> Check:
    """Look at the files of AVE's features; see `msam.data.ave.check`."""
    found = Check("ave", classes=CLASSES)
    folder = folder_of("ave", root)
    for name in (*FILES.values(), LABELS, *ORDERS.values()):
        if not (folder / name).is_file():
            found.missing(f"{name}: none at {folder / name}")
    if not found.sound:
        return found
    try:
        stores, classes, orders = opened(folder)
    except ValueError as error:
        found.broken(str(error))
        return found
    for name, store in stores.items():
        found.ok(f"{FILES[name]}: {(store.size, *store.shape)} {store.dtype}")
    for name, rows in orders.items():
        found.ok(f"{ORDERS[name]}: {len(rows)} of {len(classes)} videos, {SEGMENTS} segments each")
        found.split(name, classes[rows].reshape(-1), CLASSES)
    left = len(classes) - sum(map(len, orders.values()))
    if left:
        found.note(f"{left} videos are in no split")
    found.fingerprint = _fingerprint(stores, classes, orders)
    train = orders["train"][:8]
    found.batch = FeatureSplit(stores, classes, train)[range(len(train))]
    return found


class RowStore:
    """Rows of one array of an HDF5 file, opened when the first is asked for, by every process for itself.

    HDF5 lets one thread in at a time; several may ask.

    Arguments:
        path: the file.
        key: the array.
        shape: what a row must be.

    Raises:
        ValueError: if the file is missing or no HDF5, or lacks the key, or its array has another shape or no numbers.
    """

    def __init__(self, path: Path, key: str, shape: Sequence[int]) -> None:
        self.path, self.key, self.shape = path, key, tuple(shape)
        self._lock = threading.Lock()
        self._opened: tuple[int, Any] | None = None
        array = self._array()
        if array.shape[1:] != self.shape or array.ndim != len(self.shape) + 1 or array.dtype.kind not in "fiub":
            wanted = ", ".join(map(str, ("n", *self.shape)))
            raise ValueError(f"{path}: {key!r} must be ({wanted}) of numbers, found {array.shape} of {array.dtype}.")
        self.size, self.dtype = int(array.shape[0]), array.dtype

    def rows(self, index: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows `index`, `(len(index), *shape)`; nothing else is read.

        Raises:
            ValueError: if the file is damaged where they lie.
        """
        found = np.empty((len(index), *self.shape), np.float32)
        array = self._array()
        try:
            for place in np.argsort(index, kind="stable"):  # along the file
                array.read_direct(found, np.s_[int(index[place])], np.s_[int(place)])
        except OSError as error:
            raise ValueError(f"{self.path} is damaged ({error}). Get it again.") from error
        return found

    def _array(self) -> Any:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = os.getpid(), _opened_array(self.path, self.key)
            return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_lock", "_opened")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock(), _opened=None)


class FeatureSplit:
    """Videos of a split; the segments of a batch of B become `(10 B,)` targets, video after video.

    Arguments:
        stores: modality -> rows.
        classes: `(n, 10)`, class of every segment of every video.
        videos: rows of the split.
    """

    reads_ahead = True

    def __init__(self, stores: Mapping[str, RowStore], classes: NDArray[np.int64], videos: NDArray[np.int64]) -> None:
        self._stores, self._classes, self.videos = stores, classes, videos

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: Sequence[int]) -> Batch:
        videos = self.videos[list(index)]
        inputs = {name: torch.from_numpy(store.rows(videos)) for name, store in self._stores.items()}
        return Batch(inputs, torch.from_numpy(self._classes[videos].reshape(-1)))


def opened(folder: Path) -> tuple[dict[str, RowStore], NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Return the features, the classes `(n, 10)` of the segments, and the rows of every split.

    Raises:
        ValueError: naming the file that is missing, damaged, or does not fit the others, and what is wrong.
    """
    if folder.is_file():
        raise ValueError(f"`root` must be the folder of AVE's features, received the file {folder}.")
    labels = RowStore(folder / LABELS, FEATURE_KEY, (SEGMENTS, len(CLASSES)))
    stores = {name: RowStore(folder / FILES[name], FEATURE_KEY, SHAPES[name]) for name in SHAPES}
    for store in stores.values():
        if store.size != labels.size:
            raise ValueError(
                f"{store.path} must have a row for each of the {labels.size} videos of {LABELS}, found {store.size}."
            )
    classes = _classes(labels)
    orders = {name: _order(folder / file, labels.size) for name, file in ORDERS.items()}
    _apart(folder, orders)
    return stores, classes, orders


def _classes(labels: RowStore) -> NDArray[np.int64]:
    rows = labels.rows(np.arange(labels.size))
    wrong = np.argwhere(((rows == 1).sum(axis=2) != 1) | ((rows != 0).sum(axis=2) != 1))
    if len(wrong):
        video, segment = wrong[0]
        raise ValueError(
            f"{labels.path} must mark one class of each segment with 1 and the others with 0, found the values "
            f"{np.unique(rows[video, segment])} and {(rows[video, segment] != 0).sum()} classes marked in video {video}, "
            f"segment {segment}."
        )
    return rows.argmax(axis=2).astype(np.int64)


def _order(path: Path, size: int) -> NDArray[np.int64]:
    array = _opened_array(path, ORDER_KEY)
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not len(array):
        raise ValueError(f"{path}: {ORDER_KEY!r} must be (n,) row numbers, found {array.shape} of {array.dtype}.")
    try:
        values = array[:]
    except OSError as error:
        raise ValueError(f"{path} is damaged ({error}). Get it again.") from error
    outside = values[(values < 0) | (values >= size) | (values != np.floor(values))]
    if len(outside):
        raise ValueError(f"{path} must hold row numbers 0 to {size - 1}, found {outside[0]}.")
    return np.asarray(values, np.int64)


def _apart(folder: Path, orders: Mapping[str, NDArray[np.int64]]) -> None:
    owner: dict[int, str] = {}
    for name, rows in orders.items():
        for row in rows.tolist():
            if row in owner:
                raise ValueError(
                    f"Every video must be in one split once, found row {row} in {folder / ORDERS[owner[row]]} and "
                    f"{'again in it' if owner[row] == name else f'in {ORDERS[name]}'}. Take it out of one."
                )
            owner[row] = name


def _opened_array(path: Path, key: str) -> Any:
    """Open an HDF5 file and return one of its arrays, of which nothing has been read."""
    import h5py

    if not path.is_file():
        raise ValueError(f"AVE's features need the file {path}, found none. See docs/data/ave.md for the layout.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is truncated, damaged or no HDF5 file ({error}). Get it again.") from error
    if not isinstance(file.get(key), h5py.Dataset):
        keys = list(file)
        raise ValueError(f"{path} must have an array {key!r}, found {keys}.{checks.did_you_mean(key, keys)}")
    return file[key]


def _fingerprint(
    stores: Mapping[str, RowStore], classes: NDArray[np.int64], orders: Mapping[str, NDArray[np.int64]]
) -> str:
    found = hashlib.sha256(classes.tobytes())
    for name, rows in orders.items():
        found.update(f"{name} {len(rows)};".encode() + rows.tobytes())
    sampled = np.unique(np.linspace(0, len(classes) - 1, min(len(classes), SAMPLED)).astype(np.int64))
    for name, store in stores.items():
        found.update(f"{name} {(store.size, *store.shape)} {store.dtype};".encode())
        found.update(store.rows(sampled).tobytes())
    return found.hexdigest()
