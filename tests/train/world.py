"""A tiny dataset for tests of the loop, as sound or as flawed as wanted: `data = {"name": "tests.train.world"}`."""

from typing import Literal

import torch

from msam.data import Dataset, Split, TensorSplit
from msam.data._loaders import fingerprint
from msam.types import Batch

Flaw = Literal["", "nan", "infinite", "nan_valid", "missing", "present", "absent_class", "lone", "empty_test"]


class Masked(TensorSplit):
    """Every third sample lacks its image; what stands in its place is large."""

    def __getitem__(self, index) -> Batch:
        rows = torch.as_tensor(index)
        present = torch.stack([rows >= 0, rows % 3 != 0], 1)
        batch = super().__getitem__(index)
        batch.inputs["image"][~present[:, 1]] = 1e3
        return batch._replace(present=present)


class Without(TensorSplit):
    """Samples from the 40th on have no image at all."""

    def __getitem__(self, index) -> Batch:
        batch = super().__getitem__(index)
        return batch._replace(inputs={"audio": batch.inputs["audio"]}) if max(index) >= 40 else batch


def world(*, flaw: Flaw = "", size: int = 64, seed: int = 0) -> Dataset:
    """Return three classes that sound and picture tell apart."""
    generator = torch.Generator().manual_seed(seed)
    centres = {"audio": torch.randn(3, 6, generator=generator), "image": torch.randn(3, 4, generator=generator)}

    def split(count: int, kind: type[TensorSplit] = TensorSplit) -> TensorSplit:
        target = torch.arange(count) % (2 if flaw == "absent_class" else 3)
        noise = {n: torch.randn(count, c.shape[1], generator=generator) for n, c in centres.items()}
        return kind({n: centres[n][target] * 2 + noise[n] for n in centres}, target)

    kinds = {"present": Masked, "missing": Without}
    train = split(1 if flaw == "lone" else size, kinds.get(flaw, TensorSplit))
    valid, test = split(21), split(0 if flaw == "empty_test" else 31)
    if flaw in ("nan", "infinite"):
        train.inputs["image"][40, 1] = torch.nan if flaw == "nan" else torch.inf
    if flaw == "nan_valid":
        valid.inputs["audio"][3, 2] = torch.nan
    splits: tuple[Split, ...] = (train, valid, test)
    return Dataset(
        "tests.train.world",
        *splits,
        num_classes=3,
        shapes={"audio": (6,), "image": (4,)},
        encoders={"audio": "mlp", "image": "mlp"},
        fingerprint=fingerprint(train, valid, test),
    )
