"""What methods do to gradients: whose they are, taken out, put in, scaled."""

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from msam.models import MultimodalModel


def parameters(
    network: MultimodalModel, modality: str, roles: Collection[str] = ("encoder", "head")
) -> list[nn.Parameter]:
    """Return the parameters that see one modality alone: of its encoder, its own layer in the fusion, its added head.

    Parameters are found by role, never by name.
    """
    return [
        p
        for group in network.parameter_groups()
        if group["modality"] == modality and group["role"] in roles
        for p in group["params"]
    ]


def taken(chosen: Iterable[nn.Parameter]) -> dict[nn.Parameter, Tensor]:
    """Return the gradients of parameters and leave `.grad = None`; those without a gradient are left out."""
    found = {p: p.grad for p in chosen if p.grad is not None}
    for p in found:
        p.grad = None
    return found


@torch.no_grad()
def scale(chosen: Iterable[nn.Parameter], factor: float | Tensor) -> None:
    """Multiply gradients by a factor, in place."""
    for p in chosen:
        if p.grad is not None:
            p.grad.mul_(factor)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Return tensors as one flat vector."""
    return torch.cat([t.reshape(-1) for t in tensors])
