"""The files of CREMA-D as they are published, and as OGM-GE and AGM lay them out."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msam.data._lists import lines
from msam.data._prepare import Item

EMOTIONS = {"NEU": 0, "HAP": 1, "SAD": 2, "FEA": 3, "DIS": 4, "ANG": 5}
"""Numbers of the classes, as in OGM-GE and all who took its files; MMPareto sorts the names instead."""

NAME = re.compile(r"(?P<actor>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<intensity>[A-Z]{2}|X)")
LISTS = (".", "CREMAD", "data/CREMAD")
"""Folders under the root that may hold train.csv and test.csv: AGM has CREMAD, OGM-GE data/CREMAD."""

FRAMES = re.compile(r"Image-(\d+)-FPS")
WHERE = (
    "They are train.csv and test.csv of the OGM-GE repository (GeWu-Lab/OGM-GE_CVPR2022), folder data/CREMAD, and are not "
    "part of msam"
)


@dataclass(frozen=True)
class Layout:
    """Where the files of a release lie.

    Attributes:
        words: what was found, for people.
        audio: folder of the .wav files.
        video: folder of the .flv files, or of one folder of pictures for each clip.
        pictures: whether it is the latter.
    """

    words: str
    audio: Path
    video: Path
    pictures: bool

    def sources(self, clip: str) -> dict[str, Path]:
        """Return role -> file or folder of a clip."""
        return {"audio": self.audio / f"{clip}.wav", "video": self.video / (clip if self.pictures else f"{clip}.flv")}

    def clips(self) -> list[str]:
        """Return the names of all clips of which there is sound or video."""
        heard = {file.stem for file in self.audio.glob("*.wav")}
        seen = {entry.stem for entry in self.video.iterdir() if entry.is_dir() or entry.suffix == ".flv"}
        return sorted(heard | seen)


@dataclass
class Lists:
    """What train.csv and test.csv say.

    Attributes:
        files: the files read.
        parts: "train" and "test" -> ids, in their order; empty where there are no files.
        labels: id -> class.
        bad: "train.csv line 3" -> what is wrong with the row.
    """

    files: list[Path] = field(default_factory=list)
    parts: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)


def layout(root: Path, fps: int) -> Layout:
    """Find out how the files under `root` are laid out.

    Raises:
        ValueError: if they are not laid out in any known way, or there are no pictures at `fps`.
    """
    audio = next((root / name for name in ("AudioWAV", "Audio") if (root / name).is_dir()), None)
    rates = {int(found[1]): entry for entry in _folders(root) if (found := FRAMES.fullmatch(entry.name))}
    if audio and (root / "VideoFlash").is_dir():
        return Layout(f"release ({audio.name}/*.wav, VideoFlash/*.flv)", audio, root / "VideoFlash", False)
    if audio and fps in rates:
        of = "OGM-GE" if audio.name == "AudioWAV" else "AGM"
        words = f"pictures as {of} has them ({audio.name}/*.wav, {rates[fps].name}/*/*.jpg)"
        return Layout(words, audio, rates[fps], True)
    if audio and rates:
        known = ", ".join(map(str, sorted(rates)))
        raise ValueError(f"`fps` must be that of the pictures under {root} ({known}), received {fps}.")
    there = ", ".join(sorted(entry.name for entry in _folders(root))) or "no folder"
    raise ValueError(
        f"{root} must hold CREMA-D: AudioWAV (or Audio) with .wav, and VideoFlash with .flv or Image-01-FPS with a "
        f"folder of pictures for each clip; found {there}."
    )


def lists(root: Path, where: str = "") -> Lists:
    """Read train.csv and test.csv, rows `id,EMOTION` without a header.

    Arguments:
        root: of the release; the places of OGM-GE and AGM below it are looked at.
        where: another folder that holds both.

    Raises:
        ValueError: if `where` is given and does not hold both.
    """
    places = [Path(where)] if where else [root / place for place in LISTS]
    folder = next((p for p in places if (p / "train.csv").is_file() and (p / "test.csv").is_file()), None)
    found = Lists()
    if folder is None:
        if where:
            raise ValueError(f"`lists` must be a folder with train.csv and test.csv, found none in {where}. {WHERE}.")
        return found
    for part in ("train", "test"):
        file = folder / f"{part}.csv"
        found.files.append(file)
        found.parts[part] = []
        for line, row in _rows(file):
            wrong = _wrong(row, found)
            if wrong:
                found.bad[f"{file.name} line {line}"] = wrong
            else:
                found.parts[part].append(row[0])
                found.labels[row[0]] = EMOTIONS[row[1]]
    return found


def items(found: Layout, listed: Lists) -> tuple[list[Item], dict[str, str]]:
    """Return every clip, of the lists or on disk, as an item; and name -> reason for files that are none."""
    names = sorted({*listed.labels, *found.clips()})
    good = [clip for clip in names if _label(clip) is not None]
    strays = {clip: "its name is not ACTOR_SENTENCE_EMOTION_INTENSITY" for clip in names if _label(clip) is None}
    return [Item(clip, _label(clip) or 0, found.sources(clip)) for clip in good], strays


def actor(clip: str) -> str:
    """Return who speaks in a clip.

    >>> actor("1001_IEO_NEU_XX")
    '1001'
    """
    return clip.partition("_")[0]


def _label(clip: str) -> int | None:
    found = NAME.fullmatch(clip)
    return EMOTIONS.get(found["emotion"]) if found else None


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and cells; a byte-order mark and either kind of line end are taken as they come."""
    reader = csv.reader(lines(file))
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield reader.line_num, cells


def _wrong(row: Sequence[str], before: Lists) -> str:
    """Return what is wrong with a row, or nothing."""
    if len(row) != 2:
        return f"a row must be `id,EMOTION`, received {','.join(row)!r}"
    clip, emotion = row
    if emotion not in EMOTIONS:
        return f"unknown class {emotion!r} of {clip!r}, known: {', '.join(EMOTIONS)}"
    if _label(clip) is None:
        return f"{clip!r} is not named ACTOR_SENTENCE_EMOTION_INTENSITY"
    if _label(clip) != EMOTIONS[emotion]:
        return f"class {emotion!r} is not the one in the name of {clip!r}"
    if clip in before.labels:
        return f"{clip!r} comes a second time"
    return ""


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise ValueError(
            f"`root` must be the folder of CREMA-D, found {'a file' if root.exists() else 'nothing'} at {root}."
        )
    return [entry for entry in root.iterdir() if entry.is_dir()]
