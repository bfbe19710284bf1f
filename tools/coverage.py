"""Print how often the intervals of the report cover what they are intervals of, by simulation.

python tools/coverage.py
"""

import math
from collections.abc import Callable

import numpy as np
from cyclopts import App
from scipy import stats as scipy_stats

from msam.report import improvement, ranks, stats

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
DIFFERENCES: dict[str, Draw] = {
    "normal": lambda random, shape: random.normal(0.0, 1.0, shape),
    "skewed (exponential)": lambda random, shape: random.exponential(1.0, shape) - 1.0,
    "skewed (lognormal)": lambda random, shape: random.lognormal(0.0, 1.0, shape) - math.exp(0.5),
}
"""Distributions of paired differences, all of mean 0."""


def of_mean(draw: Draw, seeds: int, repetitions: int) -> tuple[float, float]:
    """Return how often the BCa interval of the report and Student's cover the true mean difference."""
    differences = draw(np.random.default_rng(0), (repetitions, seeds))
    bca = [low <= 0 <= high for low, high in map(stats.interval, differences)]
    half = scipy_stats.t.ppf(0.975, seeds - 1) * differences.std(1, ddof=1) / math.sqrt(seeds)
    return float(np.mean(bca)), float(np.mean(np.abs(differences.mean(1)) <= half))


def of_improvement(shift: float, seeds: int, repetitions: int, shared: float = 0.5) -> tuple[float, float]:
    """Return how often the interval of the probability of improvement covers it, and how often there is none.

    Values are normal with variance 1, of which the seed decides a part `shared` for both rows; one is higher by `shift`.
    """
    random = np.random.default_rng(0)
    seed = random.normal(0, math.sqrt(shared), (repetitions, seeds))
    ours, theirs = (seed + random.normal(0, math.sqrt(1 - shared), seed.shape) for _ in range(2))
    truth = float(scipy_stats.norm.cdf(shift / math.sqrt(2)))
    found = [improvement.probability(a + shift, b)[1:] for a, b in zip(ours, theirs, strict=True)]
    known = [low <= truth <= high for low, high in found if math.isfinite(low)]
    return float(np.mean(known)), 1 - len(known) / repetitions


def family_error(rows: int, seeds: int, repetitions: int) -> tuple[float, float]:
    """Return how often any of several rows equal to Joint is called different, without and with Holm's correction.

    Every row meets the same Joint, so that the comparisons depend on each other as in the report.
    """
    random = np.random.default_rng(0)
    joint = random.normal(0, 1, (repetitions, 1, seeds))
    differences = random.normal(0, 1, (repetitions, rows, seeds)) - joint
    p = permutation_p(differences.reshape(-1, seeds)).reshape(repetitions, rows)
    corrected = np.array([stats.holm(list(line)) for line in p])
    return float((p < stats.LEVEL).any(1).mean()), float((corrected < stats.LEVEL).any(1).mean())


def ranks_error(rows: int, blocks: int, repetitions: int) -> float:
    """Return how often Friedman's test and then the critical difference tell any two of several equal rows apart."""
    random = np.random.default_rng(0)
    values = random.normal(0, 1, (repetitions, blocks, rows))
    names = [str(i) for i in range(rows)]
    found = (ranks.friedman(each, names, names[:1] * blocks) for each in values)
    return float(np.mean([one.different and one.groups != [(0, rows - 1)] for one in found]))


def permutation_p(differences: np.ndarray) -> np.ndarray:
    """Return the exact two-sided p-values of paired permutation tests, `(R, n)` -> `(R,)`, all signs at once."""
    n = differences.shape[1]
    signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    observed = differences.sum(1)
    p = np.empty(len(differences))
    for i, line in enumerate(differences):
        sums = signs @ line
        tails = (sums >= observed[i] - 1e-9).mean(), (sums <= observed[i] + 1e-9).mean()
        p[i] = min(1.0, 2 * min(tails))
    return p


app = App(help=__doc__)


@app.default
def main(repetitions: int = 2000) -> None:
    """Print all simulations.

    Parameters
    ----------
    repetitions
        of each.
    """
    print("Coverage of 95 % intervals of the mean difference:  BCa   Student")
    for name, draw in DIFFERENCES.items():
        for seeds in (5, 10, 20):
            bca, student = of_mean(draw, seeds, repetitions)
            print(f"  {name:20} n = {seeds:2}                       {bca:.3f}   {student:.3f}")
    print("Coverage of 95 % intervals of the probability of improvement, and how often there is none:")
    for shift in (0.0, 1.0):
        for seeds in (5, 10, 20):
            covered, none = of_improvement(shift, seeds, repetitions)
            print(f"  higher by {shift:.0f} sd          n = {seeds:2}                       {covered:.3f}   {none:.3f}")
    print("Any false difference among 6 rows equal to Joint, 10 seeds: without Holm, with Holm:")
    print("  {:.3f}   {:.3f}".format(*family_error(6, 10, repetitions)))
    print("Any two of equal rows told apart by ranks:")
    for rows, blocks in ((4, 4), (8, 6), (8, 12), (16, 6)):
        print(f"  {rows:2} rows, {blocks:2} blocks   {ranks_error(rows, blocks, repetitions):.3f}")


if __name__ == "__main__":
    app()
