"""Models: encoders, fusions, and the model that joins them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from msam import checks
from msam.models.encoders import Encoder, encoder
from msam.models.fusion import ConcatFusion, Fusion, MaxoutFusion, SumFusion
from msam.models.multimodal import MultimodalModel

__all__ = [
    "FUSIONS",
    "ConcatFusion",
    "Encoder",
    "Fusion",
    "MaxoutFusion",
    "MultimodalModel",
    "SumFusion",
    "build",
    "encoder",
]

FUSIONS: Mapping[str, Callable[[Mapping[str, int], int], Fusion]] = {
    "late": SumFusion,
    "concat": ConcatFusion,
    "early": partial(MaxoutFusion, hidden=(64,), dropout=0.0, batch_norm=False),
    "maxout": MaxoutFusion,
}
"""Fusions by the names the command line knows: `late` (sum), `concat`, `early` (a small maxout, for the embedded
datasets), `maxout` (the paper's trunk)."""


def build(
    encoders: Mapping[str, str], shapes: Mapping[str, Sequence[int]], num_classes: int, fusion: str
) -> MultimodalModel:
    """Return a fresh model from names.

    Arguments:
        encoders: modality -> name of its encoder.
        shapes: modality -> shape of one input.
        num_classes: number of logits.
        fusion: a key of `FUSIONS`.

    Raises:
        ValueError: for an unknown name.

    >>> build({"a": "mlp", "b": "mlp"}, {"a": (8,), "b": (4,)}, 3, "late").modalities
    ('a', 'b')
    """
    checks.one_of("fusion", fusion, FUSIONS)
    built = {name: encoder(kind, shapes[name]) for name, kind in encoders.items()}
    return MultimodalModel(built, FUSIONS[fusion]({name: e.dim for name, e in built.items()}, num_classes))
