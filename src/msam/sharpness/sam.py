"""SAM: sharpness-aware minimization (Foret, Kleiner, Mobahi, Neyshabur, ICLR 2021)."""

from typing import Annotated, ClassVar, Unpack

import torch
from torch import nn

from msam.checks import Range, Search
from msam.sharpness._common import Common, Direction
from msam.sharpness._perturb import Sharpness
from msam.sharpness._tensors import Gradients, norm


class SAM(Sharpness):
    r"""Spend the gradient of the worst nearby point: `.grad = grad L(theta + rho * g / ||g||)`, `g = grad L(theta)`.

    The official code divides by `||g|| + 1e-12`; with a guard for a zero norm the constant is not needed.

    Arguments:
        optimizer: any torch optimizer.
        rho: radius, >= 0.
        model: with it, BatchNorm running statistics are held during the second pass.
        common: see `Common`.

    Raises:
        ValueError: if `rho` is negative, or the optimizer maximizes.

    For `L(w) = w^2 / 2` at `w = 1` and rho = 0.5, the gradient that is spent is that at 1.5:

    >>> w = nn.Parameter(torch.tensor(1.0))
    >>> sam = SAM(torch.optim.SGD([w], lr=0.1), rho=0.5)
    >>> (w**2 / 2).backward()
    >>> with sam.perturbed():
    ...     (w**2 / 2).backward()
    >>> w.grad, w.item()
    (tensor(1.5000), 1.0)
    """

    stackable: ClassVar[frozenset[str] | None] = frozenset({"rho", "rho_schedule"})

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rho: Annotated[float, Range(ge=0), Search(0.01, 0.5, log=True)] = 0.05,
        *,
        model: nn.Module | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(optimizer, rho, model=model, **common)

    def direction(self, first: Gradients) -> Direction:
        """Return the gradient itself."""
        return Direction(first, norm(first.values()))
