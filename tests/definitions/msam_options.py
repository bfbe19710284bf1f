"""M-SAM's named options on a flat vector: where it climbs, and which of two losses climbs."""

from collections.abc import Callable

import torch
from torch import Tensor

Gradient = Callable[[Tensor], Tensor]


def scoped(gradient: Gradient, theta: Tensor, climbs: Tensor, rho: float, share: float) -> Tensor:
    """Return `s grad L(theta + eps) + (1 - s) grad L(theta)`, `eps` along the part of the gradient that climbs."""
    g = gradient(theta)
    part = torch.where(climbs, g, 0.0)
    return share * gradient(theta + rho * part / part.norm()) + (1 - share) * g


def split(dominant: Gradient, others: Gradient, theta: Tensor, climbs: Tensor, rho: float) -> Tensor:
    """Return `grad L_d(theta + eps) + grad L_s(theta)`, `eps` along the part of `grad L_d(theta)` that climbs."""
    part = torch.where(climbs, dominant(theta), 0.0)
    return dominant(theta + rho * part / part.norm()) + others(theta)
