"""Fisher SAM: the neighbourhood of SAM measured by information (Kim, Li, Hu, Hospedales, ICML 2022)."""

from typing import Annotated, Unpack

import torch
from torch import nn

from msam.checks import Range, Search, in_range
from msam.sharpness._common import Common, Direction
from msam.sharpness._perturb import Sharpness
from msam.sharpness._tensors import Gradients, norm


class FisherSAM(Sharpness):
    r"""`eps = rho F^-1 g / sqrt(g . F^-1 g)` with a diagonal Fisher matrix from the batch's own gradient.

    `F^-1 = 1 / (1 + eta f)`, `f = g^2` entry by entry: where the model is certain of a weight (a large gradient), less far.
    The squared gradient of a batch is not the mean of the samples' squared gradients; it is the paper's own approximation.
    At `eta = 0` this is SAM. Under a GradScaler the gradients of the first pass are multiplied by its scale; give `scaler`,
    so that `f` is that of the plain loss.

    Arguments:
        optimizer: any torch optimizer.
        rho: radius, >= 0.
        eta: weight of the information, >= 0.
        scaler: the GradScaler that scales the losses, where there is one.
        model: with it, BatchNorm running statistics are held during the second pass.
        common: see `Common`.

    Raises:
        ValueError: if `rho` or `eta` is negative, or the optimizer maximizes.

    For `L(w) = w^2 / 2` at `w = 1`, eta = 1, rho = 0.5: `F^-1 = 1/2`, `eps = 0.5 * 0.5 / sqrt(0.5)`:

    >>> w = nn.Parameter(torch.tensor(1.0))
    >>> rule = FisherSAM(torch.optim.SGD([w], lr=0.1), rho=0.5, eta=1.0)
    >>> (w**2 / 2).backward()
    >>> with rule.perturbed():
    ...     (w**2 / 2).backward()
    >>> w.grad
    tensor(1.3536)
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rho: Annotated[float, Range(ge=0), Search(0.01, 1.0, log=True)] = 0.1,
        *,
        eta: Annotated[float, Range(ge=0), Search(0.1, 10.0, log=True)] = 1.0,
        scaler: torch.amp.GradScaler | None = None,
        model: nn.Module | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.eta = in_range("eta", eta, Range(ge=0))
        self.scaler = scaler
        super().__init__(optimizer, rho, model=model, **common)

    def direction(self, first: Gradients) -> Direction:
        """Return `F^-1 g`, of length `sqrt(g . F^-1 g)`, both by the gradient's own scale."""
        scale = float(self.scaler.get_scale()) if self.scaler is not None else 1.0
        certain = {p: (g / scale).square().mul_(self.eta).add_(1) for p, g in first.items()}
        length = norm(g / certain[p].sqrt() for p, g in first.items())
        return Direction({p: g / certain[p] for p, g in first.items()}, length)
