"""Statistics over seeds: summaries, and comparisons paired by seed."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from msam.report import improvement

LEVEL = 0.05
"""A p-value below it, after Holm's correction, is called a difference."""

RESAMPLES = 9999
"""Of the bootstrap, and of the permutation test where pairs are too many to swap them in every way."""

EXACT = int(math.log2(RESAMPLES))
"""Most pairs that are swapped in every way."""


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (n - 1 in the denominator; NaN for one value) of n values."""

    n: int
    mean: float
    sd: float


@dataclass(frozen=True)
class Comparison:
    """Differences `name` - `against`, paired by seed.

    Attributes:
        name: what is compared.
        against: with what.
        differences: one per seed that both have, in order of the seeds, in the unit of the measure.
        mean: their mean.
        low: lower end of the 95 % BCa bootstrap interval of the mean; NaN with fewer than two pairs.
        high: its upper end.
        p: two-sided p-value of the paired permutation test; exact up to 13 pairs.
        p_holm: the same after Holm's correction over the family of comparisons.
        best_p_holm: the smallest `p_holm` that this number of pairs and comparisons could ever give.
        improvement: probability that a run of `name` is higher than one of `against` with another or the same seed, ties
            counted half, in [0, 1]; over all pairs of runs.
        improvement_low: lower end of its 95 % bootstrap interval; NaN where there is nothing to resample.
        improvement_high: its upper end.
        family: number of comparisons that Holm's correction counted.
    """

    name: str
    against: str
    differences: tuple[float, ...]
    mean: float
    low: float
    high: float
    p: float
    p_holm: float
    best_p_holm: float
    improvement: float
    improvement_low: float
    improvement_high: float
    family: int = 1

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.differences)

    @property
    def ahead(self) -> float:
        """Number of pairs in which `name` is higher, ties counted half."""
        return sum(0.5 if d == 0 else float(d > 0) for d in self.differences)

    @property
    def reading(self) -> str:
        """The outcome in words; never a verdict that the number of seeds could not have given."""
        if math.isnan(self.p):
            return "not all values are numbers"
        if self.best_p_holm >= LEVEL:
            enough = enough_pairs(self.family)
            could = f"{enough} could show it" if enough else "with so many comparisons no number could show it"
            return f"too few seeds for p < {LEVEL:g}: {could}"
        if not self.p_holm < LEVEL:
            return "no difference shown"
        return "higher" if self.mean > 0 else "lower"


def summary(values: Sequence[float]) -> Summary:
    """Return number, mean and standard deviation; NaN among the values makes both NaN.

    >>> summary([1.0, 3.0])
    Summary(n=2, mean=2.0, sd=1.4142135623730951)
    """
    n = len(values)
    if not all(map(math.isfinite, values)) or n == 0:
        return Summary(n, math.nan, math.nan)
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else math.nan
    return Summary(n, mean, sd)


def compare(name: str, against: str, ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
    """Return the comparison of paired values, alone in its family.

    The permutation test swaps the two members of each pair: 2^n equally likely outcomes, so that p >= 2 / 2^n.

    Arguments:
        name: what `ours` are of.
        against: what `theirs` are of.
        ours: one value per seed.
        theirs: the other's, in the same order of seeds.

    Raises:
        ValueError: if the two differ in number.

    >>> compare("a", "b", [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]).p
    0.25
    """
    if len(ours) != len(theirs):
        raise ValueError(f"Paired values must be equal in number, received {len(ours)} and {len(theirs)}.")
    differences = tuple(a - b for a, b in zip(ours, theirs, strict=True))
    d = np.asarray(differences, dtype=float)
    if d.size == 0 or not np.isfinite(d).all():
        nan = math.nan
        return Comparison(name, against, differences, nan, nan, nan, nan, nan, 1.0, nan, nan, nan)
    (low, high), p, (better, *ends) = interval(d), permutation_p(d), improvement.probability(ours, theirs)
    mean = float(d.mean())
    return Comparison(name, against, differences, mean, low, high, p, p, best_p(d.size), better, ends[0], ends[1])


def best_p(pairs: int) -> float:
    """Return the smallest p-value that the permutation test could give with so many pairs.

    >>> best_p(5), best_p(6)
    (0.0625, 0.03125)
    """
    return min(1.0, 2 / (2**pairs if pairs <= EXACT else RESAMPLES + 1))


def enough_pairs(family: int) -> int | None:
    """Return how many pairs could give p < 0.05 after Holm's correction over a family of so many comparisons.

    None where no number of them could: above `EXACT` pairs the smallest p-value is that of the resamples.

    >>> enough_pairs(1), enough_pairs(4), enough_pairs(230), enough_pairs(250)
    (6, 8, 14, None)
    """
    return next((n for n in range(1, EXACT + 2) if family * best_p(n) < LEVEL), None)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values after Holm's step-down correction; NaN stays NaN and counts in no family.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted, highest = list(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def family(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with Holm's correction over all of them."""
    corrected = holm([c.p for c in comparisons])
    best = holm([math.nan if math.isnan(c.p) else c.best_p_holm for c in comparisons])
    size = sum(not math.isnan(c.p) for c in comparisons)
    return [
        replace(c, p_holm=p, best_p_holm=1.0 if math.isnan(b) else b, family=size)
        for c, p, b in zip(comparisons, corrected, best, strict=True)
    ]


def interval(d: np.ndarray) -> tuple[float, float]:
    """Return the 95 % BCa bootstrap interval of the mean of differences `(n,)`.

    The point itself where all are equal; NaN with fewer than two. Efron 1987; `tools/coverage.py` measures how often it
    covers the true mean.
    """
    if d.size < 2:
        return math.nan, math.nan
    if np.ptp(d) <= 1e-12 * max(1.0, float(np.abs(d).max())):
        return float(d.mean()), float(d.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap((d,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def estimate(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and the ends of its 95 % BCa bootstrap interval; NaN where a value is not finite, or there is none.

    >>> estimate([2.0, 2.0])
    (2.0, 2.0, 2.0)
    """
    mean = summary(values).mean
    return (mean, *interval(np.asarray(values, dtype=float))) if math.isfinite(mean) else (math.nan,) * 3


def permutation_p(d: np.ndarray) -> float:
    """Return the two-sided p-value of the paired permutation test of differences `(n,)`."""
    if d.size == 1:
        return 1.0
    test = stats.permutation_test(
        (d, np.zeros_like(d)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)
