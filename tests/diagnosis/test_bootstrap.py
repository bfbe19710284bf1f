"""Intervals are those of scipy's BCa, for all columns at once, and cover as often as they say."""

import numpy as np
import pytest
from scipy import stats

from msam.diagnosis._bootstrap import bounds
from msam.diagnosis._found import shares


@pytest.mark.parametrize("n", [12, 60])
def test_ends_are_those_of_scipy(n):
    x = np.random.default_rng(1).exponential(size=n)
    found = bounds(x[:, None], np.ones((n, 1)), resamples=20000)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(2))
    low, high = theirs.confidence_interval
    assert found.value == pytest.approx(x.mean())
    width = high - low
    assert found.low == pytest.approx(low, abs=0.04 * width)
    assert found.high == pytest.approx(high, abs=0.04 * width)


def test_a_ratio_of_sums_resamples_whole_samples():
    """Two rows of every sample are no more information than one."""
    x = np.random.default_rng(0).normal(size=(80, 1))
    once = bounds(x, np.ones((80, 1)))
    twice = bounds(2 * x, np.full((80, 1), 2.0))
    assert np.allclose(once, twice)


def test_a_column_does_not_depend_on_the_others():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    many, one = bounds(x, np.ones_like(x)), bounds(x[:, :1], np.ones((50, 1)))
    assert np.allclose([many.low[0], many.high[0]], [one.low[0], one.high[0]])


def test_rows_that_do_not_count_are_left_out():
    x = np.array([[1.0], [3.0], [100.0]])
    found = bounds(x * [[1.0], [1.0], [0.0]], np.array([[1.0], [1.0], [0.0]]))
    assert found.value == 2.0
    assert found.high <= 3.0


def test_equal_values_have_no_width_and_one_sample_no_interval():
    same = bounds(np.ones((20, 1)), np.ones((20, 1)))
    assert (same.low, same.high) == (1.0, 1.0)
    alone = bounds(np.ones((1, 1)), np.ones((1, 1)))
    assert alone.value == 1.0
    assert np.isnan(alone.low)


@pytest.mark.parametrize("of", ["mean", "share"])
def test_intervals_cover_at_the_stated_rate(of):
    """Of skewed values, 150 of them, and of the share that one mean has of two."""
    rng = np.random.default_rng(3)
    truth = 1.0 if of == "mean" else 1 / 3
    hits = 0
    for seed in range(300):
        x = np.stack([rng.gamma(2.0, 0.5, 150), rng.gamma(2.0, 1.0, 150)], 1)
        found = bounds(x, np.ones_like(x), (lambda m: m) if of == "mean" else shares, resamples=400, seed=seed)
        hits += found.low[0] <= truth <= found.high[0]
    assert 0.92 <= hits / 300 <= 0.98
