import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report._records import config, write

from msam import record, selection
from msam.report import paired, rows, runs, stats


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
    found = stats.compare("a", "b", differences)
    assert found.p == pytest.approx(p)
    assert permutation_p(differences) == pytest.approx(p)


@given(st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=6))
def test_permutation_p_equals_its_definition(differences: list[float]) -> None:
    found = stats.compare("a", "b", differences)
    assert found.p == pytest.approx(permutation_p(differences))
    assert found.p >= found.best_p_holm - 1e-12
    assert found.low <= found.mean + 1e-12
    assert found.mean <= found.high + 1e-12


def test_interval_covers_the_mean_of_normal_differences_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    found = [stats.compare("a", "b", list(random.normal(1.0, 1.0, 20))) for _ in range(60)]
    assert 0.85 <= np.mean([c.low <= 1.0 <= c.high for c in found]) <= 1.0


def test_equal_differences_have_a_point_for_an_interval() -> None:
    found = stats.compare("a", "b", [0.25, 0.25, 0.25])
    assert (found.low, found.high) == (0.25, 0.25)


def test_differences_that_are_no_numbers_give_no_p() -> None:
    found = stats.compare("a", "b", [0.1, math.nan])
    assert math.isnan(found.p)
    assert "too few" in found.reading


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
    [(5, 0, "too few seeds for p < 0.05"), (6, 0, "higher"), (6, 1, "too few seeds for p < 0.05"), (7, 1, "higher")],
)
def test_no_verdict_that_the_number_of_seeds_could_not_give(pairs: int, others: int, reading: str) -> None:
    ahead = stats.compare("a", "b", [1.0 + 0.1 * i for i in range(pairs)])
    family = stats.family([ahead] * (1 + others))
    assert family[0].reading == reading


def test_readings() -> None:
    lower = stats.compare("a", "b", [-1.0 - 0.1 * i for i in range(8)])
    unclear = stats.compare("a", "b", [1.0, -1.0, 0.5, -0.5, 0.2, -0.2, 0.1])
    assert (lower.reading, unclear.reading) == ("lower", "no difference shown")
    assert stats.compare("a", "b", [1.0, 0.0, -1.0]).ahead == 1.5


def accuracies(folder: Path, name: str, settings: dict, tests: list[float], first: int = 0) -> list[record.Record]:  # type: ignore[type-arg]
    found = []
    for seed, value in enumerate(tests, start=first):
        path = folder / f"{name}{seed}.jsonl"
        curves = {"train": [0.9], "valid": [value], "test": [value]}
        found.append(record.read(write(path, {**settings, "seed": seed}, **curves)))  # type: ignore[arg-type]
    return found


def test_records_are_paired_by_seed_whatever_their_order(tmp_path: Path) -> None:
    a = accuracies(tmp_path, "a", config("joint", "msam"), [0.80, 0.82, 0.90])
    b = accuracies(tmp_path, "b", config("joint", "sam"), [0.79, 0.80], first=1)
    found = paired(a[::-1], b, names=("M-SAM", "SAM"))
    assert (found.name, found.against, found.n) == ("M-SAM", "SAM", 2)
    assert found.differences == pytest.approx((0.82 - 0.79, 0.90 - 0.80))
    assert found.mean == pytest.approx(0.065)


def test_records_without_a_common_seed_cannot_be_paired(tmp_path: Path) -> None:
    a = accuracies(tmp_path, "a", config(), [0.8])
    b = accuracies(tmp_path, "b", config("joint", "sam"), [0.8], first=5)
    with pytest.raises(ValueError, match="must share a seed"):
        paired(a, b)


def test_other_measures_can_be_compared(tmp_path: Path) -> None:
    a, b = (accuracies(tmp_path, n, config("joint", r), v) for n, r, v in (("a", "sam", [0.8]), ("b", None, [0.7])))
    assert paired(a, b, metric="nll").mean == pytest.approx(2 * 0.2 - 2 * 0.3)


def test_a_block_compares_with_joint_and_msam_with_sam(tmp_path: Path) -> None:
    for name, method, rule, level in (
        ("j", "joint", None, 0.7),
        ("s1", "joint", {"name": "sam", "rho": 0.1}, 0.71),
        ("s2", "joint", {"name": "sam", "rho": 0.2}, 0.72),
        ("m", "joint", {"name": "msam", "rho": 0.3}, 0.73),
        ("u", {"name": "unimodal", "modality": "audio"}, None, 0.5),
    ):
        accuracies(tmp_path, name, config(method, rule), [level, level + 0.01])
    (block,) = rows.blocks(runs.finished(record.find(tmp_path), selection.load("last"))[0])
    found = {(c.name, c.against): c for c in stats.comparisons(block)}
    assert list(found) == [
        ("SAM (rho=0.1)", "Joint"),
        ("SAM (rho=0.2)", "Joint"),
        ("M-SAM", "Joint"),
        ("M-SAM", "SAM (rho=0.2)"),
    ]
    assert found["M-SAM", "Joint"].mean == pytest.approx(0.03)
    assert found["M-SAM", "SAM (rho=0.2)"].mean == pytest.approx(0.01)
    assert all(c.p_holm == 1.0 for c in found.values())


def test_a_row_meets_the_joint_row_that_shares_its_settings(tmp_path: Path) -> None:
    accuracies(tmp_path, "j20", config(epochs=20), [0.70, 0.70, 0.71])
    accuracies(tmp_path, "j40", config(epochs=40), [0.75, 0.75])
    accuracies(tmp_path, "s40", config("joint", "sam", epochs=40), [0.76, 0.77])
    (block,) = rows.blocks(runs.finished(record.find(tmp_path), selection.load("last"))[0])
    assert {(c.name, c.against) for c in stats.comparisons(block)} == {("SAM", "Joint (epochs=40)")}
