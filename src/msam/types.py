"""What flows through a training step: a batch in, an output out."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One mini-batch of `B` samples.

    Attributes:
        inputs: modality name -> tensor `(B, ...)`.
        target: `(N,)` integer classes, `(N, K)` integer or bool multi-label, or floating regression target.
            `N = B`, or a multiple of it when a sample holds several segments (AVE: `N = 10 B`).
        present: `(B, M)` bool in the model's order of modalities, False where a sample lacks the modality;
            None when everything is there.
    """

    inputs: dict[str, Tensor]
    target: Tensor
    present: Tensor | None = None


class Output(NamedTuple):
    """What a model returns.

    Attributes:
        logits: `(N, C)` logits of the fused prediction.
        features: modality name -> `(B, d_m)` encoder feature, with its graph.
        extra_loss: a scalar that the model itself asks to be added to the loss, or None.
    """

    logits: Tensor
    features: dict[str, Tensor]
    extra_loss: Tensor | None = None
