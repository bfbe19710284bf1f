"""What the modalities' own heads lose: the sum of it trains them, beside the fused loss or alone."""

import torch
from torch import Tensor

from msam.methods._base import Run
from msam.models.multimodal import of_rows
from msam.tasks import per_sample_loss
from msam.types import Batch, Output


def head_losses(run: Run, output: Output, batch: Batch) -> Tensor:
    """Return the loss of every sample in every modality's own head, `(M, N)`; the gradient reaches the encoders.

    It is 0 where the sample lacks the modality: a head learns nothing from features that are not there.
    """
    logits = run.network.head_logits(output.features)
    losses = torch.stack([per_sample_loss(z, batch.target) for z in logits.values()])
    return where_there(losses, batch)


def where_there(terms: Tensor, batch: Batch) -> Tensor:
    """Return terms `(M, N)` with 0 where a sample lacks the modality."""
    if batch.present is None:
        return terms
    return terms.where(of_rows(batch.present, terms.shape[1]).T, terms.new_zeros(()))
