"""ImbSAM on a flat vector: the gradients of two losses."""

from collections.abc import Callable

from torch import Tensor


def spent(head: Callable[[Tensor], Tensor], tail: Callable[[Tensor], Tensor], theta: Tensor, rho: float) -> Tensor:
    """Return the head's gradient at theta and the tail's one `rho` up its own slope."""
    g = tail(theta)
    return head(theta) + tail(theta + rho * g / g.norm())
