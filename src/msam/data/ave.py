"""AVE: what is seen and heard in ten seconds of video, second by second."""

from typing import Literal

from msam import checks
from msam.data import _ave_features
from msam.data._card import Card
from msam.data._check import Check
from msam.data._loaders import Dataset

Protocol = Literal["features"]


def ave(*, root: str = "", protocol: Protocol = "features") -> Dataset:
    """Return AVE: features of frozen networks, one prediction for every second.

    Inputs of protocol "features" (PSP, AGM): "audio" `(10, 128)`, VGGish, and "video" `(10, 7, 7, 512)`, the last pooled
    map of VGG19, one for each second, as they stand in the files; classes are the 28 of AVE and background. The ten
    segments of a video are folded into the batch: B videos have a target of `(10 B,)`, video after video, and logits
    `(10 B, 29)`; measures are over segments. The features are read from disk, of a batch only its rows. PSP and AGM drop
    the last partial batch in training and evaluation; here every video counts.

    The fingerprint is a sha256 over names, shapes, types, all labels, the splits, and the features of 32 videos, evenly
    spaced.

    Args:
        root: the folder of the files; by default `ave` in the folder MSAM_DATA.
        protocol: "features".

    Raises:
        ValueError: if a file is missing, damaged, lacks its key or has another shape, a label marks no class or
            several, or a row number is out of range or in two splits.
    """
    checks.arguments_among_words(ave, {"protocol": protocol})
    return _ave_features.features(root)


def card(*, root: str = "", protocol: Protocol = "features") -> Card:
    """Return what is known of AVE before a file is read."""
    checks.arguments_among_words(card, {"protocol": protocol})
    return _ave_features.card()


def check(root: str = "", *, protocol: Protocol = "features") -> Check:
    """Look at the files of AVE: each one there, of its form, and what the splits hold.

    Args:
        root: the folder of the files; by default `ave` in the folder MSAM_DATA.
        protocol: "features".
    """
    checks.arguments_among_words(check, {"protocol": protocol})
    return _ave_features.check(root)
