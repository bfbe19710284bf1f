"""The loss on a plane through the weights, along two random directions (Fig. 1 of the paper; Li et al. 2018)."""

from typing import Any

import torch
from torch import Tensor

from msam.train.probes._base import Study, finite

POINTS, SPAN = 21, 1.0
"""Points along each direction, an odd number so that the weights themselves are one, and how far they reach."""


def measure(study: Study, points: int = POINTS, span: float = SPAN) -> dict[str, Any]:
    """Return the joint loss at `theta + x d_1 + y d_2` on a grid of `x` and `y`.

    Directions are normal random numbers of the seed, normalised by filter: each row of a weight of two dimensions or more
    (a convolution's filter, a linear layer's unit) as long as the same row of the weights; biases and the parameters of
    normalisation layers stay. The two are as orthogonal as chance makes them. So a network whose layers are scaled up
    does not look flatter than it is (Li et al., NeurIPS 2018), and two networks may be compared on the same axes.

    BatchNorm keeps the running statistics of the weights in the middle.

    Returns:
        `loss` in the middle; `seed`; `axis`, the points of both `x` and `y`; `losses`, `losses[i][j]` at `x = axis[i]`,
        `y = axis[j]`, of five significant digits, None where it is not finite.
    """
    axis = [round(value, 12) for value in torch.linspace(-span, span, points, dtype=torch.float64).tolist()]
    moved = {p: p.detach().clone() for p in study.parameters if p.dim() >= 2}
    directions = directions_of(list(moved.values()), study.seed)
    rows = []
    with torch.no_grad():
        for x in axis:
            along = [torch.add(at, first, alpha=x) for at, (first, _) in zip(moved.values(), directions, strict=True)]
            rows.append([_loss_at(study, list(moved), along, [d for _, d in directions], y) for y in axis])
        torch._foreach_copy_(list(moved), list(moved.values()))
    return {"loss": finite(study.loss()), "seed": study.seed, "axis": axis, "losses": rows}


def directions_of(weights: list[Tensor], seed: int) -> list[tuple[Tensor, Tensor]]:
    """Return two directions for each weight `(rows, ...)`, every row of the length of the weight's.

    Weights that several models have in common, at the beginning of the list, are given the same random numbers.

    >>> [(first, second)] = directions_of([torch.tensor([[3.0, 4.0], [0.0, 0.0]])], seed=0)
    >>> [round(float(row.norm()), 4) for row in (*first, *second)]
    [5.0, 0.0, 5.0, 0.0]
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for weight in weights:
        drawn = torch.randn(2, *weight.shape, generator=generator).to(weight)
        lengths = drawn.flatten(2).norm(dim=2)
        scale = weight.flatten(1).norm(dim=1) / lengths
        first, second = drawn * scale.view(*scale.shape, *[1] * (weight.dim() - 1))
        found.append((first, second))
    return found


def _loss_at(study: Study, weights: list[Any], along: list[Tensor], second: list[Tensor], y: float) -> float | None:
    torch._foreach_copy_(weights, along)
    torch._foreach_add_(weights, second, alpha=y)
    loss = finite(study.loss())
    return None if loss is None else float(f"{loss:.5g}")
