"""One's own data, loaded: the parts of a prepared folder, their words numbered, and what samples lack."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msam.data import _clips
from msam.data._folder_files import VOCABULARY
from msam.data._folder_table import PARTS
from msam.data._prepared import Prepared
from msam.data._splits import stratified
from msam.types import Batch

UNKNOWN = 1
"""Number of every word that is not in the vocabulary; 0 is no word."""


@dataclass(frozen=True)
class View:
    """How samples are shown to a model.

    Attributes:
        frames: T, of videos.
        choice: which of them in training: "even" or "random".
        size: height and width of pictures and frames.
        crop: whether pictures and frames get a random crop and flip in training.
    """

    frames: int
    choice: str
    size: int
    crop: bool


@dataclass(frozen=True)
class FolderSplit:
    """Samples of a prepared folder of one's own data; what a sample lacks is zeros, and said in `Batch.present`.

    Attributes:
        prepared: the folder.
        places: the samples of this split, as places in the folder's lists.
        view: how they are shown.
        there: `(items, M)`, whether a sample of the folder has a modality.
        vocabularies: modality -> words that have a number of their own; of text.
        drawn: seed and epoch of training, or None.
    """

    prepared: Prepared
    places: tuple[int, ...]
    view: View
    there: NDArray[np.bool_]
    vocabularies: Mapping[str, "Vocabulary"] = field(default_factory=dict)
    drawn: tuple[int, int] | None = None

    reads_ahead = True

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Sequence[int]) -> Batch:
        places = [self.places[sample] for sample in index]
        kinds = kinds_of(self.prepared)
        mask = torch.from_numpy(self.there[places])
        inputs = {}
        for column, (name, kind) in enumerate(kinds.items()):
            made = self._values(name, kind, column, index, places)
            inputs[name] = made * mask[:, column].view(-1, *[1] * (made.dim() - 1)).to(made.dtype)
        target = torch.tensor([self.prepared.labels[place] for place in places])
        return Batch(inputs, target, None if self.there.all() else mask)

    def in_epoch(self, seed: int, epoch: int) -> "FolderSplit":
        """Return the split as training sees it in one epoch."""
        return replace(self, drawn=(seed, epoch))

    @property
    def labels(self) -> list[int]:
        """Classes of the samples."""
        return [self.prepared.labels[place] for place in self.places]

    @property
    def ids(self) -> list[str]:
        """Names of the samples."""
        return [self.prepared.ids[place] for place in self.places]

    def _values(self, name: str, kind: str, column: int, index: Sequence[int], places: Sequence[int]) -> Tensor:
        rows = [self.prepared.rows[place] for place in places]
        if kind in ("image", "video"):
            clips = [self._clip(name, kind, column, sample, row) for sample, row in zip(index, rows, strict=True)]
            return torch.stack(clips)
        values = np.stack([self.prepared.arrays[name][row] for row in rows])
        if kind == "text":
            values = self.vocabularies[name].numbers(values)
        return torch.from_numpy(values).unsqueeze(1) if kind == "audio" else torch.from_numpy(values)

    def _clip(self, name: str, kind: str, column: int, sample: int, row: int) -> Tensor:
        store, view = self.prepared.frames[name], self.view
        rng = None if self.drawn is None else np.random.default_rng([*self.drawn, sample, column])
        wanted = view.frames if kind == "video" else 1
        clip = _clips.taken(store, row, wanted, view.choice, rng, view.size, crop=view.crop)
        return clip if kind == "video" else clip[:, 0]


@dataclass(frozen=True)
class Vocabulary:
    """Words of the training samples by their marks, numbered by how many samples have them: 2, 3, ...

    Attributes:
        marks: ascending.
        ids: their numbers.
    """

    marks: NDArray[np.int64]
    ids: NDArray[np.int64]

    @classmethod
    def of(cls, rows: NDArray[np.int64]) -> "Vocabulary":
        """Return the vocabulary of texts `(n, T)` of marks; of too many words those of most samples are kept.

        >>> Vocabulary.of(np.array([[7, 5, 7], [5, 0, 0]])).numbers(np.array([[5, 7, 9, 0]]))
        array([[2, 3, 1, 0]])
        """
        counts: Counter[int] = Counter()
        for row in rows.tolist():
            counts.update({word for word in row if word})
        kept = sorted(counts, key=lambda word: (-counts[word], word))[: VOCABULARY - UNKNOWN - 1]
        numbers = {word: number for number, word in enumerate(kept, start=UNKNOWN + 1)}
        marks = sorted(numbers)
        return cls(np.array(marks, np.int64), np.array([numbers[word] for word in marks], np.int64))

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of marks `(n, T)`: 1 for a word that is not known, 0 for none."""
        nearest = np.minimum(np.searchsorted(self.marks, rows), len(self.marks) - 1)
        found = np.where(self.marks[nearest] == rows, self.ids[nearest], UNKNOWN)
        return np.where(rows == 0, 0, found)


