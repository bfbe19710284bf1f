"""CREMA-D: six emotions, acted by 91 people in twelve sentences; sound and video."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from msam import checks
from msam.checks import Range
from msam.data import _clips, _cremad_files, _looks, _media, _spectrogram
from msam.data._card import Card, folder_of
from msam.data._check import Check
from msam.data._clips import Choice, Clips
from msam.data._layout import Arrays
from msam.data._loaders import Dataset
from msam.data._prepare import Item, Missing, Workers, prepared
from msam.data._prepared import Prepared, is_prepared, opened
from msam.data._splits import stratified

Shape = Literal["257x299", "257x188"]
Pad = Literal["reflect", "zeros"]
Rate = Annotated[int, Range(ge=1)]
Split = Literal["official", "speaker"]

CLASSES = ("neutral", "happy", "sad", "fear", "disgust", "anger")
VALID, TEST = 0.1, 0.2
"""Shares held out: of the training clips for validation; of all, where the speakers are split, for test."""


def cremad(
    *,
    root: str = "",
    spectrogram: Shape = "257x299",
    split: Split = "official",
    seed: Annotated[int, Range(ge=0)] = 0,
    frames: Annotated[int, Range(ge=1)] = 1,
    choice: Choice = "even",
) -> Dataset:
    """Return CREMA-D as `msam data prepare cremad` prepared it.

    Inputs: "audio" `(n, 1, 257, 299)` or `(n, 1, 257, 188)`, and "video" `(n, 3, T, 224, 224)`. In training, frames get a
    random crop (area 0.08 to 1, ratio 3/4 to 4/3) and a random flip, one for all frames of a clip; otherwise they are
    resized to 224 x 224; then ImageNet's mean and deviation. Classes: neutral, happy, sad, fear, disgust, anger.

    Published code takes the same clips for validation and test, and often picks frames by chance of the file system; here
    a tenth of the training clips is held out for validation, class by class, and frames are evenly spaced.

    Args:
        root: the prepared folder; by default $MSAM_DATA/cremad.
        spectrogram: which one was prepared: of the papers' text, or of their code.
        split: "official": train.csv and test.csv of OGM-GE, whose speakers are in both; validation is drawn from train and
            shares its speakers as well. "speaker": nobody is in two parts; made here, with a fifth of the clips for test.
        seed: of what is drawn for the split.
        frames: T, frames of each clip.
        choice: which frames in training: evenly spaced, or random ones in every epoch.

    Raises:
        ValueError: for a folder that is not prepared, was changed, or holds another spectrogram; and for "official" without
            the lists.
    """
    checks.arguments_in_range(cremad, locals())
    checks.arguments_among_words(cremad, locals())
    folder = folder_of("cremad", root)
    if not is_prepared(folder) and _is_raw(folder):
        raise ValueError(
            f"`root` must be a prepared folder, {folder} holds CREMA-D as it was published. Run msam data prepare cremad "
            f"--root {folder} --out DIR once, then give DIR."
        )
    found = opened(folder, "cremad")
    there = found.parameters["spectrogram"]
    if there != spectrogram:
        raise ValueError(
            f"`spectrogram` must be {there!r}, which {folder} was prepared with, received {spectrogram!r}. Give it with "
            "--data.spectrogram, or prepare another folder."
        )
    parts = {name: Clips(found, places, frames, choice) for name, places in _parts(found, split, seed).items()}
    return Dataset(
        "cremad",
        parts["train"],
        parts["valid"],
        parts["test"],
        num_classes=len(CLASSES),
        shapes=card(spectrogram=spectrogram, frames=frames).shapes,
        encoders=card().encoders,
        fingerprint=_clips.fingerprint(found, parts),
        classes=CLASSES,
        facts={"fps": float(found.parameters["fps"]), "standardised": float(found.parameters["standardise"])},
    )


def card(
    *,
    root: str = "",
    spectrogram: Shape = "257x299",
    split: Split = "official",
    seed: int = 0,
    frames: int = 1,
    choice: Choice = "even",
) -> Card:
    """Return what is known of it without its files.

    >>> card(spectrogram="257x188", frames=3).shapes
    {'audio': (1, 257, 188), 'video': (3, 3, 224, 224)}
    """
    shapes = {"audio": (1, *_spectrogram.named(spectrogram).shape), "video": (3, frames, 224, 224)}
    return Card("cremad", shapes, {"audio": "resnet18", "video": "resnet18_frames"}, len(CLASSES), CLASSES)


def prepare(
    root: str,
    out: str,
    *,
    spectrogram: Shape = "257x299",
    pad: Pad = "reflect",
    standardise: bool = False,
    fps: Rate = 1,
    lists: str = "",
    workers: Workers = 0,
    missing: Missing = "fail",
) -> Path:
    """Prepare CREMA-D: spectrograms, and frames as they are.

    Args:
        root: the release (AudioWAV, VideoFlash), or sound and pictures as OGM-GE and AGM lay them out.
        out: the folder to write.
        spectrogram: 257x299, of the papers' text, or 257x188, of their code.
        pad: what is beyond the ends of the sound, for 257x188; older librosa mirrored it.
        standardise: each spectrogram by its mean and deviation, as PMR does.
        fps: frames kept of each second.
        lists: folder of train.csv and test.csv; by default the root, CREMAD and data/CREMAD in it.
        workers: processes; 0: one for each core.
        missing: whether clips with missing or broken files end it, or are left out and listed.

    Raises:
        ValueError: if files are missing or broken, or an option is not allowed.
    """
    checks.arguments_in_range(prepare, locals())
    checks.arguments_among_words(prepare, locals())
    definition = _spectrogram.named(spectrogram, pad=pad, standardise=standardise)
    place = Path(root)
    layout, listed = _cremad_files.layout(place, fps), _cremad_files.lists(place, lists)
    items, strays = _cremad_files.items(layout, listed)
    if not layout.pictures:
        _media.check_rate((item.sources["video"] for item in items), fps)
    return prepared(
        "cremad",
        place,
        out,
        items,
        partial(decode, definition=definition, fps=fps),
        classes=CLASSES,
        parameters={
            "spectrogram": spectrogram,
            "pad": pad,
            "standardise": standardise,
            "fps": fps,
            "frames_of": "pictures" if layout.pictures else "video",
        },
        splits={"official": _official(listed)} if listed.parts else {},
        failures={**listed.bad, **strays},
        notes=[f"found the {layout.words}", _about_lists(listed)],
        workers=workers,
        missing=missing,
    )


def check(root: str = "", *, split: Split = "official", seed: int = 0, fps: Rate = 1) -> Check:
    """Say what is there of CREMA-D, prepared or as published.

    Args:
        root: a prepared folder, or the release.
        split: whose sizes are shown, for a prepared folder.
        seed: of the split.
        fps: which pictures to look at, for a release.

    Raises:
        ValueError: if there is nothing at `root`, or an option is not allowed.
    """
    from msam.data import _cremad_check

    checks.arguments_in_range(check, locals())
    checks.arguments_among_words(check, locals())
    folder, found = folder_of("cremad", root), Check("cremad", classes=CLASSES)
    if not is_prepared(folder) and _is_raw(folder):
        _cremad_check.release(found, folder, fps)
        return found
    _looks.prepared(
        found,
        folder,
        "clips",
        lambda made: cremad(root=root, spectrogram=made.parameters["spectrogram"], split=split, seed=seed),
    )
    return found


def decode(item: Item, *, definition: _spectrogram.Spectrogram, fps: int) -> Arrays:
    """Return the spectrogram of a clip and its frames.

    Raises:
        ValueError: if a file is broken, or the frames are not of one size.
    """
    sound, video = item.sources["audio"], item.sources["video"]
    audio = definition(_media.read_audio(sound, definition.rate))
    if video.is_dir():
        pictures = [_media.picture(file) for file in sorted(video.glob("*.jpg"))]
    else:
        pictures = [frame for _, frame in _media.frames(video, fps)]
    if len({picture.shape for picture in pictures}) != 1:
        sizes = sorted({f"{p.shape[1]}x{p.shape[0]}" for p in pictures})
        raise ValueError(f"{video} must hold frames of one size, found {', '.join(sizes) or 'no .jpg'}.")
    return {"audio": audio, "video": pictures}


def _is_raw(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).is_dir() for name in ("AudioWAV", "Audio", "VideoFlash"))


def _official(listed: _cremad_files.Lists) -> dict[str, Any]:
    sums = ", ".join(f"{file.name} sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in listed.files)
    return {"how": f"{sums}; validation is drawn from train when it is loaded", "parts": listed.parts}


def _about_lists(listed: _cremad_files.Lists) -> str:
    if not listed.files:
        return "found no train.csv and test.csv: split 'speaker' only, or put them into the prepared folder later"
    return f"found {' and '.join(map(str, listed.files))}"


def _parts(found: Prepared, split: str, seed: int) -> dict[str, tuple[int, ...]]:
    """Return train, valid and test as places in the folder's lists."""
    if split == "official":
        train, test = _official_places(found)
        held = set(stratified([found.labels[place] for place in train], VALID, seed))
    else:
        places = range(len(found.ids))
        test = stratified(found.labels, TEST, seed, [_cremad_files.actor(found.ids[place]) for place in places])
        train = sorted({*places} - {*test})
        actors = [_cremad_files.actor(found.ids[place]) for place in train]
        held = set(stratified([found.labels[place] for place in train], VALID, seed, actors))
    return {
        "train": tuple(place for number, place in enumerate(train) if number not in held),
        "valid": tuple(place for number, place in enumerate(train) if number in held),
        "test": tuple(test),
    }


def _official_places(found: Prepared) -> tuple[list[int], list[int]]:
    """Return the places of train.csv and test.csv, of the release or put into the prepared folder later."""
    if "official" in found.manifest["splits"]:
        parts = found.manifest["splits"]["official"]["parts"]
    else:
        listed = _cremad_files.lists(found.folder)
        parts = listed.parts
        if not parts:
            raise ValueError(
                f"`split` official needs the official lists, found none in {found.folder} nor when it was prepared. "
                f"{_cremad_files.WHERE}: put them into {found.folder}, or take --data.split speaker."
            )
        if listed.bad:
            raise ValueError(f"{found.folder}: " + "; ".join(f"{at}: {why}" for at, why in listed.bad.items()))
    place = {clip: number for number, clip in enumerate(found.ids)}
    train, test = ([place[clip] for clip in parts[part] if clip in place] for part in ("train", "test"))
    return train, test
