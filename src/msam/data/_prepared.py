"""A prepared folder, opened: arrays and frames mapped into memory, as the manifest describes them."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam import checks
from msam.data import _layout
from msam.data._layout import FORMAT, MANIFEST
from msam.data._prepare import fingerprint


@dataclass(frozen=True)
class FrameStore:
    """Frames of any size, row by row.

    Attributes:
        content: `(bytes,)` uint8, all frames.
        index: `(frames, 3)`: where each begins, its height, its width.
        starts: `(rows + 1,)`: the first frame of each row.
    """

    content: NDArray[np.uint8]
    index: NDArray[np.int64]
    starts: NDArray[np.int64]

    def count(self, row: int) -> int:
        """Return how many frames a row has."""
        return int(self.starts[row + 1] - self.starts[row])

    def frame(self, row: int, number: int) -> NDArray[np.uint8]:
        """Return frame `number` of a row, `(height, width, 3)`; it is mapped, not read."""
        place, height, width = map(int, self.index[self.starts[row] + number])
        return self.content[place : place + height * width * 3].reshape(height, width, 3)


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset. Lists are in the order of the manifest's items; `rows` leads from there to the arrays.

    Attributes:
        folder: where it lies.
        manifest: what `manifest.json` says.
        ids: names of the items.
        labels: numbers of their classes.
        rows: row of each item in every array.
        arrays: name -> `(rows, ...)`, mapped into memory; of the arrays that have one shape.
        frames: name -> frames; of the others.
    """

    folder: Path
    manifest: Mapping[str, Any]
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    rows: tuple[int, ...]
    arrays: Mapping[str, NDArray[Any]]
    frames: Mapping[str, FrameStore]

    @property
    def fingerprint(self) -> str:
        """The sha256 of ids, labels and content."""
        return str(self.manifest["fingerprint"])

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What it was prepared with."""
        found: Mapping[str, Any] = self.manifest["parameters"]
        return found


def opened(folder: str | Path, name: str) -> Prepared:
    """Open a prepared folder.

    Arguments:
        folder: what `msam data prepare NAME --out` wrote.
        name: of the dataset it must hold.

    Raises:
        ValueError: if it is not prepared, not finished, of another dataset or format, or a file of it is missing or has
            another size than the manifest says.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, name)
    for problem in _wrong_files(folder, manifest):
        raise ValueError(f"{problem}. Prepare {name} anew: msam data prepare {name} --root RAW --out FOLDER")
    arrays, frames = {}, {}
    for key, form in manifest["arrays"].items():
        if form["kind"] == "frames":
            content = np.memmap(folder / f"{key}.frames", np.uint8, mode="r")
            frames[key] = FrameStore(content, _loaded(folder, f"{key}.frames"), _loaded(folder, f"{key}.starts"))
        else:
            arrays[key] = _mapped(folder / f"{key}.npy", form, name)
    items = manifest["items"]
    return Prepared(
        folder,
        manifest,
        tuple(item["id"] for item in items),
        tuple(item["label"] for item in items),
        tuple(item["row"] for item in items),
        arrays,
        frames,
    )


def is_prepared(folder: str | Path) -> bool:
    """Tell whether the folder holds a finished preparation."""
    return (Path(folder) / MANIFEST).is_file()


def read_manifest(folder: Path, name: str) -> dict[str, Any]:
    """Read what a prepared folder says of itself.

    Raises:
        ValueError: if there is none, it is damaged, of another format or of another dataset.
    """
    again = f"Run msam data prepare {name} --root RAW --out FOLDER"
    if (folder / "journal.jsonl").exists() and not is_prepared(folder):
        raise ValueError(f"{folder} holds a preparation of {name} that has not finished. {again} once more to go on.")
    if not is_prepared(folder):
        raise ValueError(f"{folder} holds no prepared {name}: it has no {MANIFEST}. {again}, then use that FOLDER.")
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        found, format_ = manifest["dataset"], manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / MANIFEST} is damaged ({type(error).__name__}: {error}). {again}.") from error
    if found != name:
        raise ValueError(f"{folder} must hold prepared {name}, found {found!r}.{checks.did_you_mean(name, [found])}")
    if format_ != FORMAT:
        raise ValueError(f"{folder} must be of format {FORMAT}, found {format_!r}: another msam made it. {again}.")
    return manifest


def damages(prepared: Prepared, progress: Callable[[int, int], None] = lambda _, __: None) -> list[str]:
    """Read everything and return what is not as it was prepared, a line for each item.

    Arguments:
        prepared: the folder.
        progress: is told how many items have been read, and of how many.
    """
    found, items = [], prepared.manifest["items"]
    for number, item in enumerate(items, start=1):
        found += [
            f"{name} of {item['id']} has changed since it was prepared"
            for name in item["arrays"]
            if not _layout.is_sound(prepared.folder, {**item, "arrays": {name: item["arrays"][name]}})
        ]
        progress(number, len(items))
    if fingerprint(items, prepared.manifest["classes"]) != prepared.fingerprint:
        found.append(f"{MANIFEST} has changed since it was written: its fingerprint is not that of its items")
    return found


def _wrong_files(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    for name, wanted in manifest["files"].items():
        if not (folder / name).is_file():
            yield f"{folder / name} is missing"
            continue
        there = _layout.facts(folder / name)
        if there["bytes"] != wanted["bytes"]:
            yield f"{folder / name} must have {wanted['bytes']} bytes, found {there['bytes']}"
        elif there != wanted:
            yield f"{folder / name} has changed since it was prepared"


def _mapped(path: Path, form: Mapping[str, Any], name: str) -> NDArray[Any]:
    wanted = np.dtype(form["dtype"]), tuple(form["shape"])
    there: Any
    found: NDArray[Any] = np.empty(0)
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        there = found.dtype, found.shape[1:]
    except ValueError as error:
        there = str(error)
    if there != wanted:
        raise ValueError(f"{path} must hold rows of {wanted}, found {there}. Prepare {name} anew.")
    return found


def _loaded(folder: Path, name: str) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.load(folder / f"{name}.npy", allow_pickle=False)
    return found
