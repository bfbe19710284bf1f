"""F-SAM on a flat vector; the running mean is handed from step to step."""

from collections.abc import Callable

from torch import Tensor


def spent(
    gradient: Callable[[Tensor], Tensor], theta: Tensor, mean: Tensor, rho: float, sigma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Return what is spent and the mean, which is 0 before the first step and holds this batch's gradient too."""
    g = gradient(theta)
    mean = lam * mean + (1 - lam) * g
    new = g - sigma * mean
    return gradient(theta + rho * new / new.norm()), mean
