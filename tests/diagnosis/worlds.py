"""Dial worlds and small models trained on them in a moment, some with an encoder that hardly learns."""

import torch
from torch import nn

from msam import data, models
from msam.data import Dataset, Split
from msam.models import MultimodalModel
from msam.types import Batch

SIZES = {"classes": 6, "dimension": 24, "train_size": 700, "valid_size": 600, "test_size": 10, "bayes_samples": 10}


def world(seed: int, signal: tuple[float, ...], **options) -> Dataset:
    count = len(signal)
    return data.load("dial")(
        **{**SIZES, "seed": seed, "modalities": count, "signal": signal, "modes": (1,) * count, **options}
    )


def trained(
    on: Dataset, *, lazy: str | None = None, epochs: int = 10, seed: int = 0, fusion: str = "late"
) -> MultimodalModel:
    """Return a model after AdamW; the encoder of `lazy` learns at a fiftieth of the rate of the others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = models.build(on.encoders, on.shapes, on.num_classes, fusion)
        rates = [
            3e-3 / (50 if g["modality"] == lazy and g["role"] == "encoder" else 1) for g in model.parameter_groups()
        ]
        groups = [{"params": g["params"], "lr": r} for g, r in zip(model.parameter_groups(), rates, strict=True)]
        optimizer = torch.optim.AdamW(groups)
        for _ in range(epochs):
            for rows in torch.randperm(len(on.train)).split(64):
                batch = on.train[rows.tolist()]
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(batch.inputs).logits, batch.target).backward()
                optimizer.step()
    return model.eval()


def loader(split: Split, size: int = 200) -> list[Batch]:
    return [split[range(start, min(start + size, len(split)))] for start in range(0, len(split), size)]
