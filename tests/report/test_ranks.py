"""Ranks over blocks, by hand and by scipy; refused where blocks are too few."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import stats as scipy_stats

from msam import record, selection
from msam.report import Report, controls, critical, ranks, report, rows, runs, tables
from tests.report._records import config, write

# four blocks, three rows
VALUES = np.array([[0.7, 0.8, 0.9], [0.6, 0.6, 0.8], [0.5, 0.7, 0.6], [0.6, 0.7, 0.9]])


def of(values: Any) -> ranks.Ranks:
    array = np.asarray(values, dtype=float)
    n, k = array.shape
    return ranks.friedman(array, [f"r{i}" for i in range(k)], [f"block {i}" for i in range(n)])


def test_by_hand() -> None:
    # ranks: 3 2 1; 2.5 2.5 1; 3 1 2; 3 2 1; mean ranks 2.875, 1.875, 1.25
    found = of(VALUES)
    assert found.rows == ("r2", "r1", "r0")
    assert found.mean.tolist() == [1.25, 1.875, 2.875]
    assert found.ranks.tolist() == [[1, 2, 3], [1, 2.5, 2.5], [2, 1, 3], [1, 2, 3]]
    # sums of ranks 5, 7.5, 11.5: 12 / (4 * 3 * 4) * (25 + 56.25 + 132.25) - 3 * 4 * 4 = 5.375; one tie of two in a block:
    # divided by 1 - (2^3 - 2) / (4 * (3^3 - 3)) = 0.9375
    assert found.statistic == pytest.approx(5.375 / 0.9375)
    assert found.f == pytest.approx(3 * found.statistic / (4 * 2 - found.statistic))
    assert found.p == pytest.approx(math.exp(-found.statistic / 2))  # chi squared with 2 degrees of freedom


def test_demsars_example() -> None:
    # Table 6 of Demsar 2006: mean ranks 3.143, 2.000, 2.893, 1.964 over 14 datasets; chi squared 9.28, CD 1.25 (it ranks
    # accuracies before they were rounded: those of the last but one dataset differ)
    c45 = [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.000, 0.940, 0.619, 0.972, 0.957]
    m = [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.000, 0.962, 0.666, 0.981, 0.978]
    cf = [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.000, 0.965, 0.614, 0.9751, 0.946]
    both = [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.000, 0.962, 0.669, 0.975, 0.970]
    found = of(np.array([c45, m, cf, both]).T)
    assert sorted(found.mean.tolist()) == pytest.approx([1.964, 2.0, 2.893, 3.143], abs=5e-4)
    # the paper does not correct for ties: three of two rows, 2^3 - 2 each, one of all four, 4^3 - 4
    assert found.statistic == pytest.approx(9.28 / (1 - (3 * 6 + 60) / (14 * (4**3 - 4))), abs=0.01)
    assert found.critical == pytest.approx(1.25, abs=0.005)


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 4), min_size=4, max_size=4), min_size=3, max_size=8))
def test_it_agrees_with_scipy_and_mean_ranks_sum_as_they_must(drawn: list[list[int]]) -> None:
    values = np.array(drawn, dtype=float)
    found = of(values)
    assert found.mean.sum() == pytest.approx(4 * 5 / 2)
    assert (np.diff(found.mean) >= 0).all()
    if np.ptp(values, axis=1).any():
        expected = scipy_stats.friedmanchisquare(*values.T)
        assert found.statistic == pytest.approx(expected.statistic)
        assert found.p == pytest.approx(expected.pvalue)
    else:
        assert (found.statistic, found.p, found.groups) == (0.0, 1.0, [(0, 3)])


def test_the_critical_difference_is_demsars_table_of_quantiles() -> None:
    for k, q in ((2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)):
        assert ranks.critical_difference(k, 6) / math.sqrt(k * (k + 1) / 36) == pytest.approx(q, abs=0.002)


def test_rows_nearer_than_the_critical_difference_form_groups_none_inside_another() -> None:
    found = of(np.tile([4.0, 3.0, 2.0, 1.0], (12, 1)))  # mean ranks 1 to 4, critical difference 1.35
    assert found.critical == pytest.approx(1.354, abs=0.001)
    assert found.groups == [(0, 1), (1, 2), (2, 3)]
    assert found.near(1) == ["r0", "r2"]
    assert math.isinf(found.f)


def test_without_a_difference_by_friedman_no_two_are_told_apart() -> None:
    found = of([[3, 2, 1], [1, 3, 2], [2, 1, 3]])
    assert found.p == 1.0
    assert found.groups == [(0, 2)]
    assert "no two rows are told apart" in tables.ranks(found).caption


def test_fewer_blocks_than_could_tell_two_rows_apart_are_refused_with_the_number_that_could() -> None:
    with pytest.raises(ValueError, match="Ranks of 3 rows need at least 3 blocks, received 2"):
        of([[3, 2, 1]] * 2)
    with pytest.raises(ValueError, match="at least three rows, received 2"):
        of([[2, 1]] * 9)


@pytest.mark.parametrize("k", [3, 4, 7, 12])
def test_the_smallest_number_is_the_smallest(k: int) -> None:
    n = ranks.enough_blocks(k)
    alike = of(np.tile(np.arange(k, dtype=float), (n, 1)))
    assert alike.different
    assert len(alike.groups) > 1 or alike.groups[0] != (0, k - 1)
    fewer_p = scipy_stats.chi2.sf((n - 1) * (k - 1), k - 1)
    assert fewer_p >= 0.05 or ranks.critical_difference(k, n - 1) >= k - 1


def block(folder: Path, name: str, levels: dict[str, float], **more: Any) -> None:
    """Three seeds of Joint, SAM, M-SAM and what else `levels` names, on one dataset."""
    for row, level in levels.items():
        rule = {"SAM": {"name": "sam", "rho": 0.1}, "M-SAM": {"name": "msam", "rho": 0.3}}.get(row)
        method = "ogm_ge" if row == "OGM-GE" else "joint"
        for seed in range(3):
            at = {"train": [0.9], "valid": [level], "test": [level + 0.001 * seed]}
            data = {"name": name, "seed": 0}
            write(folder / f"{name}-{row}-{seed}.jsonl", config(method, rule, seed=seed, data=data, **more), **at)  # type: ignore[arg-type]


def over(folder: Path) -> tuple[ranks.Ranks | None, str]:
    found = runs.finished(record.find(folder), selection.load("best_validation"))[0]
    return ranks.over([controls.marked(each) for each in rows.blocks(found)])


@pytest.fixture
def four(tmp_path: Path) -> tuple[Report, Path]:
    for name in ("w", "x", "y", "z"):
        block(tmp_path / "runs", name, {"Joint": 0.7, "SAM": 0.8, "M-SAM": 0.9})
    block(tmp_path / "runs", "w", {"OGM-GE": 0.75})
    return report([tmp_path / "runs"], tmp_path / "out"), tmp_path / "out"


def test_a_report_over_blocks_ranks_the_rows_that_all_have(four: tuple[Report, Path]) -> None:
    made, out = four
    assert made.ranks
    assert made.ranks.rows == ("M-SAM", "SAM", "Joint")
    assert made.ranks.left == ("OGM-GE",)
    assert made.ranks.values[0].tolist() == pytest.approx([0.901, 0.801, 0.701])
    assert "| M-SAM | 1.00 | 1 1 1 1 | SAM |" in (out / "table.md").read_text()
    assert "left out: OGM-GE" in (out / "table.md").read_text()
    assert (out / "ranks.csv").read_text().count("Ranks over blocks") == 3
    assert (out / "ranks.png").stat().st_size > 5000
    page = (out / "page.html").read_text()
    assert "critical difference 1.66" in page
    assert "<td>1 1 1 1</td>" in page


def test_too_few_blocks_are_refused_in_words_that_say_how_many_would_do(tmp_path: Path) -> None:
    for name in ("w", "x"):
        block(tmp_path, name, {"Joint": 0.7, "SAM": 0.8, "M-SAM": 0.9})
    found, why = over(tmp_path)
    assert found is None
    assert "could tell none of the 3 rows apart. 3 blocks are the fewest that could." in why


def test_too_few_rows_in_common_are_refused_in_words(tmp_path: Path) -> None:
    block(tmp_path, "w", {"Joint": 0.7, "SAM": 0.8, "M-SAM": 0.9})
    for name in ("x", "y"):
        block(tmp_path, name, {"Joint": 0.7, "SAM": 0.8})
    assert "they share 2 rows" in over(tmp_path)[1]


def test_one_block_has_no_ranks_and_needs_no_words(tmp_path: Path) -> None:
    block(tmp_path, "w", {"Joint": 0.7, "SAM": 0.8, "M-SAM": 0.9})
    assert over(tmp_path) == (None, "")


def test_of_several_rows_of_one_name_the_best_on_validation_stands(tmp_path: Path) -> None:
    for name in ("w", "x", "y"):
        block(tmp_path, name, {"Joint": 0.7, "SAM": 0.8, "M-SAM": 0.9})
        worse = config("joint", {"name": "sam", "rho": 0.4}, data={"name": name, "seed": 0})
        write(tmp_path / f"{name}-worse.jsonl", worse, train=[0.9], valid=[0.5], test=[0.99])
    found, _ = over(tmp_path)
    assert found
    assert found.rows == ("M-SAM", "SAM", "Joint")


def test_joint_training_for_twice_the_epochs_is_a_row_of_its_own(tmp_path: Path) -> None:
    for name in ("w", "x", "y"):
        block(tmp_path, name, {"Joint": 0.7, "M-SAM": 0.9})
        data = {"name": name, "seed": 0}
        write(tmp_path / f"{name}-2.jsonl", config(data=data, epochs=6), train=[0.9], valid=[0.8], test=[0.8])
    found, _ = over(tmp_path)
    assert found
    assert found.rows == ("M-SAM", "Joint, twice the epochs", "Joint")


def test_a_row_without_a_number_is_left_out(tmp_path: Path) -> None:
    for name in ("w", "x", "y"):
        block(tmp_path, name, {"Joint": 0.7, "SAM": 0.8, "M-SAM": 0.9, "OGM-GE": math.nan if name == "x" else 0.7})
    found, _ = over(tmp_path)
    assert found
    assert found.left == ("OGM-GE",)


def test_the_diagram_is_the_same_when_made_again_and_names_are_text() -> None:
    evil = ranks.friedman(VALUES, ["<script>", "a & b", "$x$"], list("abcd"))
    assert critical.svg(evil) == critical.svg(evil)
    assert "<script>" not in critical.svg(evil)
    assert "a &amp; b" in critical.svg(evil)
    assert "$x$" in critical.svg(evil)


def test_names_stay_inside_the_diagram() -> None:
    names = [f"OGM-GE (extended) + M-SAM {i}" for i in range(9)]
    found = ranks.friedman(np.random.default_rng(0).normal(size=(6, 9)), names, list("abcdef"))
    figure = critical.draw(found)
    width, height = figure.get_size_inches() * figure.dpi
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text in figure.axes[0].texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height
