"""AVE: what is seen and heard in ten seconds of video: its event as a clip, or second by second."""

from pathlib import Path
from typing import Annotated, Literal

from msam import checks
from msam.checks import Range
from msam.data import _ave_clips, _ave_features
from msam.data._card import Card
from msam.data._check import Check
from msam.data._clips import Choice
from msam.data._loaders import Dataset
from msam.data._prepare import Missing, Workers

Protocol = Literal["clips", "features"]
Frames = Annotated[int, Range(ge=1)]
Rate = Annotated[int, Range(ge=1)]
Side = Annotated[int, Range(ge=0)]


def ave(*, root: str = "", protocol: Protocol = "clips", frames: Frames = 3, choice: Choice = "even") -> Dataset:
    """Return AVE: the event of every video as a clip, or features of frozen networks for every second.

    Inputs of protocol "clips" (OGM-GE, PMR, ReconBoost, MLB), as `msam data prepare ave` prepared it: "audio"
    `(1, 257, 1004)`, the log-spectrogram of the event, repeated to ten seconds, and "video" `(3, T, 224, 224)`, frames of
    the event; 28 classes. In training, frames get one random crop and one random flip for all of a clip.

    Inputs of protocol "features" (PSP, AGM): "audio" `(10, 128)`, VGGish, and "video" `(10, 7, 7, 512)`, the last pooled
    map of VGG19, one for each second, as they stand in the files; classes are the 28 of AVE and background. The ten
    segments of a video are folded into the batch: B videos have a target of `(10 B,)`, video after video, and logits
    `(10 B, 29)`; measures are over segments. The features are read from disk, of a batch only its rows. PSP and AGM drop
    the last partial batch in training and evaluation; here every video counts.

    The fingerprint is, for clips, a sha256 over the prepared content and the splits; for features, over names, shapes,
    types, all labels, the splits, and the features of 32 videos, evenly spaced.

    Args:
        root: the prepared folder, or that of the features; by default `ave` in the folder MSAM_DATA.
        protocol: "clips" or "features".
        frames: T, frames of each clip; not for features.
        choice: which frames in training: evenly spaced, or random ones in every epoch; not for features.

    Raises:
        ValueError: for a folder that is not prepared or was changed; for features, if a file is missing, damaged, lacks its
            key or has another shape, a label marks no class or several, or a row number is out of range or in two splits.
    """
    checks.arguments_in_range(ave, locals())
    checks.arguments_among_words(ave, locals())
    return _ave_clips.clips(root, frames, choice) if protocol == "clips" else _ave_features.features(root)


def card(*, root: str = "", protocol: Protocol = "clips", frames: Frames = 3, choice: Choice = "even") -> Card:
    """Return what is known of AVE before a file is read.

    >>> card().shapes
    {'audio': (1, 257, 1004), 'video': (3, 3, 224, 224)}
    """
    checks.arguments_in_range(card, locals())
    checks.arguments_among_words(card, locals())
    return _ave_clips.card(frames) if protocol == "clips" else _ave_features.card()


def prepare(
    root: str,
    out: str,
    *,
    standardise: bool = False,
    fps: Rate = 1,
    short_side: Side = 256,
    lists: str = "",
    workers: Workers = 0,
    missing: Missing = "fail",
) -> Path:
    """Prepare the clips of AVE: spectrograms of the events, and their frames.

    Args:
        root: the release: AVE/*.mp4, trainSet.txt, valSet.txt, testSet.txt.
        out: the folder to write.
        standardise: each spectrogram by its mean and deviation, as published files (Audio-1004-SE) are.
        fps: frames kept of each second of an event; more of one so short that it would give less than ten.
        short_side: pixels of the shorter side of the frames kept, where it is longer; 0: as they are.
        lists: folder of the three lists; by default the root.
        workers: processes; 0: one for each core.
        missing: whether rows and videos that are missing or broken end it, or are left out and listed.

    Raises:
        ValueError: if lists or videos are missing or broken, or an option is not allowed.
    """
    checks.arguments_in_range(prepare, locals())
    checks.arguments_among_words(prepare, locals())
    return _ave_clips.prepare(
        root,
        out,
        standardise=standardise,
        fps=fps,
        short_side=short_side,
        lists=lists,
        workers=workers,
        missing=missing,
    )


def check(root: str = "", *, protocol: Protocol = "clips", frames: Frames = 3) -> Check:
    """Look at the files of AVE: each one there, of its form, and what the splits hold.

    Args:
        root: a prepared folder, the release, or the folder of the features; by default `ave` in the folder MSAM_DATA.
        protocol: "clips" or "features".
        frames: of each clip in the picture.
    """
    checks.arguments_in_range(check, locals())
    checks.arguments_among_words(check, locals())
    return _ave_clips.check(root, frames) if protocol == "clips" else _ave_features.check(root)
