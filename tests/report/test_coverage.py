"""What docs/statistics.md says of the intervals and of Holm's correction, by a simulation smaller than the one it cites."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from msam.report import stats

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_of_intervals", ROOT / "tools" / "coverage.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("normal", 0.87, 0.95), ("skewed (exponential)", 0.81, 0.92), ("skewed (lognormal)", 0.75, 0.88)],
)
def test_bca_intervals_of_ten_seeds_cover_less_than_they_say_and_not_much_less(
    coverage: ModuleType, name: str, low: float, high: float
) -> None:
    bca, student = coverage.of_mean(coverage.DIFFERENCES[name], seeds=10, repetitions=400)
    assert low <= bca <= high
    assert bca <= student + 0.02


def test_the_interval_of_the_probability_of_improvement_covers_it(coverage: ModuleType) -> None:
    for shift in (0.0, 1.0):
        covered, none = coverage.of_improvement(shift, seeds=10, repetitions=300)
        assert 0.89 <= covered <= 0.98
        assert none < 0.02


def test_without_correction_six_equal_rows_look_different_too_often_and_with_holm_they_do_not(
    coverage: ModuleType,
) -> None:
    plain, corrected = coverage.family_error(rows=6, seeds=10, repetitions=400)
    assert plain > 0.12
    assert corrected <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def test_ranks_tell_equal_rows_apart_more_seldom_than_they_may(coverage: ModuleType) -> None:
    assert coverage.ranks_error(rows=6, blocks=5, repetitions=300) <= 0.05


def test_all_signs_at_once_are_the_permutation_test_of_the_report(coverage: ModuleType) -> None:
    differences = np.random.default_rng(3).normal(0.4, 1.0, (6, 8))
    differences[0] = 0.0
    expected = [stats.permutation_p(line) for line in differences]
    assert coverage.permutation_p(differences) == pytest.approx(expected)


def test_the_page_gives_the_numbers_that_the_tool_printed() -> None:
    page = (ROOT / "docs" / "statistics.md").read_text()
    assert "python tools/coverage.py" in page
    line = re.search(r"\| normal \| (0\.\d+) \| (0\.\d+) \| (0\.\d+) \|", page)
    assert line
    five, ten, twenty = map(float, line.groups())
    assert five < ten < twenty < 0.95
