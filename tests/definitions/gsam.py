"""GSAM on a flat vector."""

from collections.abc import Callable

from torch import Tensor


def radius(rho: float, rho_min: float, lr: float, lr_0: float) -> float:
    """Return the radius at a learning rate, for a schedule that begins at `lr_0` and ends at 0."""
    return rho_min + (rho - rho_min) * lr / lr_0


def spent(gradient: Callable[[Tensor], Tensor], theta: Tensor, rho: float, alpha: float) -> Tensor:
    """Return the perturbed gradient less `alpha` of what of the plain one is orthogonal to it."""
    g = gradient(theta)
    perturbed = gradient(theta + rho * g / g.norm())
    unit = perturbed / perturbed.norm()
    parallel = (g @ unit) * unit
    return perturbed - alpha * (g - parallel)
