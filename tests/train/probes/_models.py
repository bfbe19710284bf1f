"""Models small enough that their gradients and Hessians can be written down."""

import torch
from torch import Tensor, nn

from msam.models import FUSIONS, Encoder, MultimodalModel
from msam.types import Batch

SIZES = {"audio": 4, "image": 3}


def network(fusion: str = "late", *, width: int = 3, classes: int = 3, dtype=torch.float64, seed: int = 0, **options):
    """Return a model of two small perceptrons."""
    torch.manual_seed(seed)
    encoders = {n: Encoder([nn.Linear(size, width), nn.ReLU()], width) for n, size in SIZES.items()}
    return MultimodalModel(encoders, FUSIONS[fusion](dict.fromkeys(SIZES, width), classes, **options)).to(dtype)


def linear(dtype=torch.float64) -> MultimodalModel:
    """Return a model that is one linear layer with one output: its squared error is quadratic in the weights."""
    torch.manual_seed(1)
    return MultimodalModel({n: nn.Identity() for n in SIZES}, FUSIONS["concat"](SIZES, 1)).to(dtype)


def batch(rows: int = 12, *, classes: int = 3, dtype=torch.float64, seed: int = 2, lacking: bool = False) -> Batch:
    """Return random samples; with `lacking`, every third without its image."""
    made = torch.Generator().manual_seed(seed)
    inputs = {n: torch.randn(rows, size, generator=made, dtype=torch.float64).to(dtype) for n, size in SIZES.items()}
    target = torch.randint(classes, (rows,), generator=made)
    present = torch.stack([torch.ones(rows, dtype=torch.bool), torch.arange(rows) % 3 != 0], 1) if lacking else None
    return Batch(inputs, target, present)


def halves(whole: Batch, at: int) -> list[Batch]:
    """Return a batch in two pieces of different size."""

    def piece(rows: slice) -> Batch:
        there = None if whole.present is None else whole.present[rows]
        return Batch({n: x[rows] for n, x in whole.inputs.items()}, whole.target[rows], there)

    return [piece(slice(None, at)), piece(slice(at, None))]


def flat(tensors) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])
