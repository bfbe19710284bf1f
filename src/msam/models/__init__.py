"""Models: encoders, fusions, and the model that joins them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from msam import checks
from msam.models.adapt import Adapted, adapt
from msam.models.encoders import ENCODERS, Encoder, encoder
from msam.models.ensemble import EnsembleFusion
from msam.models.fusion import ConcatFusion, Fusion, MaxoutFusion, SharedFusion, SumFusion
from msam.models.multimodal import MultimodalModel
from msam.models.psp import PspFusion
from msam.models.resnet import ResNet18

__all__ = [
    "ENCODERS",
    "FUSIONS",
    "Adapted",
    "ConcatFusion",
    "Encoder",
    "EnsembleFusion",
    "Fusion",
    "MaxoutFusion",
    "MultimodalModel",
    "PspFusion",
    "ResNet18",
    "SharedFusion",
    "SumFusion",
    "adapt",
    "build",
    "encoder",
]

Dims = Mapping[str, int]
Dropout = Annotated[float, checks.Range(ge=0, lt=1)]


def late(dims: Dims, num_classes: int) -> Fusion:
    """Late fusion: the sum of one linear head per modality."""
    return SumFusion(dims, num_classes)


def concat(dims: Dims, num_classes: int) -> Fusion:
    """Late fusion: one linear layer on the concatenated features."""
    return ConcatFusion(dims, num_classes)


def shared(dims: Dims, num_classes: int, *, hidden: Annotated[int, checks.Range(ge=1)] = 256) -> Fusion:
    """Late fusion: the sum of what one small head, the same for all, makes of each modality."""
    return SharedFusion(dims, num_classes, hidden)


def early(
    dims: Dims, num_classes: int, *, hidden: tuple[int, ...] = (64,), dropout: Dropout = 0.0, batch_norm: bool = False
) -> Fusion:
    """Early fusion: a small maxout trunk, sized for the embedded datasets."""
    return MaxoutFusion(dims, num_classes, hidden, dropout, batch_norm)


def maxout(
    dims: Dims,
    num_classes: int,
    *,
    hidden: tuple[int, ...] = (2048, 1024),
    dropout: Dropout = 0.3,
    batch_norm: bool = True,
) -> Fusion:
    """Early fusion: the paper's maxout trunk."""
    return MaxoutFusion(dims, num_classes, hidden, dropout, batch_norm)


def psp(
    dims: Dims,
    num_classes: int,
    *,
    segments: Annotated[int, checks.Range(ge=1)] = 10,
    locations: Annotated[int, checks.Range(ge=1)] = 49,
    threshold: Annotated[float, checks.Range(ge=0, lt=1)] = 0.099,
    dropout: Dropout = 0.1,
) -> Fusion:
    """Early fusion of AVE's segments: audio-guided attention and positive sample propagation."""
    return PspFusion(dims, num_classes, segments, locations, threshold, dropout)


FUSIONS: Mapping[str, Callable[..., Fusion]] = {f.__name__: f for f in (late, concat, shared, early, maxout, psp)}
"""Fusions by the names of the command line; their keyword-only parameters are its flags."""


def build(
    encoders: Mapping[str, str], shapes: Mapping[str, Sequence[int]], num_classes: int, fusion: str, **options: Any
) -> MultimodalModel:
    """Return a fresh model from names.

    Arguments:
        encoders: modality -> name of its encoder.
        shapes: modality -> shape of one input.
        num_classes: number of logits.
        fusion: a key of `FUSIONS`.
        options: of the fusion.

    Raises:
        ValueError: for an unknown name or an option out of range.

    >>> build({"a": "mlp", "b": "mlp"}, {"a": (8,), "b": (4,)}, 3, "late").modalities
    ('a', 'b')
    """
    make = FUSIONS[checks.one_of("fusion", fusion, FUSIONS)]
    built = {name: encoder(kind, shapes[name]) for name, kind in encoders.items()}
    return MultimodalModel(built, make({name: e.dim for name, e in built.items()}, num_classes, **options))
