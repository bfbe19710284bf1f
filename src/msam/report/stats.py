"""Statistics over seeds: summaries, and comparisons paired by seed."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from msam import selection as selections
from msam.record import Record
from msam.report.rows import Block, Row
from msam.report.runs import Run, check_same_data, finished

LEVEL = 0.05
"""A p-value below it, after Holm's correction, is called a difference."""


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
        if self.best_p_holm >= LEVEL:
            return f"too few seeds for p < {LEVEL:g}"
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


def compare(name: str, against: str, differences: Sequence[float]) -> Comparison:
    """Return the comparison that the paired `differences` make, alone in its family.

    The permutation test swaps the two members of each pair: 2^n equally likely outcomes, so that p >= 2 / 2^n.

    >>> compare("a", "b", [1.0, 2.0, 3.0]).p
    0.25
    """
    d = np.asarray(differences, dtype=float)
    if d.size == 0 or not np.isfinite(d).all():
        return Comparison(name, against, tuple(differences), math.nan, math.nan, math.nan, math.nan, math.nan, 1.0)
    low, high = _interval(d)
    p, best = _permutation_p(d), min(1.0, 2 / 2.0**d.size)
    return Comparison(name, against, tuple(differences), float(d.mean()), low, high, p, p, best)


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
    return [
        replace(c, p_holm=p, best_p_holm=1.0 if math.isnan(b) else b)
        for c, p, b in zip(comparisons, corrected, best, strict=True)
    ]


def paired(
    a: Sequence[Record],
    b: Sequence[Record],
    *,
    names: tuple[str, str] = ("a", "b"),
    metric: str = "accuracy",
    select: str = "best_validation",
) -> Comparison:
    """Compare two sets of records seed by seed: `a` - `b`.

    Arguments:
        a: records of one configuration, one per seed; unfinished ones are left out.
        b: records of another, on the same data.
        names: what the two are called.
        metric: a test measure: "accuracy", "macro_f1", "nll", "tau", or of one modality, "zeroed.audio".
        select: which epoch is read.

    Raises:
        ValueError: if the two share no seed, or their data differ.
    """
    selection = selections.load(select)
    runs_a, runs_b = (finished(records, selection)[0] for records in (a, b))
    check_same_data([*runs_a, *runs_b])
    differences = _differences(runs_a, runs_b, metric)
    if not differences:
        raise ValueError(
            f"{names[0]} and {names[1]} must share a seed to be paired, received "
            f"{sorted(r.seed for r in runs_a)} and {sorted(r.seed for r in runs_b)}."
        )
    return compare(*names, differences)


def comparisons(block: Block) -> list[Comparison]:
    """Compare test accuracies within a block: every row against Joint, and M-SAM against SAM, Holm over them all.

    Models of one modality are no competitors of Joint and stay out of the family. Where there are several Joint rows,
    a row meets the one that shares its other settings. Where there are several M-SAM or SAM rows of one method, the
    two with the best mean validation accuracy meet.
    """
    rivals = [row for row in block.rows if row.method != "unimodal"]
    pairs = [(row, base) for row in rivals if (base := _joint(block, row)) is not None and base is not row]
    for method in dict.fromkeys(row.method for row in rivals):
        ours, sam = (_best(block, method, rule) for rule in ("msam", "sam"))
        if ours is not None and sam is not None:
            pairs.append((ours, sam))
    return family([compare(a.label, b.label, d) for a, b in pairs if (d := _differences(a.runs, b.runs, "accuracy"))])


def _joint(block: Block, row: Row) -> Row | None:
    plain = [other for other in block.rows if (other.method, other.sharpness) == ("joint", None)]
    alike = [other for other in plain if other.setting == row.setting]
    most_seeds_first = sorted(plain, key=lambda other: -len(other.runs))
    return next(iter(([row] if row in alike else []) + alike + most_seeds_first), None)


def _best(block: Block, method: str, rule: str) -> Row | None:
    rows = [row for row in block.rows if (row.method, row.sharpness) == (method, rule)]
    return max(rows, key=lambda row: np.nan_to_num(np.mean(row.values("valid_accuracy"))), default=None)


def _differences(a: Sequence[Run], b: Sequence[Run], metric: str) -> list[float]:
    partner = {run.seed: run for run in b}
    mine = sorted((run for run in a if run.seed in partner), key=lambda run: run.seed)
    return [run.measures[metric] - partner[run.seed].measures[metric] for run in mine]


def _interval(d: np.ndarray) -> tuple[float, float]:
    """The 95 % BCa bootstrap interval of the mean; the point itself where all differences are equal."""
    if d.size < 2:
        return math.nan, math.nan
    if np.ptp(d) <= 1e-12 * max(1.0, float(np.abs(d).max())):
        return float(d.mean()), float(d.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap((d,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(0))
    return float(interval.confidence_interval.low), float(interval.confidence_interval.high)


def _permutation_p(d: np.ndarray) -> float:
    if d.size == 1:
        return 1.0
    test = stats.permutation_test(
        (d, np.zeros_like(d)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)
