"""What the modalities' own heads lose: the sum of it trains them, beside the fused loss or alone."""

import torch
from torch import Tensor

from msam.methods._base import Run, per_sample_loss
from msam.types import Batch, Output


def head_losses(run: Run, output: Output, batch: Batch) -> Tensor:
    """Return the loss of every sample in every modality's own head, `(M, N)`; the gradient reaches the encoders."""
    logits = run.network.head_logits(output.features)
    return torch.stack([per_sample_loss(z, batch.target) for z in logits.values()])
