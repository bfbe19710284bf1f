"""Gradient-norm penalty on a flat vector."""

from collections.abc import Callable

from torch import Tensor


def spent(gradient: Callable[[Tensor], Tensor], theta: Tensor, rho: float, alpha: float) -> Tensor:
    """Return `alpha grad L(theta + rho g / ||g||) + (1 - alpha) g`; SAM at `alpha = 1`."""
    g = gradient(theta)
    return alpha * gradient(theta + rho * g / g.norm()) + (1 - alpha) * g
