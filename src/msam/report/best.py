"""Which rows of a block could be the best one: what the seeds cannot exclude, instead of the highest mean in bold."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from msam.report import stats
from msam.report.rows import Row
from msam.report.stats import LEVEL


@dataclass(frozen=True)
class Best:
    """Rows that could be the best.

    Attributes:
        top: the one of them with the highest mean; empty where no row is told apart.
        alike: the others of them.
        possible: whether the seeds could have told any row apart.
    """

    top: str
    alike: frozenset[str]
    possible: bool


def of(rows: Mapping[str, Row]) -> Best:
    """Return the rows that are not shown to be below any other, by the measure that decides, on test.

    Each row meets every other, paired by seed, and is out when one of its comparisons is lost at 0.05 after Holm's
    correction over the comparisons *of that row*. That is enough for the set as a whole: the truly best row is left out
    only if one of its own comparisons errs (Hsu's comparisons with the best, 1984, with permutation tests in place of
    t). So of all such sets at most 5 % miss it, however the highest mean was found.

    Arguments:
        rows: the rows that compete, by name.
    """
    values = {name: {run.seed: run.measures["score"] for run in row.runs} for name, row in rows.items()}
    tests = {(a, b): _test(values[a], values[b]) for a in rows for b in rows if a < b}
    inside, possible = [], False
    for name in rows:
        met = [_seen(tests, name, other) for other in rows if other != name]
        found = [(mean, p, n) for mean, p, n in met if not math.isnan(p)]
        corrected = stats.holm([p for _, p, _ in found])
        lost = any(p < LEVEL and mean < 0 for (mean, _, _), p in zip(found, corrected, strict=True))
        possible = possible or any(len(found) * stats.best_p(n) < LEVEL for _, _, n in found)
        inside += [] if lost else [name]
    if len(inside) in (0, len(rows)):
        return Best("", frozenset(), possible)
    top = max(inside, key=lambda name: _mean(values[name]))
    return Best(top, frozenset(inside) - {top}, possible)


def _test(ours: Mapping[tuple[int, ...], float], theirs: Mapping[tuple[int, ...], float]) -> tuple[float, float, int]:
    """Mean difference, p-value and number of pairs; NaN where there is nothing to test."""
    d = np.array([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])
    if d.size == 0 or not np.isfinite(d).all():
        return math.nan, math.nan, d.size
    return float(d.mean()), stats.permutation_p(d), d.size


def _seen(tests: Mapping[tuple[str, str], tuple[float, float, int]], name: str, other: str) -> tuple[float, float, int]:
    """The test of two rows as the first of them sees it."""
    if name < other:
        return tests[name, other]
    mean, p, n = tests[other, name]
    return -mean, p, n


def _mean(values: Mapping[tuple[int, ...], float]) -> float:
    return math.fsum(values.values()) / len(values)
