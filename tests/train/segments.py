"""A tiny dataset whose samples hold five segments with a class each: `data = {"name": "tests.train.segments"}`."""

import torch

from msam.data import Dataset
from msam.data._loaders import TensorSplit, fingerprint
from msam.types import Batch

SEGMENTS = 5


class Folded(TensorSplit):
    """Targets `(n, 5)` become `(5 B,)`; every third sample may lack its sound, and what stands in its place is large."""

    lacking = False

    def __getitem__(self, index) -> Batch:
        batch = super().__getitem__(index)
        present = None
        if self.lacking:
            rows = torch.as_tensor(index)
            present = torch.stack([rows % 3 != 0, rows >= 0], 1)
            batch.inputs["audio"][~present[:, 0]] = 1e3
        return Batch(batch.inputs, batch.target.reshape(-1), present)


class Lacking(Folded):
    lacking = True


def segments(*, size: int = 24, lacking: bool = False) -> Dataset:
    """Return three classes that sound and map tell apart, second by second."""
    generator = torch.Generator().manual_seed(0)
    heard, seen = torch.randn(3, 6, generator=generator), torch.randn(3, 8, generator=generator)
    kind = Lacking if lacking else Folded

    def split(count: int) -> TensorSplit:
        target = torch.randint(3, (count, SEGMENTS), generator=generator)
        audio = 2 * heard[target] + torch.randn(count, SEGMENTS, 6, generator=generator)
        noise = torch.randn(count, SEGMENTS, 2, 2, 8, generator=generator)
        return kind({"audio": audio, "video": 2 * seen[target][:, :, None, None] + noise}, target)

    train, valid, test = split(size), split(12), split(13)
    return Dataset(
        "tests.train.segments",
        train,
        valid,
        test,
        num_classes=3,
        shapes={"audio": (SEGMENTS, 6), "video": (SEGMENTS, 2, 2, 8)},
        encoders={"audio": "ave_audio", "video": "ave_video"},
        fingerprint=fingerprint(train, valid, test),
    )
