"""F-SAM, "friendly" SAM: climb along what is new in the batch's gradient (Li, Zhou, He, Cheng, Huang, CVPR 2024)."""

from typing import Annotated, Unpack

import torch
from torch import nn

from msam.checks import Range, Search, in_range
from msam.sharpness._common import Common, Direction
from msam.sharpness._perturb import Sharpness
from msam.sharpness._tensors import Gradients, norm


class FSAM(Sharpness):
    r"""`eps = rho d / ||d||`, `d = g - sigma m`, with `m = lam m + (1 - lam) g` the running mean of gradients (Eq. 11, 12).

    What all batches have in common is left out of the climb; what is left is the noise of this one. `m` begins at 0 and
    holds this batch's gradient too, as the paper writes; the official code leaves out the mean of the batches before and
    begins it at the first gradient. At `sigma = 1` both climb along `g` less a mean of earlier gradients. With `sigma = 0`
    it is SAM. Under a GradScaler the gradients of the first pass are multiplied by its scale, which changes; give `scaler`,
    so that the mean is that of the plain loss.

    `m` is one more copy of the parameters, kept from step to step and saved by `state_dict`.

    Arguments:
        optimizer: any torch optimizer.
        rho: radius, >= 0.
        sigma: how much of the mean is left out, >= 0.
        lam: weight of the past in the mean, in [0, 1).
        scaler: the GradScaler that scales the losses, where there is one.
        model: with it, BatchNorm running statistics are held during the second pass.
        common: see `Common`.

    Raises:
        ValueError: if `rho` or `sigma` is negative, `lam` outside [0, 1), or the optimizer maximizes.

    The first batch climbs as SAM does: its mean is a part of its own gradient.

    >>> w = nn.Parameter(torch.tensor(1.0))
    >>> rule = FSAM(torch.optim.SGD([w], lr=0.1), rho=0.5)
    >>> (w**2 / 2).backward()
    >>> with rule.perturbed():
    ...     (w**2 / 2).backward()
    >>> w.grad, rule.remembered[w]
    (tensor(1.5000), tensor(0.1000))
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rho: Annotated[float, Range(ge=0), Search(0.01, 0.5, log=True)] = 0.05,
        *,
        sigma: Annotated[float, Range(ge=0)] = 1.0,
        lam: Annotated[float, Range(ge=0, lt=1), Search(0.5, 0.99)] = 0.9,
        scaler: torch.amp.GradScaler | None = None,
        model: nn.Module | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.sigma = in_range("sigma", sigma, Range(ge=0))
        self.lam = in_range("lam", lam, Range(ge=0, lt=1))
        self.scaler = scaler
        super().__init__(optimizer, rho, model=model, **common)

    def direction(self, first: Gradients) -> Direction:
        """Return `g - sigma m`, with `m` moved by this gradient before."""
        if not bool(torch.isfinite(norm(first.values()))):
            return Direction(first, norm(first.values()))
        scale = float(self.scaler.get_scale()) if self.scaler is not None else 1.0
        for p, g in first.items():
            mean = self.remembered.get(p, torch.zeros_like(g))
            self.remembered[p] = mean.mul(self.lam).add_(g, alpha=(1 - self.lam) / scale)
        vectors = {p: g.sub(self.remembered[p], alpha=self.sigma * scale) for p, g in first.items()}
        return Direction(vectors, norm(vectors.values()))
