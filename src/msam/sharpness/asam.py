"""ASAM: adaptive sharpness-aware minimization (Kwon, Kim, Park, Choi, ICML 2021)."""

from typing import Annotated, Unpack

import torch
from torch import nn

from msam.checks import Range, Search, in_range
from msam.sharpness._common import Common, Direction
from msam.sharpness._perturb import Sharpness
from msam.sharpness._tensors import Gradients, norm


class ASAM(Sharpness):
    r"""SAM in a neighbourhood that scales with the weights: `eps = rho T^2 g / ||T g||`, `T = |w| + eta` (Eq. 8).

    The value does not change when a layer's weights are multiplied and the next one's divided by the same factor. All
    parameters are scaled, as the paper writes; its official code scales those whose name contains "weight", leaves the
    others at `T = 1`, and overwrites the first gradient. Choosing by name is not done here.

    Arguments:
        optimizer: any torch optimizer.
        rho: radius in units of the scaled weights, >= 0; about ten times SAM's.
        eta: keeps small weights moving, >= 0; at 0 a weight of exactly 0 stays.
        model: with it, BatchNorm running statistics are held during the second pass.
        common: see `Common`.

    Raises:
        ValueError: if `rho` or `eta` is negative, or the optimizer maximizes.

    For `L(w) = w^2 / 2` at `w = 2`, eta = 0, rho = 0.5: `T = 2`, `eps = 0.5 * 4 * 2 / 4 = 1`:

    >>> w = nn.Parameter(torch.tensor(2.0))
    >>> asam = ASAM(torch.optim.SGD([w], lr=0.1), rho=0.5, eta=0.0)
    >>> (w**2 / 2).backward()
    >>> with asam.perturbed():
    ...     (w**2 / 2).backward()
    >>> w.grad
    tensor(3.)
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rho: Annotated[float, Range(ge=0), Search(0.1, 5.0, log=True)] = 0.5,
        *,
        eta: Annotated[float, Range(ge=0)] = 0.01,
        model: nn.Module | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.eta = in_range("eta", eta, Range(ge=0))
        super().__init__(optimizer, rho, model=model, **common)

    def direction(self, first: Gradients) -> Direction:
        """Return `T^2 g`, of length `||T g||`."""
        parameters = list(first)
        scales = torch._foreach_add(torch._foreach_abs([p.detach() for p in parameters]), self.eta)
        scaled = torch._foreach_mul(list(first.values()), scales)
        length = norm(scaled)
        return Direction(dict(zip(parameters, torch._foreach_mul(scaled, scales), strict=True)), length)
