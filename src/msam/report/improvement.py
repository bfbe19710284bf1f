"""Probability of improvement: how often a run of one row is higher than a run of another (Agarwal et al., NeurIPS 2021)."""

import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 9999


def probability(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return P(X > Y) + P(X = Y) / 2 and the ends of its 95 % bootstrap interval.

    Over all pairs of a run of one row with a run of the other, not only those of one seed: it is the question of someone
    who will train once, with a seed of their own. (How often one is ahead with the same seed is `Comparison.ahead`.) The
    interval resamples seeds, both values of a seed together, and takes percentiles; Agarwal et al. resample the runs of
    each row on their own, since theirs share no seeds. It is NaN where every resample gives the same number, one seed or a
    row that wins every pair: the bootstrap knows nothing of what it has not seen.

    Arguments:
        ours: one finite value per seed.
        theirs: the other row's, in the same order of seeds.

    Of nine pairs three are won: 2 beats 1, 4 beats 1 and 3:

    >>> probability([0.0, 2.0, 4.0], [1.0, 3.0, 5.0])[0]
    0.3333333333333333
    """
    wins = won(np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float))
    point, n = float(wins.mean()), len(wins)
    if n < 2 or np.ptp(wins) == 0:
        return point, math.nan, math.nan
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    low, high = np.percentile(((weights @ wins) * weights).sum(1), (2.5, 97.5))
    return point, float(low), float(high)


def won(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return `(n, m)`: 1 where a value of `ours` `(n,)` is above one of `theirs` `(m,)`, 1/2 where they are equal, else 0.

    >>> won(np.array([1.0, 2.0]), np.array([1.0])).ravel().tolist()
    [0.5, 1.0]
    """
    difference = ours[:, None] - theirs[None, :]
    return (np.sign(difference) + 1) / 2
