"""Ranks over blocks: Friedman's test, and Nemenyi's critical difference of mean ranks (Demsar, JMLR 2006)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count

import numpy as np
from scipy import stats

from msam.report import pairs
from msam.report.measures import CLASSES, Task
from msam.report.rows import Block
from msam.report.stats import LEVEL

Array = np.ndarray


@dataclass(frozen=True)
class Ranks:
    """Ranks of N blocks' rows, 1 for the highest test score, ties with their mean rank; rows by mean rank.

    Attributes:
        rows: names of the k rows, the best mean rank first.
        blocks: titles of the N blocks.
        tasks: their tasks, which say what the values are.
        values: `(N, k)`, the means over seeds.
        ranks: `(N, k)`.
        statistic: Friedman's chi squared, corrected for ties.
        p: its p-value, from k - 1 degrees of freedom.
        f: the statistic of Iman and Davenport 1980, less conservative; infinite where all blocks rank alike.
        f_p: its p-value, from k - 1 and (k - 1)(N - 1) degrees of freedom.
        critical: the critical difference at 0.05.
        left: names of rows that are not in every block.
    """

    rows: tuple[str, ...]
    blocks: tuple[str, ...]
    tasks: tuple[Task, ...]
    values: Array
    ranks: Array
    statistic: float
    p: float
    f: float
    f_p: float
    critical: float
    left: tuple[str, ...] = ()

    @property
    def mean(self) -> Array:
        """Mean ranks, `(k,)`, ascending."""
        found: Array = self.ranks.mean(0)
        return found

    @property
    def different(self) -> bool:
        """Whether Friedman's test finds any difference; without one no pair is told apart."""
        return self.p < LEVEL

    @property
    def groups(self) -> list[tuple[int, int]]:
        """Runs of rows, first and last, that are nearer than the critical difference; none inside another."""
        k, mean = len(self.rows), self.mean
        if not self.different:
            return [(0, k - 1)]
        reach = [max(j for j in range(i, k) if mean[j] - mean[i] < self.critical or i == j) for i in range(k)]
        runs = [(i, last) for i, last in enumerate(reach) if i == 0 or last > reach[i - 1]]
        return [(first, last) for first, last in runs if last > first]

    def near(self, row: int) -> list[str]:
        """Return the names of the rows that a row is not told apart from."""
        inside = {i for first, last in self.groups if first <= row <= last for i in range(first, last + 1)}
        return [self.rows[i] for i in sorted(inside - {row})]


def friedman(
    values: Array, rows: Sequence[str], blocks: Sequence[str], *, tasks: Sequence[Task] = (), left: Sequence[str] = ()
) -> Ranks:
    """Return ranks and tests of values `(N, k)`, N blocks of k >= 3 rows, higher is better; of classes if not said.

    Raises:
        ValueError: if there are fewer than three rows, or fewer blocks than could tell any two rows apart.

    Three rows in one order in each of four blocks: `chi2 = 12 * 4 / (3 * 4) * ((1-2)^2 + 0 + (3-2)^2) = 8`.

    >>> found = friedman(np.array([[3.0, 2.0, 1.0]] * 4), ["a", "b", "c"], list("wxyz"))
    >>> found.mean.tolist(), round(found.statistic, 6), round(found.critical, 3)
    ([1.0, 2.0, 3.0], 8.0, 1.657)
    """
    n, k = values.shape
    enough = enough_blocks(k)
    if n < enough:
        raise ValueError(f"Ranks of {k} rows need at least {enough} blocks, received {n}: fewer can tell no two apart.")
    ranks = stats.rankdata(-values, axis=1)
    order = np.argsort(ranks.mean(0), kind="stable")
    equal = bool((np.ptp(ranks, axis=1) == 0).all())
    statistic, p = (0.0, 1.0) if equal else map(float, stats.friedmanchisquare(*values.T))
    rest = n * (k - 1) - statistic
    f = (n - 1) * statistic / rest if rest > 1e-9 else math.inf
    return Ranks(
        tuple(rows[i] for i in order),
        tuple(blocks),
        tuple(tasks) or (CLASSES,) * n,
        values[:, order],
        ranks[:, order],
        statistic,
        p,
        f,
        float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))),
        critical_difference(k, n),
        tuple(left),
    )


@cache
def critical_difference(rows: int, blocks: int) -> float:
    """Return the smallest difference of mean ranks that tells two of k rows apart over N blocks, at 0.05.

    Nemenyi 1963: `q sqrt(k (k + 1) / (6 N))`, q the quantile of the studentized range of k values divided by sqrt(2).

    >>> round(critical_difference(4, 14), 2)  # Demsar's example: 2.569 * sqrt(4 * 5 / (6 * 14))
    1.25
    """
    q = stats.studentized_range.ppf(1 - LEVEL, rows, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(rows * (rows + 1) / (6 * blocks)))


@cache
def enough_blocks(rows: int) -> int:
    """Return the smallest number of blocks in which two of k >= 3 rows could be told apart.

    If all blocks ranked alike, Friedman's statistic would be `N (k - 1)` and the first and last mean rank `k - 1` apart.

    Raises:
        ValueError: if there are fewer than three rows.

    >>> enough_blocks(3), enough_blocks(10)
    (3, 3)
    """
    if rows < 3:
        raise ValueError(
            f"Ranks need at least three rows, received {rows}: two are compared by their paired differences."
        )
    most = rows - 1
    return next(n for n in count(2) if stats.chi2.sf(n * most, most) < LEVEL and critical_difference(rows, n) < most)


def over(blocks: Sequence[Block]) -> tuple[Ranks | None, str]:
    """Return the ranks over blocks and no words, or no ranks and why there are none; nothing at all of a single block.

    Rows are matched by name, method and rule, and only those that every block has are ranked. Where a block has several of
    one name, the one with the best mean score on validation stands for it. Controls have names of their own. Models of
    one modality are left out.
    """
    if len(blocks) < 2:
        return None, ""
    found = [pairs.standing(block) for block in blocks]
    names = [name for name in found[0] if all(name in rows for rows in found)]
    left = list(dict.fromkeys(name for rows in found for name in rows if name not in names))
    values = np.array([[np.mean(rows[name].values("score")) for name in names] for rows in found])
    finite = np.isfinite(values).all(0) if names else np.zeros(0, dtype=bool)
    left += [name for name, known in zip(names, finite, strict=True) if not known]
    names = [name for name, known in zip(names, finite, strict=True) if known]
    if len(names) < 3:
        return None, (
            f"No ranks over the {len(blocks)} blocks: they share {len(names)} row{'s' * (len(names) != 1)}, and three are "
            "the fewest that are ranked."
        )
    if len(blocks) < enough_blocks(len(names)):
        return None, (
            f"No ranks over the {len(blocks)} blocks: they could tell none of the {len(names)} rows apart. "
            f"{enough_blocks(len(names))} blocks are the fewest that could."
        )
    titles, tasks = [block.title for block in blocks], [block.task for block in blocks]
    return friedman(values[:, finite], names, titles, tasks=tasks, left=left), ""
