"""One's own files, decoded: what each kind becomes in a prepared folder."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.data import _frames, _media
from msam.data._folder_table import TOKENS, Table
from msam.data._layout import Arrays, Frames
from msam.data._prepare import Item
from msam.data._spectrogram import SEGMENT, Spectrogram

HOP = 159
VOCABULARY = 32768
"""Numbers that words can have; the encoder token_mean knows as many."""


@dataclass(frozen=True)
class Forms:
    """What files are made into.

    Attributes:
        kinds: modality -> kind.
        rate: samples of sound a second.
        seconds: length of sound.
        fps: frames of video kept of each second.
        short_side: of frames and pictures, where it is longer; 0: as they are.
        length: words of a text.
        shapes: of arrays, by modality.
    """

    kinds: Mapping[str, str]
    rate: int
    seconds: float
    fps: int
    short_side: int
    length: int
    shapes: Mapping[str, Sequence[int]]

    @property
    def spectrogram(self) -> Spectrogram:
        """The definition of all spectrograms."""
        samples = round(self.rate * self.seconds)
        if samples < SEGMENT:
            raise ValueError(
                f"`rate` * `seconds` must be >= {SEGMENT} samples, the length of a spectrogram's segment, received "
                f"{self.rate} * {self.seconds:g} = {samples}."
            )
        return Spectrogram(self.rate, samples, "density", HOP)


def decode(item: Item, *, forms: Forms) -> Arrays:
    """Return a sample's files as arrays; zeros, or one black point, for a modality that it lacks.

    Raises:
        ValueError: if a file is broken or not of its kind.
    """
    return {name: _decoded(name, kind, item.sources.get(name), forms) for name, kind in forms.kinds.items()}


def look(kind: str, path: Path) -> None:
    """Look whether a file can be opened; text is read whole.

    Raises:
        ValueError: if it cannot.
    """
    if kind in ("array", TOKENS):
        array(path)
    elif kind == "text":
        words(path)
    else:
        _media.probe(path)


def shapes(table: Table) -> dict[str, list[int]]:
    """Return the shapes of the arrays of a table, from their headers; a file that is missing or broken says nothing.

    Raises:
        ValueError: if two arrays of a modality differ, naming them.
    """
    found: dict[str, list[int]] = {}
    for name in (name for name, kind in table.kinds.items() if kind == "array"):
        first: Path | None = None
        for path in (row.files[name] for row in table.rows if name in row.files):
            try:
                shape = list(array(path).shape)
            except (ValueError, OSError):
                continue
            if first is None:
                first, found[name] = path, shape
            elif shape != found[name]:
                raise ValueError(
                    f"All arrays of {name!r} must have one shape, found {tuple(found[name])} in {first} and {tuple(shape)} "
                    f"in {path}."
                )
        if first is None:
            raise ValueError(f"{table.file}: column {name!r} must name arrays, found none that can be opened.")
    return found


def array(path: Path) -> NDArray[Any]:
    """Map a .npy file of numbers into memory.

    Raises:
        ValueError: if there is none, it is broken, or holds no numbers; objects are not unpickled.
    """
    _media.existing(path)
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} must be a .npy file of numbers, found that it is broken or none: {error}.") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub" or not found.ndim or not found.size:
        said = f"{found.shape} of {found.dtype}" if isinstance(found, np.ndarray) else "an archive"
        raise ValueError(f"{path} must be a .npy file of numbers with at least one axis, found {said}.")
    return found


def words(path: Path) -> list[str]:
    """Return the words of a text, as whitespace parts them.

    Raises:
        ValueError: if there is no such file, it is not in UTF-8, or there is no word in it.
    """
    _media.existing(path)
    try:
        found = path.read_text(encoding="utf-8-sig").split()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8, found another encoding ({error}).") from error
    if not found:
        raise ValueError(f"{path} must hold at least one word, found none.")
    return found


def mark(word: str) -> int:
    """Return 63 bits of the sha256 of a word, by which it is known until a vocabulary is made; never 0.

    >>> mark("cat") == mark("cat"), mark("cat") == mark("Cat")
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little") >> 1 or 1


def _decoded(name: str, kind: str, path: Path | None, forms: Forms) -> NDArray[Any] | Frames:
    if kind == "audio":
        definition = forms.spectrogram
        silent = np.zeros(definition.shape, np.float32)
        return silent if path is None else definition(_media.read_audio(path, definition.rate))
    if kind in ("image", "video"):
        return [np.zeros((1, 1, 3), np.uint8)] if path is None else _pictures(kind, path, forms)
    if kind == "array":
        wanted = tuple(forms.shapes[name])
        return np.zeros(wanted, np.float32) if path is None else _values(path, wanted)
    row = np.zeros(forms.length, np.int64)
    if path is not None:
        taken = (_numbers(path) if kind == TOKENS else [mark(word) for word in words(path)])[: forms.length]
        row[: len(taken)] = taken
    return row


def _pictures(kind: str, path: Path, forms: Forms) -> Frames:
    found = [_media.picture(path)] if kind == "image" else [frame for _, frame in _media.frames(path, forms.fps)]
    return [_frames.shortened(frame, forms.short_side) for frame in found]


def _values(path: Path, wanted: tuple[int, ...]) -> NDArray[np.float32]:
    found = array(path)
    if found.shape != wanted:
        raise ValueError(f"{path} must have the shape {wanted} of the other arrays, found {found.shape}.")
    with np.errstate(over="ignore"):
        values = np.asarray(found, np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{path} must hold finite numbers, found NaN, infinity or what is too large for float32.")
    return values


def _numbers(path: Path) -> list[int]:
    found = array(path)
    if found.ndim != 1 or found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= VOCABULARY:
        what = f"{found.shape} of {found.dtype}"
        if found.dtype.kind in "iu":
            what += f" from {found.min()} to {found.max()}"
        raise ValueError(
            f"{path} must hold a row of integers from 0 (no word) to {VOCABULARY - 1}, found {what}. Number the words of a "
            "larger vocabulary anew, by frequency in train."
        )
    numbers: list[int] = found.tolist()
    return numbers