def splits(found: Prepared, view: View, valid: float, test: float, seed: int) -> dict[str, FolderSplit]:
    """Return train, valid and test: as the table gives them, or drawn by class and group.

    Raises:
        ValueError: if a part would be empty, or a class had no sample of train.
    """
    places = {part: _sorted(found, of) for part, of in (_given(found) or _drawn(found, test, seed)).items()}
    if not places["valid"]:
        places["train"], places["valid"] = _held(found, places["train"], valid, seed)
    _whole(found, places)
    there, vocabularies = present(found), {}
    for name, kind in kinds_of(found).items():
        if kind == "text":
            rows = [found.rows[place] for place in places["train"]]
            vocabularies[name] = Vocabulary.of(np.stack([found.arrays[name][row] for row in rows]))
            if not len(vocabularies[name].marks):
                raise ValueError(f"Train must have samples with {name!r}, found none in {found.folder}.")
    return {part: FolderSplit(found, tuple(places[part]), view, there, vocabularies) for part in PARTS}


def kinds_of(found: Prepared) -> dict[str, str]:
    """Return modality -> kind of what a folder holds."""
    kinds: dict[str, str] = found.parameters["kinds"]
    return kinds


def present(found: Prepared) -> NDArray[np.bool_]:
    """Return `(items, M)`: whether a sample has a modality."""
    kinds = kinds_of(found)
    return np.array([[name in item["sources"] for name in kinds] for item in found.manifest["items"]], dtype=bool)


def fingerprint(found: Prepared, parts: Mapping[str, FolderSplit]) -> str:
    """Return the sha256 of content, of what samples lack, of kinds, and of which sample is in which split."""
    lists = {name: split.ids for name, split in parts.items()}
    lacking = sorted((one, row) for one, row in zip(found.ids, present(found).tolist(), strict=True) if not all(row))
    content: list[Any] = [found.fingerprint, lists, lacking, kinds_of(found)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _sorted(found: Prepared, places: Iterable[int]) -> list[int]:
    """Return places in the order of ids: how the table is sorted decides nothing."""
    return sorted(places, key=lambda place: found.ids[place])


def _given(found: Prepared) -> dict[str, list[int]] | None:
    if "given" not in found.manifest["splits"]:
        return None
    place = {name: number for number, name in enumerate(found.ids)}
    parts = found.manifest["splits"]["given"]["parts"]
    return {part: [place[name] for name in parts[part]] for part in PARTS}


def _drawn(found: Prepared, test: float, seed: int) -> dict[str, list[int]]:
    train, held = _held(found, _sorted(found, range(len(found.ids))), test, seed)
    return {"train": train, "valid": [], "test": held}


def _held(found: Prepared, places: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return what stays and what is held out, by class, and in whole groups where there are any."""
    groups = [found.manifest["items"][place]["group"] for place in places]
    # without a group of its own a sample is one
    names = [group or f"\0{place}" for group, place in zip(groups, places, strict=True)]
    labels = [found.labels[place] for place in places]
    held = set(stratified(labels, share, seed, names if any(groups) else None))
    return (
        [place for number, place in enumerate(places) if number not in held],
        [place for number, place in enumerate(places) if number in held],
    )


def _whole(found: Prepared, places: Mapping[str, Sequence[int]]) -> None:
    for part in PARTS:
        if not places[part]:
            raise ValueError(f"Every part must have samples, found none of {part} in {found.folder}.")
    trained = {found.labels[place] for place in places["train"]}
    for part in ("valid", "test"):
        for place in places[part]:
            if found.labels[place] not in trained:
                name = found.manifest["classes"][found.labels[place]]
                raise ValueError(
                    f"Every class must have samples of train, found {name!r} in {part} only (sample {found.ids[place]!r}). "
                    "Add samples of it, take another seed, or give the split in the table."
                )
