"""Which rows meet: by what they are and by validation."""

from pathlib import Path

import pytest

from msam import record, selection
from msam.report import paired, pairs, rows, runs
from tests.report._records import config, write


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
    found = {(c.name, c.against): c for c in pairs.comparisons(block)}
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
    assert {(c.name, c.against) for c in pairs.comparisons(block)} == {("SAM", "Joint (epochs=40)")}
