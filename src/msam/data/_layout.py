"""The files of a prepared folder: what an array becomes on disk, and how its content is told from other content.

NAME.npy            an array of one shape for every item: a row each, opened with numpy's `mmap_mode="r"`
NAME.frames         frames of any size, one after another: uint8, (height, width, 3) each
NAME.frames.npy     (frames, 3) int64: where each begins, its height, its width
NAME.starts.npy     (rows + 1,) int64: the first frame of each row
manifest.json       written last: a folder without it is no dataset
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam._files import write_whole

Frames = list[NDArray[np.uint8]]
Arrays = Mapping[str, NDArray[Any] | Frames]
"""What an item is made into: name -> array of one shape for all items, or a list of frames `(height, width, 3)`."""

MANIFEST = "manifest.json"
INDICES = (".frames.npy", ".starts.npy")
FORMAT = 1
HEADER = 128
"""Bytes before the rows of a .npy file here; always the same, since the number of rows is known last."""


def form(value: NDArray[Any] | Frames) -> dict[str, Any]:
    """Return what must be the same for every item: kind, and type and shape of a row."""
    if isinstance(value, list):
        if not value or any(f.dtype != np.uint8 or f.ndim != 3 or f.shape[2] != 3 or not f.size for f in value):
            raise ValueError("Frames must be a list of at least one uint8 array of (height, width, 3).")
        return {"kind": "frames"}
    return {"kind": "rows", "dtype": value.dtype.str, "shape": list(value.shape)}


def file(name: str, value: NDArray[Any] | Frames) -> str:
    """Return the name of the file the array goes to."""
    return f"{name}.frames" if isinstance(value, list) else f"{name}.npy"


def begin(value: NDArray[Any] | Frames) -> int:
    """Return where in its file the first item begins."""
    return 0 if isinstance(value, list) else HEADER


def digest(value: NDArray[Any] | Frames) -> str:
    """Return the sha256 of the content: forms and bytes.

    >>> digest(np.zeros(2)) == digest(np.zeros(2)), digest(np.zeros(2)) == digest(np.zeros((2, 1)))
    (True, False)
    """
    found = hashlib.sha256()
    for part in value if isinstance(value, list) else [value]:
        found.update(f"{part.dtype.str} {part.shape};".encode())
        found.update(np.ascontiguousarray(part).data.cast("B") if part.size else b"")
    return found.hexdigest()


def chunks(value: NDArray[Any] | Frames) -> Iterator[memoryview]:
    """Yield the bytes to write."""
    for part in value if isinstance(value, list) else [value]:
        yield np.ascontiguousarray(part).data.cast("B")


def is_sound(folder: Path, line: Mapping[str, Any]) -> bool:
    """Tell whether the arrays of an item (its line in a journal or a manifest) are what they were when written."""
    try:
        return all(digest(read(folder, line, name)) == array["sha256"] for name, array in line["arrays"].items())
    except (OSError, EOFError):
        return False


def read(folder: Path, line: Mapping[str, Any], name: str) -> NDArray[Any] | Frames:
    """Read one array of one item from its file.

    Raises:
        EOFError: if the file ends before.
    """
    array = line["arrays"][name]
    if array["kind"] == "frames":
        with open(folder / f"{name}.frames", "rb") as opened:
            opened.seek(array["start"])
            return [_taken(opened.read(h * w * 3), np.dtype(np.uint8), (h, w, 3)) for h, w in array["sizes"]]
    dtype, shape = np.dtype(array["dtype"]), tuple(array["shape"])
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    with open(folder / f"{name}.npy", "rb") as opened:
        opened.seek(HEADER + line["row"] * size)
        return _taken(opened.read(size), dtype, shape)


def complete(folder: Path, lines: Sequence[Mapping[str, Any]], rows: int) -> dict[str, Any]:
    """Write the headers and indices of a folder whose rows are all there, and force everything onto the disk.

    Returns:
        arrays (name -> form) and files (name -> bytes, and sha256 of the indices), for the manifest.
    """
    arrays = {name: _form_of(array) for name, array in lines[0]["arrays"].items()}
    names = []
    for name, array in arrays.items():
        if array["kind"] == "frames":
            _write_index(folder, name, lines, rows)
            names += [f"{name}.frames", f"{name}.frames.npy", f"{name}.starts.npy"]
            end = max(a["start"] + sum(h * w * 3 for h, w in a["sizes"]) for a in (x["arrays"][name] for x in lines))
            _cut(folder / f"{name}.frames", end, b"")
        else:
            dtype, shape = np.dtype(array["dtype"]), (rows, *array["shape"])
            end = HEADER + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            _cut(folder / f"{name}.npy", end, _header(dtype, shape))
            names.append(f"{name}.npy")
    return {"arrays": arrays, "files": {name: facts(folder / name) for name in names}}


def facts(path: Path) -> dict[str, Any]:
    """Return what a file of a prepared folder is told by: its size, and its sha256 where it is an index."""
    found: dict[str, Any] = {"bytes": path.stat().st_size}
    if path.name.endswith(INDICES):
        found["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _taken(content: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if len(content) < dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise EOFError
    return np.frombuffer(content, dtype).reshape(shape)


def _form_of(array: Mapping[str, Any]) -> dict[str, Any]:
    return {key: array[key] for key in ("kind", "dtype", "shape") if key in array}


def _write_index(folder: Path, name: str, lines: Sequence[Mapping[str, Any]], rows: int) -> None:
    """Write where frames lie; a row of which nothing is used any more has none."""
    of_row = {line["row"]: line["arrays"][name] for line in lines}
    starts, index = [0], []
    for row in range(rows):
        place = of_row[row]["start"] if row in of_row else 0
        for height, width in of_row[row]["sizes"] if row in of_row else ():
            index.append((place, height, width))
            place += height * width * 3
        starts.append(len(index))
    for ending, values in (("frames", index), ("starts", starts)):
        content = np.array(values, np.int64)
        write_whole(folder / f"{name}.{ending}.npy", _header(content.dtype, content.shape) + content.tobytes())


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the header of a .npy file (format 1.0), of the same length for any number of rows.

    >>> header = _header(np.dtype("<f4"), (3, 2))
    >>> len(header), header[:6]
    (128, b'\\x93NUMPY')
    """
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    magic = b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little")
    return magic + text.ljust(HEADER - 11) + b"\n"


def _cut(path: Path, size: int, header: bytes) -> None:
    """Put the header in its place, cut off what lies behind the last row, and force the file onto the disk."""
    with open(path, "r+b") as opened:
        opened.write(header)
        opened.truncate(size)
        opened.flush()
        os.fsync(opened.fileno())
