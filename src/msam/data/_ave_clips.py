"""AVE as clips: the event of every video, its sound and its frames, from the files as they are published."""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from msam import checks
from msam.data import _clips, _frames, _looks, _media, _spectrogram
from msam.data._ave_features import CATEGORIES
from msam.data._ave_features import FILES as FEATURES
from msam.data._card import Card, folder_of
from msam.data._check import Check
from msam.data._clips import Clips
from msam.data._layout import Arrays
from msam.data._lists import lines
from msam.data._loaders import Dataset
from msam.data._prepare import Item, prepared
from msam.data._prepared import is_prepared, opened

LISTS = {"test": "testSet.txt", "valid": "valSet.txt", "train": "trainSet.txt"}
"""Files of the official split, in the order in which they are read: a video that comes again counts for the first."""

VIDEOS = "AVE"
SECONDS = 10
LEAST = 10
"""Frames kept of an event that has as many."""

SPECTROGRAM = "257x1004"
SHAPE = _spectrogram.named(SPECTROGRAM).shape
NAME = re.compile(r"[A-Za-z0-9_-]+")
HEADER = "Category"


@dataclass
class Lists:
    """What the lists of the official split say.

    Attributes:
        files: the files read.
        parts: "train", "valid" and "test" -> ids, in their order.
        events: id -> class, begin and end of the event in seconds.
        bad: "trainSet.txt line 3" -> what is wrong with the row.
        again: "trainSet.txt line 7" -> id of a video that was listed before.
    """

    files: list[Path] = field(default_factory=list)
    parts: dict[str, list[str]] = field(default_factory=dict)
    events: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)


def clips(root: str, frames: int, choice: Any) -> Dataset:
    """Return AVE's clips; see `msam.data.ave.ave`."""
    folder = folder_of("ave", root)
    if not is_prepared(folder) and is_raw(folder):
        raise ValueError(
            f"`root` must be a prepared folder, {folder} holds AVE as it was published. Run msam data prepare ave --root "
            f"{folder} --out DIR once, then give DIR. (For the features, option protocol features, nothing is prepared.)"
        )
    if not is_prepared(folder) and (folder / FEATURES["audio"]).is_file():
        raise ValueError(
            f"`root` must be a folder of prepared clips, {folder} holds the features. Give the option protocol features."
        )
    found = opened(folder, "ave")
    place = {name: number for number, name in enumerate(found.ids)}
    lists = found.manifest["splits"]["official"]["parts"]
    parts = {
        part: Clips(found, tuple(place[name] for name in lists[part]), frames, choice)
        for part in ("train", "valid", "test")
    }
    for part, split in parts.items():
        if not len(split):
            raise ValueError(f"Every part must have clips, found none of {part} in {folder}. Prepare them.")
    described = card(frames)
    return Dataset(
        described.name,
        parts["train"],
        parts["valid"],
        parts["test"],
        num_classes=described.num_classes,
        shapes=described.shapes,
        encoders=described.encoders,
        fingerprint=_clips.fingerprint(found, parts),
        classes=described.classes,
        facts={"fps": float(found.parameters["fps"]), "standardised": float(found.parameters["standardise"])},
    )


def card(frames: int) -> Card:
    """Return what is known of AVE's clips before a file is read."""
    shapes = {"audio": (1, *SHAPE), "video": (3, frames, _frames.SIZE, _frames.SIZE)}
    return Card("ave", shapes, {"audio": "resnet18", "video": "resnet18_frames"}, len(CATEGORIES), CATEGORIES)


def prepare(
    root: str, out: str, *, standardise: bool, fps: int, short_side: int, lists: str, workers: int, missing: str
) -> Path:
    """Prepare AVE's clips; see `msam.data.ave.prepare`."""
    place = Path(root)
    listed = read_lists(Path(lists) if lists else place)
    decoding = {"spectrogram": SPECTROGRAM, "standardise": standardise, "fps": fps, "short_side": short_side}
    wanted = items(place, listed)
    _media.check_rate((item.sources["video"] for item in wanted), fps)
    return prepared(
        "ave",
        place,
        out,
        wanted,
        partial(decode, standardise=standardise, fps=fps, short_side=short_side),
        classes=CATEGORIES,
        parameters=decoding,
        splits={"official": _official(listed)},
        failures=listed.bad,
        notes=_about(listed),
        workers=workers,
        missing=missing,
    )


