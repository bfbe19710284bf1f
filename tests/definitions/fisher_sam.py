"""Fisher SAM on a flat vector, its matrices written out."""

from collections.abc import Callable

import torch
from torch import Tensor


def spent(gradient: Callable[[Tensor], Tensor], theta: Tensor, rho: float, eta: float) -> Tensor:
    """Return `grad L(theta + rho F^-1 g / sqrt(g . F^-1 g))`, `F = I + eta diag(g^2)`."""
    g = gradient(theta)
    fisher = torch.eye(len(g), dtype=g.dtype) + eta * torch.diag(g**2)
    natural = torch.linalg.solve(fisher, g)
    return gradient(theta + rho * natural / torch.sqrt(g @ natural))
