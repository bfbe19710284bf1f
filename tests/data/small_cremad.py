"""Prepared CREMA-D made small: averages over patches, for encoders that learn in a second."""

import torch
from torch.nn.functional import adaptive_avg_pool2d

from msam.data import Dataset, TensorSplit
from msam.data.cremad import cremad


def small_cremad(*, root: str = "", split: str = "speaker") -> Dataset:
    """Return CREMA-D with audio (1, 32, 32) and video (3, 32, 32)."""
    whole = cremad(root=root, split=split)
    parts = []
    for part in (whole.train, whole.valid, whole.test):
        batch = part[range(len(part))]
        audio = adaptive_avg_pool2d(batch.inputs["audio"], 32) / 3 + 4
        video = adaptive_avg_pool2d(batch.inputs["video"][:, :, 0], 32)
        parts.append(TensorSplit({"audio": torch.clamp(audio, -3, 3), "video": video}, batch.target))
    return Dataset(
        "tests.data.small_cremad",
        *parts,
        num_classes=6,
        shapes={"audio": (1, 32, 32), "video": (3, 32, 32)},
        encoders={"audio": "patch_cnn", "video": "patch_cnn"},
        fingerprint=whole.fingerprint,
        classes=whole.classes,
    )
