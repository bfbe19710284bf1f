"""Gradient-norm penalty: the blend of SAM and the base optimizer with a constant weight (Zhao, Zhang, Hu, ICML 2022)."""

from typing import Annotated, ClassVar, Unpack

import torch
from torch import nn

from msam.checks import Range, Search, in_range
from msam.sharpness._common import Common, Contributions, Direction
from msam.sharpness._perturb import Sharpness
from msam.sharpness._tensors import Gradients, norm


class GNP(Sharpness):
    r"""`.grad = alpha * grad L(theta + rho g / ||g||) + (1 - alpha) * g`, `g = grad L(theta)` (Algorithm 1).

    To first order this is the gradient of `L + alpha rho ||g||`. It is the control of M-SAM: the same rule with a weight
    that stays, where M-SAM's is the dominant modality's share of each batch. With `alpha = 1` it is SAM, with 0 the base
    optimizer.

    Arguments:
        optimizer: any torch optimizer.
        rho: radius, >= 0.
        alpha: weight of the second gradient, in [0, 1].
        model: with it, BatchNorm running statistics are held during the second pass.
        common: see `Common`.

    Raises:
        ValueError: if `rho` is negative, `alpha` outside [0, 1], or the optimizer maximizes.

    For `L(w) = w^2 / 2` at `w = 1`, rho = 0.5, alpha = 0.8: `0.8 * 1.5 + 0.2 * 1.0`:

    >>> w = nn.Parameter(torch.tensor(1.0))
    >>> rule = GNP(torch.optim.SGD([w], lr=0.1), rho=0.5, alpha=0.8)
    >>> (w**2 / 2).backward()
    >>> with rule.perturbed():
    ...     (w**2 / 2).backward()
    >>> w.grad
    tensor(1.4000)
    """

    stackable: ClassVar[frozenset[str] | None] = frozenset({"rho", "rho_schedule", "alpha"})

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        # twice SAM's: half the second gradient is half the radius, to first order
        rho: Annotated[float, Range(ge=0), Search(0.02, 1.0, log=True)] = 0.05,
        *,
        alpha: Annotated[float, Range(ge=0, le=1), Search(0.1, 0.9)] = 0.7,
        model: nn.Module | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.alpha = in_range("alpha", alpha, Range(ge=0, le=1))
        super().__init__(optimizer, rho, model=model, **common)

    def direction(self, first: Gradients) -> Direction:
        """Return the gradient itself."""
        return Direction(first, norm(first.values()))

    def share(self, contributions: Contributions | None) -> float:
        """Return `alpha`, whatever the contributions."""
        return self.alpha
