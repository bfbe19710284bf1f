"""The probability of improvement, by hand, by scipy and by its laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from msam.report import improvement, stats

values = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=7)


def test_by_hand() -> None:
    # 0.8 is above 0.7 and 0.75, equal to 0.8; 0.7 equals 0.7; 0.9 is above all three: (2.5 + 0.5 + 3) / 9
    assert improvement.probability([0.8, 0.7, 0.9], [0.7, 0.75, 0.8])[0] == pytest.approx(6 / 9)


@given(values, values)
def test_it_is_mann_whitneys_u_over_the_number_of_pairs(ours: list[float], theirs: list[float]) -> None:
    u = mannwhitneyu(ours, theirs, method="asymptotic").statistic if np.ptp([*ours, *theirs]) else None
    wins = improvement.won(np.array(ours), np.array(theirs)).mean()
    assert wins == pytest.approx(0.5 if u is None else u / (len(ours) * len(theirs)))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=7))
def test_the_two_directions_sum_to_one_and_mirror_their_intervals(drawn: list[tuple[int, int]]) -> None:
    a, b = ([float(pair[i]) for pair in drawn] for i in (0, 1))
    there, back = improvement.probability(a, b), improvement.probability(b, a)
    assert there[0] + back[0] == pytest.approx(1.0)
    assert math.isnan(there[1]) == math.isnan(back[2])
    if math.isfinite(there[1]):
        assert there[1] + back[2] == pytest.approx(1.0)
        assert 0 <= there[1] <= there[2] <= 1


def test_the_interval_is_the_bootstrap_over_seeds_by_a_loop() -> None:
    a, b = np.array([3.0, 1.0, 4.0, 1.5]), np.array([2.0, 1.0, 3.5, 5.0])
    drawn = np.random.default_rng(0).multinomial(4, np.full(4, 1 / 4), size=improvement.RESAMPLES)
    found = []
    for counts in drawn[:500]:
        seeds = np.repeat(np.arange(4), counts)
        found.append(np.mean([0.5 if x == y else float(x > y) for x in a[seeds] for y in b[seeds]]))
    weights = drawn[:500] / 4
    assert ((weights @ improvement.won(a, b)) * weights).sum(1) == pytest.approx(found)
    low, high = improvement.probability(list(a), list(b))[1:]
    assert (low, high) == pytest.approx(tuple(np.percentile(found, (2.5, 97.5))), abs=0.08)


@pytest.mark.parametrize(("ours", "theirs"), [([3.0, 4.0], [1.0, 2.0]), ([1.0], [0.0]), ([1.0, 1.0], [1.0, 1.0])])
def test_where_there_is_nothing_to_resample_there_is_no_interval(ours: list[float], theirs: list[float]) -> None:
    point, low, high = improvement.probability(ours, theirs)
    assert point == (0.5 if ours == theirs else 1.0)
    assert math.isnan(low)
    assert math.isnan(high)


def test_a_comparison_has_it_beside_the_number_of_pairs_that_are_ahead() -> None:
    found = stats.compare("a", "b", [0.5, 0.7, 0.9], [0.4, 0.6, 0.8])
    assert found.ahead == 3  # with its own seed it is always ahead, with another it is not
    assert found.improvement == pytest.approx(6 / 9)