def check(root: str, frames: int) -> Check:
    """Look at AVE's clips, prepared or as published; see `msam.data.ave.check`."""
    folder, found = folder_of("ave", root), Check("ave", classes=CATEGORIES)
    if not is_prepared(folder) and not is_raw(folder):
        try:
            clips(root, frames, "even")
        except ValueError as error:
            found.broken(str(error))
        return found
    if is_prepared(folder):
        _looks.prepared(found, folder, "clips", lambda _: clips(root, frames, "even"))
        return found
    try:
        listed = read_lists(folder)
    except ValueError as error:
        found.missing(str(error))
        return found
    for note in _about(listed):
        found.note(note)
    for part in ("train", "valid", "test"):
        found.split(part, (listed.events[name][0] for name in listed.parts[part]), CATEGORIES)
    for at, why in listed.bad.items():
        found.broken(f"{at}: {why}")
    there = items(folder, listed)
    whole = _looks.sound(found, there)
    found.ok(f"{len(whole)} of {len(there)} videos can be opened")
    decoder = partial(decode, standardise=False, fps=1, short_side=256)
    found.batch = _looks.clips(_looks.made(found, _looks.of_each_class(whole), decoder), frames)
    return found


def is_raw(folder: Path) -> bool:
    """Tell whether it is the folder of the release, or of a part of it."""
    return (folder / VIDEOS).is_dir() or any((folder / name).is_file() for name in LISTS.values())


def items(root: Path, listed: Lists) -> list[Item]:
    """Return every video of the lists as an item, in the order of train, valid and test."""
    return [
        Item(name, label, {"video": root / VIDEOS / f"{name}.mp4"}, {"start": start, "end": end})
        for part in ("train", "valid", "test")
        for name in listed.parts[part]
        for label, start, end in [listed.events[name]]
    ]


def decode(item: Item, *, standardise: bool, fps: int, short_side: int) -> Arrays:
    """Return the spectrogram of an event and its frames.

    Raises:
        ValueError: if the file is broken, or has no sound or no picture where the event is.
    """
    video, start, end = item.sources["video"], item.more["start"], item.more["end"]
    definition = _spectrogram.named(SPECTROGRAM, standardise=standardise)
    whole = _media.read_audio(video, definition.rate)
    heard = whole[round(start * definition.rate) : round(end * definition.rate)]
    if not len(heard):
        length = len(whole) / definition.rate
        raise ValueError(f"{video} must hold sound from {start:g} to {end:g} s, found {length:.2f} s of it.")
    seen = _media.frames(video, fps, (start, end), LEAST)
    return {"audio": definition(heard), "video": [_frames.shortened(frame, short_side) for _, frame in seen]}


def read_lists(folder: Path) -> Lists:
    """Read the three lists of the official split.

    Raises:
        ValueError: if one is not there, or lists nothing.
    """
    lacking = [name for name in LISTS.values() if not (folder / name).is_file()]
    if lacking:
        raise ValueError(
            f"{folder} must hold {', '.join(reversed(LISTS.values()))} of the AVE dataset, found no {', '.join(lacking)}. "
            "Give their folder with --lists."
        )
    found = Lists()
    for part, name in LISTS.items():
        found.files.append(folder / name)
        found.parts[part] = []
        for line, row in _rows(folder / name):
            event = _event(row)
            if isinstance(event, str):
                found.bad[f"{name} line {line}"] = event
            elif row[1] in found.events:
                found.again[f"{name} line {line}"] = row[1]
            else:
                found.parts[part].append(row[1])
                found.events[row[1]] = event
        if not found.parts[part] and not found.bad:
            raise ValueError(f"{folder / name} must list videos, found none that is not listed elsewhere.")
    return found


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and cells; commas belong to the names of classes."""
    for number, line in enumerate(lines(file), start=1):
        cells = [cell.strip() for cell in line.split("&")]
        if any(cells) and not (number == 1 and cells[0] == HEADER):
            yield number, cells


def _event(row: list[str]) -> tuple[int, float, float] | str:
    """Return class, begin and end; or what is wrong with the row."""
    if len(row) != 5:
        return f"a row must be Category&VideoID&Quality&Start&End, received {'&'.join(row)!r}"
    category, name, _, start, end = row
    if category not in CATEGORIES:
        return f"unknown class {category!r} of {name!r}.{checks.did_you_mean(category, CATEGORIES)}"
    if not NAME.fullmatch(name):
        return f"the name of a video must be of letters, digits, - and _, received {name!r}"
    try:
        begin, stop = float(start), float(end)
    except ValueError:
        begin = stop = math.nan
    if not 0 <= begin < stop <= SECONDS:
        return (
            f"Start and End of {name!r} must be 0 <= Start < End <= {SECONDS} seconds, received {start!r} and {end!r}"
        )
    return CATEGORIES.index(category), begin, stop


def _official(listed: Lists) -> dict[str, Any]:
    sums = ", ".join(f"{file.name} sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in listed.files)
    return {"how": sums, "parts": listed.parts, "listed_again": listed.again}


def _about(listed: Lists) -> list[str]:
    said = [f"found {', '.join(f'{len(ids)} videos of {part}' for part, ids in listed.parts.items())}"]
    if listed.again:
        first = ", ".join(f"{name} ({at})" for at, name in list(listed.again.items())[:10])
        more = ", ..." if len(listed.again) > 10 else ""
        said.append(f"{len(listed.again)} rows name a video that was listed before, which counts: {first}{more}")
    return said
