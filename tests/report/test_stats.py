import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msam.report import stats


def of_differences(differences: list[float]) -> stats.Comparison:
    return stats.compare("a", "b", differences, [0.0] * len(differences))


def permutation_p(differences: list[float]) -> float:
    """The definition: over all 2^n swaps of pairs, twice the smaller tail of the mean difference, both ends counted in."""
    observed = math.fsum(differences)
    sums = [math.fsum(signed) for signed in itertools.product(*((d, -d) for d in differences))]
    above = sum(s >= observed - 1e-9 for s in sums) / len(sums)
    below = sum(s <= observed + 1e-9 for s in sums) / len(sums)
    return min(1.0, 2 * min(above, below))


def test_summary_by_hand() -> None:
    found = stats.summary([0.70, 0.72, 0.77])
    assert (found.n, found.mean, found.sd) == (3, pytest.approx(0.73), pytest.approx(math.sqrt(0.0026 / 2)))


def test_summary_of_one_has_no_spread_and_nan_spreads() -> None:
    assert math.isnan(stats.summary([0.5]).sd)
    assert math.isnan(stats.summary([0.5, math.nan]).mean)
    assert math.isnan(stats.summary([]).mean)


@pytest.mark.parametrize(
    ("differences", "p"),
    [([1, 2, 3], 0.25), ([1, -1, 3], 0.75), ([1, 1, 1, 1, 1], 0.0625), ([0, 0], 1.0), ([0.5], 1.0)],
)
def test_permutation_p_by_hand(differences: list[float], p: float) -> None:
    found = of_differences(differences)
    assert found.p == pytest.approx(p)
    assert permutation_p(differences) == pytest.approx(p)


@given(st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=6))
def test_permutation_p_equals_its_definition(differences: list[float]) -> None:
    found = of_differences(differences)
    assert found.p == pytest.approx(permutation_p(differences))
    assert found.p >= found.best_p_holm - 1e-12
    assert found.low <= found.mean + 1e-12
    assert found.mean <= found.high + 1e-12


def test_interval_covers_the_mean_of_normal_differences_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    found = [of_differences(list(random.normal(1.0, 1.0, 20))) for _ in range(60)]
    assert 0.85 <= np.mean([c.low <= 1.0 <= c.high for c in found]) <= 1.0


def test_equal_differences_have_a_point_for_an_interval() -> None:
    found = of_differences([0.25, 0.25, 0.25])
    assert (found.low, found.high) == (0.25, 0.25)


def test_differences_that_are_no_numbers_give_no_p() -> None:
    found = of_differences([0.1, math.nan])
    assert math.isnan(found.p)
    assert found.reading == "not all values are numbers"


def test_holm_by_hand() -> None:
    # sorted: 0.01 * 4 = 0.04, 0.02 * 3 = 0.06, 0.03 * 2 = 0.06, 0.5 * 1
    assert stats.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([0.02, math.nan])[0] == 0.02


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = stats.holm(p_values)
    assert all(p <= a <= min(1.0, len(p_values) * p) + 1e-12 for p, a in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


@pytest.mark.parametrize(
    ("pairs", "others", "reading"),
    [
        (5, 0, "too few seeds for p < 0.05: 6 could show it"),
        (6, 0, "higher"),
        (6, 1, "too few seeds for p < 0.05: 7 could show it"),
        (7, 1, "higher"),
    ],
)
def test_no_verdict_that_the_number_of_seeds_could_not_give(pairs: int, others: int, reading: str) -> None:
    ahead = of_differences([1.0 + 0.1 * i for i in range(pairs)])
    family = stats.family([ahead] * (1 + others))
    assert family[0].reading == reading


def test_readings() -> None:
    lower = of_differences([-1.0 - 0.1 * i for i in range(8)])
    unclear = of_differences([1.0, -1.0, 0.5, -0.5, 0.2, -0.2, 0.1])
    assert (lower.reading, unclear.reading) == ("lower", "no difference shown")
    assert of_differences([1.0, 0.0, -1.0]).ahead == 1.5
