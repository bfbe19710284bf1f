"""What climbing changed, kept for steps that do not climb."""

import math
from typing import NamedTuple

import torch

from msam.sharpness._tensors import Gradients, inner, local, norm


class Change(NamedTuple):
    """The change of a gradient from theta to theta + eps, by the length of the first: what keeps its meaning elsewhere.

    Attributes:
        along: its part along the first gradient.
        across: its part orthogonal to it.
    """

    along: float
    across: Gradients


@torch.no_grad()
def change(first: Gradients, second: Gradients) -> Change:
    """Return the change from `first` to `second`; a missing gradient counts as 0.

    Nothing is kept of a second gradient that is not finite: the steps that reuse it would not be finite either.
    """
    length = float(norm(first.values()))
    along = float(inner(first, second)) / length**2
    if not math.isfinite(float(norm(second.values()))):
        return Change(0.0, {})
    across = {p: g.sub(first[p], alpha=along) if p in first else g.clone() for p, g in second.items()}
    across |= {p: g * -along for p, g in first.items() if p not in second}
    return Change(along - 1, {p: g.div_(length) for p, g in across.items()})


@torch.no_grad()
def reused(first: Gradients, kept: Change, share: float) -> Gradients:
    """Return `first` changed by `share` times what is kept, stretched to its length."""
    factor = share * float(norm(first.values()))
    spent = {p: g * (1 + share * kept.along) for p, g in first.items()}
    both = [p for p in kept.across if p in spent]
    if both:
        torch._foreach_add_([local(spent[p]) for p in both], [local(kept.across[p]) for p in both], alpha=factor)
    return spent | {p: g * factor for p, g in kept.across.items() if p not in spent}
