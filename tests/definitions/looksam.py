"""LookSAM on a flat vector; what is reused is handed from step to step."""

from collections.abc import Callable

from torch import Tensor


def spent(
    gradient: Callable[[Tensor], Tensor],
    theta: Tensor,
    kept: Tensor | None,
    t: int,
    rho: float,
    every: int,
    alpha: float,
) -> tuple[Tensor, Tensor]:
    """Return what is spent at step t = 0, 1, .., and the orthogonal part of the last climb."""
    g = gradient(theta)
    if t % every == 0:
        u = g / g.norm()
        perturbed = gradient(theta + rho * u)
        return perturbed, perturbed - (perturbed @ u) * u
    assert kept is not None
    return g + alpha * g.norm() / kept.norm() * kept, kept
