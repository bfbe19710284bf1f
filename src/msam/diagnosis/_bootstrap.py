"""Intervals of many means, and of what is made of them, at once: the BCa bootstrap over samples (Efron 1987).

`scipy.stats.bootstrap` takes one statistic; here hundreds share their resamples, which are one product of matrices.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

Array = np.ndarray
LEVEL = 0.95
AT_ONCE = 2**22
"""Numbers drawn at once."""


class Bounds(NamedTuple):
    """Values `(Q,)` and the ends of their 95 % intervals; NaN ends where fewer than two samples count."""

    value: Array
    low: Array
    high: Array


def bounds(
    sums: Array,
    counts: Array,
    made: Callable[[Array], Array] = lambda means: means,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Bounds:
    """Return what is made of the means of columns, with its intervals, samples resampled as wholes.

    A mean is `sums.sum(0) / counts.sum(0)`: a sample may count for several rows, or for none.

    Arguments:
        sums: `(n, K)`, what each sample adds.
        counts: `(n, K)`, how many rows it adds that to.
        made: from means `(..., K)` to what is asked for, `(..., Q)`.
        resamples: how many.
        seed: of the resamples.

    >>> found = bounds(np.array([[0.0], [1.0], [1.0], [0.0]]), np.ones((4, 1)))
    >>> found.value, found.low < 0.5 < found.high
    (array([0.5]), array([ True]))
    """
    n = len(sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        total, count = sums.sum(0), counts.sum(0)
        value = made(total / count)
        if n < 2:
            return Bounds(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
        left_out = made((total - sums) / (count - counts))
        drawn = np.concatenate([made((w @ sums) / (w @ counts)) for w in _weights(n, resamples, seed)])
        low, high = _bca(value, left_out, drawn)
    return Bounds(value, low, high)


def _weights(n: int, resamples: int, seed: int) -> Iterator[Array]:
    """Yield how often each resample holds each sample, `(r, n)` at once; the same ones however many columns there are."""
    rng = np.random.default_rng(seed)
    rows = max(1, AT_ONCE // n)
    for start in range(0, resamples, rows):
        r = min(rows, resamples - start)
        places = rng.integers(n, size=(r, n)) + np.arange(r)[:, None] * n
        yield np.bincount(places.ravel(), minlength=r * n).reshape(r, n).astype(np.float64)


def _bca(value: Array, left_out: Array, drawn: Array) -> tuple[Array, Array]:
    known = np.isfinite(drawn)
    size = np.maximum(known.sum(0), 1)
    below = ((drawn < value) & known).sum(0) + 0.5 * ((drawn == value) & known).sum(0)
    bias = ndtri(np.clip(below / size, 0.5 / size, 1 - 0.5 / size))
    there = np.isfinite(left_out)
    kept = np.where(there, left_out, 0.0)
    away = np.where(there, kept.sum(0) / np.maximum(there.sum(0), 1) - kept, 0.0)
    spread = (away**2).sum(0) ** 1.5
    skew = np.where(spread > 0, (away**3).sum(0) / (6 * np.where(spread > 0, spread, 1.0)), 0.0)
    ordered = np.sort(np.where(known, drawn, np.inf), 0)
    ends = []
    for z in ndtri([(1 - LEVEL) / 2, (1 + LEVEL) / 2]):
        share = ndtr(bias + (bias + z) / (1 - skew * (bias + z)))
        place = share * (size - 1)
        under = np.floor(place).astype(int)
        over = np.minimum(under + 1, size - 1)
        at = [np.take_along_axis(ordered, k[None], 0)[0] for k in (under, over)]
        ends.append(np.where(np.isfinite(value), at[0] + (place - under) * (at[1] - at[0]), np.nan))
    return ends[0], ends[1]
