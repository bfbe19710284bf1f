"""M-SAM: modality-aware sharpness-aware minimization (Rajoli, Ji, Ma, Afghah, NeurIPS 2025)."""

import math
from typing import Annotated, ClassVar, Unpack

import torch
from torch import nn

from msam.checks import Range
from msam.sharpness._common import Common, Contributions, Direction
from msam.sharpness._perturb import Sharpness
from msam.sharpness._tensors import Gradients, norm


class MSAM(Sharpness):
    r"""Algorithm 1 of the paper in two passes: `.grad = s * grad L(theta + eps) + (1 - s) * grad L(theta)`.

    With `nu` the contributions of the batch, `d = argmax nu` and `s = nu_d`, the paper ascends the dominant modality's
    loss `L_d = nu_d L`, and spends `grad L_d(theta + eps) + grad L_s(theta)`, `L_s = (1 - nu_d) L` (Eq. 4 to 12). Both
    are multiples of the one loss `L`, so `eps = rho * g / ||g||` with `g = grad L(theta)` is SAM's own, and the third
    backward of Algorithm 1, line 7, gives nothing new.

    What follows, said plainly: as printed, *which* modality dominates never enters, only *how much* (`s` in `[1/M, 1]`).
    The rule is a blend of SAM and the base optimizer (the gradient-norm penalty of Zhao, Zhang, Hu, ICML 2022) whose weight
    Shapley contributions set anew in every step; to first order it is SAM with radius `s * rho`. Tune `rho` for it
    anew: it stays stable at radii where SAM does not.

    The paper leaves `rho` unsaid, 0.05 is SAM's; it prints the sum over the other modalities so that the dominant one
    counts twice (Eq. 12), which is read as `L_s`, as in Algorithm 1; `nu` is detached and kept from theta.

    Arguments:
        optimizer: any torch optimizer.
        rho: radius, >= 0.
        model: with it, BatchNorm running statistics are held during the second pass.
        common: see `Common`.

    Raises:
        ValueError: if `rho` is negative, or the optimizer maximizes.

    For `L(w) = w^2 / 2` at `w = 1`, rho = 0.5 and a dominant share of 0.8: `0.8 * 1.5 + 0.2 * 1.0`:

    >>> w = nn.Parameter(torch.tensor(1.0))
    >>> rule = MSAM(torch.optim.SGD([w], lr=0.1), rho=0.5)
    >>> (w**2 / 2).backward()
    >>> with rule.perturbed([0.2, 0.8]):
    ...     (w**2 / 2).backward()
    >>> w.grad
    tensor(1.4000)
    """

    uses_contributions: ClassVar[bool] = True

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rho: Annotated[float, Range(ge=0)] = 0.05,
        *,
        model: nn.Module | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(optimizer, rho, model=model, **common)

    def direction(self, first: Gradients) -> Direction:
        """Return the gradient itself: the direction of the dominant modality's loss is the direction of the loss."""
        return Direction(first, norm(first.values()))

    def share(self, contributions: Contributions | None) -> float:
        """Return the largest contribution.

        Raises:
            ValueError: if there are none, or they are not finite, `>= 0` and of sum 1.
        """
        if contributions is None:
            raise ValueError(
                "MSAM needs the contributions of the modalities, received None. Compute them from the first pass: "
                "shapley.contributions(shapley.coalition_logits(model, output.features), target)."
            )
        values = torch.as_tensor(contributions).tolist()
        if (
            not isinstance(values, list)
            or not values
            or not all(isinstance(v, float | int) and math.isfinite(v) and v >= -1e-6 for v in values)
            or abs(sum(values) - 1) > 1e-3
        ):
            raise ValueError(f"`contributions` must be (M,), finite, >= 0 and sum to 1, received {values}.")
        return float(min(max(values), 1.0))
