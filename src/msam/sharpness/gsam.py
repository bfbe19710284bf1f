"""GSAM: surrogate gap guided sharpness-aware minimization (Zhuang et al., ICLR 2022)."""

from typing import Annotated, ClassVar, Unpack

import torch
from torch import nn

from msam.checks import Range, Search, in_range
from msam.sharpness._common import Common, Direction
from msam.sharpness._perturb import Sharpness
from msam.sharpness._tensors import Gradients, inner, norm


class GSAM(Sharpness):
    r"""SAM's gradient, less what would widen the gap to the plain loss: `gp - alpha g_perp` (Algorithm 1).

    `gp = grad L(theta + rho_t g / ||g||)`, `g_perp = g - (g . gp) gp / ||gp||^2`: the part of the plain gradient that
    leaves the perturbed loss as it is. The radius follows the learning rate,
    `rho_t = rho_min + (rho - rho_min) lr_t / lr_0`, as the paper's Algorithm 1 has it for a schedule that ends at 0.
    With `alpha = 0` and `rho_schedule="constant"` it is SAM.

    Arguments:
        optimizer: any torch optimizer.
        rho: largest radius, >= 0.
        alpha: how much of the orthogonal part is taken away, >= 0; the paper tunes it between 0.01 and 1 and names none
            as default.
        rho_min: smallest radius, >= 0 and <= rho.
        model: with it, BatchNorm running statistics are held during the second pass.
        common: see `Common`; `rho_schedule` is "learning_rate" by default.

    Raises:
        ValueError: if `rho`, `alpha` or `rho_min` is negative, `rho_min` exceeds `rho`, or the optimizer maximizes.

    At `g = (1, 0)` and `gp = (1, 1)`, alpha = 1: `g_perp = (0.5, -0.5)`:

    >>> a, b = (nn.Parameter(torch.tensor(0.0)) for _ in "ab")
    >>> rule = GSAM(torch.optim.SGD([a, b], lr=0.1), rho=0.1, alpha=1.0)
    >>> spent = rule.combined({a: torch.tensor(1.0)}, {a: torch.tensor(1.0), b: torch.tensor(1.0)}, 1.0)
    >>> spent[a].item(), spent[b].item()
    (0.5, 1.5)
    """

    defaults: ClassVar[Common] = {**Sharpness.defaults, "rho_schedule": "learning_rate"}

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rho: Annotated[float, Range(ge=0), Search(0.01, 0.5, log=True)] = 0.05,
        *,
        alpha: Annotated[float, Range(ge=0), Search(0.05, 1.0, log=True)] = 0.4,
        rho_min: Annotated[float, Range(ge=0)] = 0.0,
        model: nn.Module | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.alpha = in_range("alpha", alpha, Range(ge=0))
        self.rho_min = in_range("rho_min", rho_min, Range(ge=0))
        super().__init__(optimizer, rho, model=model, **common)

    def direction(self, first: Gradients) -> Direction:
        """Return the gradient itself."""
        return Direction(first, norm(first.values()))

    def radius(self, rho: float, factor: float) -> float:
        """Return `rho_min + (rho - rho_min) * factor`.

        Raises:
            ValueError: if `rho_min` exceeds a group's `rho`.
        """
        if self.rho_min > rho:
            raise ValueError(f"`rho_min` must be <= rho, received {self.rho_min} for rho = {rho}.")
        return self.rho_min + (rho - self.rho_min) * factor

    def combined(self, first: Gradients, second: Gradients, share: float) -> Gradients:
        """Return `second - alpha * (first - its part along second)`; a missing gradient counts as 0."""
        squared = inner(second, second)
        along = inner(first, second) / squared if squared > 0 else torch.zeros(())
        spent = {p: g * (1 + self.alpha * along.to(g.device, g.dtype)) for p, g in second.items()}
        for p, g in first.items():
            spent[p] = spent[p].sub_(g, alpha=self.alpha) if p in spent else g * -self.alpha
        return spent
