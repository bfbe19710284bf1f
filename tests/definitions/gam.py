"""GAM on a flat vector, with the four gradients and four weights of its official code."""

from collections.abc import Callable

from torch import Tensor


def spent(
    gradient: Callable[[Tensor], Tensor],
    theta: Tensor,
    rho: float,
    rho_inner: float,
    beta0: float,
    beta1: float,
    gamma: float,
) -> Tensor:
    """Return `h - gamma * (m less its projection on h)`."""
    beta2, beta3 = 1 - beta0, 1 - beta1
    g0 = gradient(theta)
    g1 = gradient(theta + rho_inner * g0 / g0.norm())
    there = theta + rho * (g1 - g0) / (g1 - g0).norm()
    g2 = gradient(there)
    g3 = gradient(there + rho_inner * g2 / g2.norm())
    h = beta1 * g1 + beta3 * g3
    m = g0 + abs(beta2) * g2
    cosine = (m @ h) / (m.norm() * h.norm())
    return h - gamma * (m - cosine * m.norm() * h / h.norm())
