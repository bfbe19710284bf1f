"""LookSAM: climb every k-th step and reuse what climbing changed in between (Liu, Mai, Chen, Hsieh, You, CVPR 2022)."""

from typing import Annotated, Unpack

import torch
from torch import nn

from msam.checks import Range, Search, in_range
from msam.sharpness._common import Common, Direction
from msam.sharpness._perturb import Sharpness
from msam.sharpness._reuse import change
from msam.sharpness._tensors import Gradients, blended, norm


class LookSAM(Sharpness):
    r"""Every `every`-th step SAM; in between `g + alpha (||g|| / ||gv||) gv` (Algorithm 1).

    `gv = gs - (gs . u) u`, `u = g / ||g||`: the part of SAM's gradient `gs` that is orthogonal to the plain one, which
    changes slowly. A step in between costs one pass: `perturbed()` yields False there, so `if climbing:` saves the second.
    With `every = 1` it is SAM.

    `gv` is one more copy of the parameters, kept from step to step and saved by `state_dict`.

    Arguments:
        optimizer: any torch optimizer.
        rho: radius, >= 0.
        every: steps from climb to climb, >= 1; the paper uses 5.
        alpha: weight of the reused part, >= 0.
        model: with it, BatchNorm running statistics are held during the second pass.
        common: see `Common`.

    Raises:
        ValueError: if `rho` or `alpha` is negative, `every` below 1, or the optimizer maximizes.

    >>> w = nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> rule = LookSAM(torch.optim.SGD([w], lr=0.1), rho=0.5, every=2)
    >>> for _ in range(2):
    ...     w.grad = None
    ...     (w[0] ** 2 / 2).backward()
    ...     with rule.perturbed() as climbing:
    ...         if climbing:
    ...             (w[0] ** 2 / 2 + w[1]).backward()
    ...     print(climbing, w.grad)
    True tensor([1.5000, 1.0000])
    False tensor([1.0000, 0.7000])
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rho: Annotated[float, Range(ge=0), Search(0.01, 0.5, log=True)] = 0.1,
        *,
        every: Annotated[int, Range(ge=1)] = 5,
        alpha: Annotated[float, Range(ge=0), Search(0.1, 1.0)] = 0.7,
        model: nn.Module | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.every = int(in_range("every", every, Range(ge=1)))
        self.alpha = in_range("alpha", alpha, Range(ge=0))
        super().__init__(optimizer, rho, model=model, **common)

    def direction(self, first: Gradients) -> Direction:
        """Return the gradient itself."""
        return Direction(first, norm(first.values()))

    def combined(self, first: Gradients, second: Gradients, share: float) -> Gradients:
        """Return the second gradient; the direction of what is orthogonal to the first is remembered."""
        if self.every > 1:
            self.remembered = change(first, second).across
        return blended(first, second, share)

    def instead(self, first: Gradients, share: float) -> Gradients | None:
        """Return `g + alpha (||g|| / ||gv||) gv` in the steps between climbs, None where there is nothing to reuse yet."""
        if self.blocks % self.every == 0 or not self.remembered:
            return None
        length = norm(self.remembered.values())
        factor = float(self.alpha * norm(first.values()) / length) if length > 0 else 0.0
        reused = {p: g.add(self.remembered[p], alpha=factor) if p in self.remembered else g for p, g in first.items()}
        return reused | {p: g * factor for p, g in self.remembered.items() if p not in first}
