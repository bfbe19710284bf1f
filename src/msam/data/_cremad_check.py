"""What is there of a CREMA-D release, before it is prepared."""

from pathlib import Path

import torch

from msam.data import _cremad_files, _frames, _media, _spectrogram, cremad
from msam.data._check import Check
from msam.data._prepare import Item
from msam.types import Batch

SHOWN = 8


def release(found: Check, root: Path, fps: int) -> None:
    """Look at every file: is it there, can it be opened; and decode one clip of each class for the picture."""
    try:
        layout = _cremad_files.layout(root, fps)
    except ValueError as error:
        found.missing(str(error))
        return
    found.ok(f"the {layout.words}")
    listed = _cremad_files.lists(root)
    items, strays = _cremad_files.items(layout, listed)
    if listed.files:
        for part, ids in listed.parts.items():
            found.split(part, (listed.labels[clip] for clip in ids), cremad.CLASSES)
    else:
        found.note(f"no train.csv and test.csv: split 'speaker' only. {_cremad_files.WHERE}.")
        found.split("all", (item.label for item in items), cremad.CLASSES)
    for at, why in {**listed.bad, **strays}.items():
        found.broken(f"{at}: {why}")
    whole = [item for item in items if _look(found, item)]
    found.ok(f"{len(whole)} of {len(items)} clips have sound and video that can be opened")
    found.batch = _batch(found, whole, fps)


def _look(found: Check, item: Item) -> bool:
    for role, path in item.sources.items():
        if not path.exists():
            found.missing(f"{role} of {item.id}: {path}")
            return False
        try:
            _media.probe(next(iter(sorted(path.glob("*.jpg"))), path) if path.is_dir() else path)
        except ValueError as error:
            found.broken(str(error))
            return False
    return True


def _batch(found: Check, items: list[Item], fps: int) -> Batch | None:
    first = {item.label: item for item in reversed(items)}
    definition = _spectrogram.named("257x299")
    audio, video, target = [], [], []
    for label, item in sorted(first.items())[:SHOWN]:
        try:
            made = cremad.decode(item, definition=definition, fps=fps)
        except ValueError as error:
            found.broken(str(error))
            continue
        pictures = made["video"]
        audio.append(torch.from_numpy(made["audio"]).unsqueeze(0))
        video.append(_frames.standardised([_frames.resized(pictures[_frames.evenly(len(pictures), 1)[0]])]))
        target.append(label)
    if not target:
        return None
    return Batch({"audio": torch.stack(audio), "video": torch.stack(video)}, torch.tensor(target))
