"""What datasets of files share in `check`: are all there, can they be opened, is a prepared folder what was prepared."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from msam.data import _frames, _media
from msam.data._check import Check
from msam.data._layout import Arrays
from msam.data._loaders import Dataset
from msam.data._prepare import Item
from msam.data._prepared import Prepared, damages, opened
from msam.types import Batch

SHOWN = 8
"""Samples that are drawn."""


def sound(
    found: Check, items: Sequence[Item], look: Callable[[str, Path], None] = lambda _, path: _media.probe(path)
) -> list[Item]:
    """Look at every file and return the items whose files are all there and can be opened.

    Arguments:
        found: takes note of the others.
        items: what there should be.
        look: raises ValueError for a file, of a role, that cannot be opened; of a folder it is asked about the first .jpg.
    """
    return [item for item in items if _is_sound(found, item, look)]


def of_each_class(items: Sequence[Item]) -> list[Item]:
    """Return the first item of each class, in the order of the classes."""
    first = {item.label: item for item in reversed(items)}
    return [item for _, item in sorted(first.items())][:SHOWN]


def made(found: Check, items: Sequence[Item], decode: Callable[[Item], Arrays]) -> list[tuple[Item, Arrays]]:
    """Decode items and return those that could be, with their arrays."""
    done = []
    for item in items:
        try:
            done.append((item, decode(item)))
        except ValueError as error:
            found.broken(str(error))
    return done


def clips(done: Sequence[tuple[Item, Arrays]], frames: int) -> Batch | None:
    """Return decoded clips, of a spectrogram "audio" and frames "video", as the batch they will be."""
    if not done:
        return None
    audio = torch.stack([torch.from_numpy(arrays["audio"]).unsqueeze(0) for _, arrays in done])
    chosen = [[arrays["video"][n] for n in _frames.evenly(len(arrays["video"]), frames)] for _, arrays in done]
    video = torch.stack([_frames.standardised([_frames.resized(picture) for picture in of]) for of in chosen])
    return Batch({"audio": audio, "video": video}, torch.tensor([item.label for item, _ in done]))


def prepared(
    found: Check,
    folder: Path,
    what: str,
    load: Callable[[Prepared], Dataset],
    labels: Callable[[Dataset, str], Sequence[int]] = lambda data, part: getattr(data, part).labels,
) -> None:
    """Look at a prepared folder: all its content, what was left out, and its splits.

    Arguments:
        found: takes note; its name is that of the dataset.
        folder: where it lies.
        what: word for its items, "clips" for instance.
        load: from the folder to the dataset; its ValueError says why there is none.
        labels: class numbers of a split of it.
    """
    try:
        content = opened(folder, found.name)
    except ValueError as error:
        found.broken(str(error))
        return
    for line in damages(content):
        found.broken(line)
    found.ok(f"{len(content.ids)} {what} prepared with {dict(content.parameters)}")
    for left_out in content.manifest["failures"]:
        found.note(f"left out when it was prepared: {left_out['id']}: {left_out['reason']}")
    try:
        data = load(content)
    except ValueError as error:
        found.note(str(error))
        return
    found.classes = data.classes
    for name in ("train", "valid", "test"):
        found.split(name, labels(data, name), data.classes)
    found.fingerprint, found.batch = data.fingerprint, data.train[range(min(SHOWN, len(data.train)))]


def _is_sound(found: Check, item: Item, look: Callable[[str, Path], None]) -> bool:
    for role, path in item.sources.items():
        if not path.exists():
            found.missing(f"{role} of {item.id}: {path}")
            return False
        try:
            look(role, next(iter(sorted(path.glob("*.jpg"))), path) if path.is_dir() else path)
        except ValueError as error:
            found.broken(str(error))
            return False
    return True
