"""The arithmetic of Shapley values: a game's value of each coalition in, what each player is worth out."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from msam import checks

MAX_EXACT = 12


@lru_cache(maxsize=32)
def coalitions(num_modalities: int) -> tuple[tuple[int, ...], ...]:
    """Return the `2**M - 1` non-empty coalitions of `M` modalities in bitmask order.

    Raises:
        ValueError: if `num_modalities` is not in 1 .. 12.

    >>> coalitions(2)
    ((0,), (1,), (0, 1))
    """
    _exact_size(num_modalities)
    return tuple(tuple(m for m in range(num_modalities) if mask >> m & 1) for mask in range(1, 2**num_modalities))


def shapley_values(values: Tensor) -> Tensor:
    r"""Return the Shapley values of a game given by the value of each of its coalitions.

    `phi_m = sum over S without m of |S|! (M - |S| - 1)! / M! * (v(S + m) - v(S))`, with `v(empty) = 0`. The result is
    linear in `values` and sums over the modalities to `values[-1]`.

    Arguments:
        values: `(2**M - 1, *S)`, the value of each coalition in the order of `coalitions(M)`.

    Returns:
        `(M, *S)`.

    Raises:
        ValueError: if the first size is not `2**M - 1` for an `M` in 1 .. 12.

    Two modalities, worth 0.5 and 0.3 alone and 1.0 together:

    >>> shapley_values(torch.tensor([0.5, 0.3, 1.0]))
    tensor([0.6000, 0.4000])
    """
    num_modalities = (len(values) + 1).bit_length() - 1
    if len(values) == 0 or 2**num_modalities - 1 != len(values):
        raise ValueError(
            f"`values` must have 2**M - 1 rows, one for each non-empty coalition, received shape {tuple(values.shape)}."
        )
    _exact_size(num_modalities)
    if not values.is_floating_point():
        values = values.to(torch.get_default_dtype())
    weights = _weights(num_modalities, values.dtype, values.device)
    if values.dim() == 1:
        return (weights * values).sum(1)
    weights = weights.unflatten(-1, (-1, *[1] * (values.dim() - 1)))
    return torch.stack([(weight * values).sum(0) for weight in weights])  # a product `@` would be rounded by autocast


class Sampled(NamedTuple):
    """Shapley values estimated from permutations.

    Attributes:
        values: `(M, *S)`, unbiased; they sum to the value of the full coalition exactly.
        standard_error: `(M, *S)`, of each value.
    """

    values: Tensor
    standard_error: Tensor


def sampled_shapley_values(
    value: Callable[[tuple[int, ...]], Tensor], num_modalities: int, *, permutations: int = 256, seed: int = 0
) -> Sampled:
    """Estimate Shapley values from random orders in which the modalities join; for more than 12 modalities.

    Every order is walked forwards and backwards (Castro et al. 2009, with antithetic pairs); the standard error is
    that of the mean over pairs. Coalitions met before are not asked for again.

    Arguments:
        value: the value `(*S)` of a non-empty coalition, given as sorted positions of its modalities.
        num_modalities: `M`, at least 1.
        permutations: how many orders, an even number, at least 4.
        seed: of the orders.

    Raises:
        ValueError: if `permutations` is odd or below 4, or `num_modalities` below 1.

    >>> sampled_shapley_values(lambda s: torch.tensor(float(len(s))), 3, permutations=4).values
    tensor([1., 1., 1.])
    """
    checks.in_range("num_modalities", num_modalities, checks.Range(ge=1))
    checks.in_range("permutations", permutations, checks.Range(ge=4))
    if permutations % 2:
        raise ValueError(f"`permutations` must be even (each order is walked both ways), received {permutations}.")
    known: dict[tuple[int, ...], Tensor] = {}
    pairs = []
    for order in orders(num_modalities, permutations // 2, seed):
        walks = [_marginals(value, walk, known) for walk in (order, order[::-1])]
        pairs.append((walks[0] + walks[1]) / 2)
    drawn = torch.stack(pairs)
    return Sampled(drawn.mean(0), drawn.std(0) / math.sqrt(len(drawn)))


def orders(num_modalities: int, count: int, seed: int) -> list[list[int]]:
    """Return the random orders that `sampled_shapley_values` walks forwards and backwards.

    >>> orders(3, 2, seed=0) == orders(3, 2, seed=0)
    True
    """
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(num_modalities, generator=generator).tolist() for _ in range(count)]


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _weights(num_modalities: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    def weight(m: int, members: tuple[int, ...]) -> float:
        others = len(members) - (m in members)
        size = 1.0 / (num_modalities * math.comb(num_modalities - 1, others))
        return size if m in members else -size

    rows = [[weight(m, members) for members in coalitions(num_modalities)] for m in range(num_modalities)]
    return torch.tensor(rows, dtype=torch.float64).to(device=device, dtype=dtype)


def _marginals(
    value: Callable[[tuple[int, ...]], Tensor], order: Sequence[int], known: dict[tuple[int, ...], Tensor]
) -> Tensor:
    gains: dict[int, Tensor] = {}
    before: Tensor | float = 0.0
    for position, m in enumerate(order, start=1):
        members = tuple(sorted(order[:position]))
        if members not in known:
            known[members] = torch.as_tensor(value(members))
        gains[m] = known[members] - before
        before = known[members]
    return torch.stack([gains[m] for m in range(len(order))])


def _exact_size(num_modalities: int) -> None:
    if not 1 <= num_modalities <= MAX_EXACT:
        raise ValueError(
            f"Exact Shapley values are for 1 to {MAX_EXACT} modalities, received {num_modalities}. "
            "Use `sampled_shapley_values` for more."
        )
