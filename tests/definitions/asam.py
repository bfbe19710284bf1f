"""ASAM on a flat vector, as its Eq. 8 is written."""

from collections.abc import Callable

from torch import Tensor


def spent(gradient: Callable[[Tensor], Tensor], theta: Tensor, rho: float, eta: float) -> Tensor:
    """Return `grad L(theta + rho T^2 g / ||T g||)`, `T = |theta| + eta`."""
    g = gradient(theta)
    scale = theta.abs() + eta
    return gradient(theta + rho * scale**2 * g / (scale * g).norm())
