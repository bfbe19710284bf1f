"""Rules that climb along the gradient and spend a blend of both, for several runs at once: a row for each run.

Every run has a norm, a radius and a share of its own, which its rule says; every row is reckoned as the rule would.
"""

import torch
from torch import Tensor

from msam.sharpness._common import SHORTEST, Contributions
from msam.sharpness._perturb import Sharpness


def intended(rule: Sharpness, contributions: Contributions | None) -> tuple[float, float]:
    """Return the share and the radius of a rule's next climb.

    Raises:
        ValueError: if the rule needs contributions and there are none, or they are none.
    """
    share = rule.share(rule.agreed(contributions))
    return share, max(rule._rhos(rule.stretch(share)).values())


def done(rule: Sharpness, share: float, radius: float) -> None:
    """Have a rule take note of a step that was made for it; radius 0 where it did not climb."""
    rule.last = {"share": share, "radius": radius}
    rule._climbs += radius > 0
    rule._completed()


def climbs(gradients: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows climb, `(S,)` bool, and by what factor of their gradients, `radius / ||g||`; 0 if they do not.

    A row does not climb where its radius is 0, or its norm is (nearly) 0 or not finite; as a rule by itself.

    Arguments:
        gradients: `(S, N)`.
        radii: `(S,)`, >= 0.

    >>> climbs(torch.tensor([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0]]), torch.tensor([0.5, 0.5, 0.0]))
    (tensor([ True, False, False]), tensor([0.1000, 0.0000, 0.0000]))
    """
    norms = torch.linalg.vector_norm(gradients, dim=1)
    there = (radii > 0) & norms.isfinite() & (norms > radii * SHORTEST)
    return there, torch.where(there, radii / norms, torch.zeros_like(norms))


def climbed(weights: Tensor, gradients: Tensor, factors: Tensor) -> Tensor:
    """Return `weights + factor * gradient` in every row; a row of factor 0 stays, whatever its gradient.

    Arguments:
        weights: `(S, N)`.
        gradients: `(S, N)`.
        factors: `(S,)`.

    >>> climbed(torch.ones(2, 1), torch.tensor([[2.0], [torch.inf]]), torch.tensor([0.5, 0.0]))
    tensor([[2.],
            [1.]])
    """
    column = factors.unsqueeze(1)
    return torch.where(column > 0, torch.addcmul(weights, gradients, column), weights)


def blended(first: Tensor, second: Tensor, shares: Tensor, there: Tensor) -> Tensor:
    """Return `(1 - share) * first + share * second` in every row; `first` where a row did not climb.

    Arguments:
        first: `(S, N)`.
        second: `(S, N)`.
        shares: `(S,)`, in [0, 1].
        there: `(S,)` bool, which rows climbed.

    >>> first, second = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.5], [torch.nan]])
    >>> blended(first, second, torch.tensor([0.8, 0.8]), torch.tensor([True, False]))
    tensor([[1.4000],
            [1.0000]])
    """
    return torch.where(there.unsqueeze(1), torch.lerp(first, second, shares.unsqueeze(1)), first)
