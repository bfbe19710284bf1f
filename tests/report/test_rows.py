import math
from pathlib import Path
from typing import Any

import pytest

from msam import record, selection
from msam.report import datasets, pairs, rows, runs
from tests.report._records import config, write


def read(folder: Path, name: str = "best_validation") -> list[runs.Run]:
    return runs.finished(record.find(folder), selection.load(name))[0]


def one(path: Path, settings: dict[str, Any], **more: Any) -> Path:
    return write(path, settings, **{"train": [0.9], "valid": [0.8], "test": [0.7]} | more)


def test_runs_that_differ_in_their_seed_are_one_row(tmp_path: Path) -> None:
    for seed in (2, 0, 1):
        one(tmp_path / f"{seed}.jsonl", config(seed=seed))
    (block,) = rows.blocks(read(tmp_path))
    (row,) = block.rows
    assert [run.seed for run in row.runs] == [(0,), (1,), (2,)]


def test_book_keeping_makes_no_row(tmp_path: Path) -> None:
    one(tmp_path / "a.jsonl", config(seed=0, threads=1, record_every=1))
    one(tmp_path / "b.jsonl", config(seed=1, threads=2, record_every=9))
    assert len(rows.blocks(read(tmp_path))[0].rows) == 1


def test_worlds_of_the_dial_are_replications_and_splits_of_other_data_are_not(tmp_path: Path) -> None:
    for name in ("dial", "avdigits"):
        for seed in (0, 1):
            one(tmp_path / f"{name}{seed}.jsonl", config(data={"name": name, "seed": seed}, seed=seed))
    titles = {block.title: [len(row.runs) for row in block.rows] for block in rows.blocks(read(tmp_path))}
    assert titles == {
        "dial, late fusion": [2],
        "avdigits, late fusion (seed=0)": [1],
        "avdigits, late fusion (seed=1)": [1],
    }


def test_data_and_fusion_make_blocks(tmp_path: Path) -> None:
    one(tmp_path / "a.jsonl", config())
    one(tmp_path / "b.jsonl", config(fusion={"name": "early", "hidden": [64]}))
    one(tmp_path / "c.jsonl", config(data={"name": "avdigits", "seed": 0, "keep": 0.25}))
    assert sorted(block.title for block in rows.blocks(read(tmp_path))) == [
        "avdigits, early fusion",
        "avdigits, late fusion (keep=0.25)",
        "avdigits, late fusion (keep=0.4)",
    ]


def test_equal_data_in_two_places_are_one_block_and_a_seed_counts_once(tmp_path: Path) -> None:
    for place in ("here", "there"):
        data = {"name": "cremad", "root": f"/data/{place}"}
        for seed in (0, 1) if place == "here" else (1, 2):
            one(tmp_path / f"{place}{seed}.jsonl", config(data=data, seed=seed), fingerprint="a" * 64)
    kept, notes = runs.without_repeats(read(tmp_path))
    (block,) = rows.blocks(kept)
    assert block.title == "cremad, late fusion"
    assert [run.seed for run in block.rows[0].runs] == [(0,), (1,), (2,)]
    assert len(notes) == 1


def test_other_data_of_one_name_are_told_apart_by_the_ends_of_their_places(tmp_path: Path) -> None:
    for i, place in enumerate(("/home/a/data/cremad", "/home/b/data/cremad", "")):
        one(tmp_path / f"{i}.jsonl", config(data={"name": "cremad", "root": place}), fingerprint=str(i) * 64)
    found = rows.blocks(read(tmp_path))
    assert [block.title for block in found] == [
        "cremad, late fusion (in=a/data/cremad)",
        "cremad, late fusion (in=b/data/cremad)",
        "cremad, late fusion (in=default)",
    ]
    assert len(datasets.table(found).rows) == 3


def test_places_stand_in_no_title_where_settings_suffice(tmp_path: Path) -> None:
    for protocol in ("clips", "features"):
        data = {"name": "ave", "root": f"/data/{protocol}", "protocol": protocol}
        one(tmp_path / f"{protocol}.jsonl", config(data=data))
    titles = [block.title for block in rows.blocks(read(tmp_path))]
    assert titles == ["ave, late fusion (protocol=clips)", "ave, late fusion (protocol=features)"]


def test_a_unimodal_run_without_fusion_joins_every_block_of_its_data(tmp_path: Path) -> None:
    for fusion in ("late", "early"):
        one(tmp_path / f"{fusion}.jsonl", config(fusion={"name": fusion}))
    one(tmp_path / "u.jsonl", config({"name": "unimodal", "modality": "audio"}, fusion=None), modalities=("audio",))
    assert [[row.label for row in block.rows] for block in rows.blocks(read(tmp_path))] == [
        ["Unimodal audio", "Joint"]
    ] * 2


def test_order_of_rows_and_of_modalities(tmp_path: Path) -> None:
    for i, (method, rule) in enumerate(
        [("ogm_ge", "sam"), ("joint", "msam"), ("joint", "sam"), ("uniform", None), ("agm", None), ("joint", None)]
    ):
        one(tmp_path / f"{i}.jsonl", config(method, rule))
    one(tmp_path / "u.jsonl", config({"name": "unimodal", "modality": "image"}), modalities=("image",))
    (block,) = rows.blocks(read(tmp_path))
    assert [row.label for row in block.rows] == [
        *("Unimodal image", "Joint", "AGM", "Uniform", "SAM", "M-SAM", "OGM-GE + SAM"),
    ]
    assert block.modalities == ("audio", "image")


def test_selection_reads_validation_and_never_test(tmp_path: Path) -> None:
    one(tmp_path / "a.jsonl", config(), train=[0.5, 0.6, 0.7], valid=[0.6, 0.8, 0.7], test=[0.9, 0.5, 0.8])
    (best,), (last,) = read(tmp_path), read(tmp_path, "last")
    assert (best.measures["accuracy"], last.measures["accuracy"]) == (0.5, 0.8)
    assert best.measures["valid_score"] == 0.8


def test_measures_of_a_run(tmp_path: Path) -> None:
    settings = config("joint", {"name": "msam", "rho": 0.3})
    one(
        tmp_path / "a.jsonl",
        settings,
        alone={"audio": 0.2},
        shares=[0.6, 0.8],
        dominant=["image", "image", "image", "audio"],
    )
    found = read(tmp_path)[0].measures
    assert found["tau"] == pytest.approx((0.9 - 0.7) / 0.7)
    assert found["share"] == pytest.approx(0.7)
    assert (found["dominance.audio"], found["dominance.image"]) == (0.25, 0.75)
    assert (found["zeroed.audio"], found["shapley.audio"]) == (0.2, pytest.approx(0.22))
    assert math.isnan(found["head.audio"])
    assert (found["passes"], found["milliseconds"]) == (2.0, 24.0)


@pytest.mark.parametrize(
    ("train", "test", "tau"), [(1.0, 0.4, 1.5), (0.5, 0.5, 0.0), (0.4, 0.5, 0.2), (0.5, 0.0, math.nan)]
)
def test_tau_is_not_clamped_and_divides_by_no_zero(train: float, test: float, tau: float) -> None:
    found = runs.tau({"train": {"accuracy": train}, "test": {"accuracy": test}})
    assert found == pytest.approx(tau, nan_ok=True)


def test_data_that_changed_under_one_name_are_an_error_naming_both_records(tmp_path: Path) -> None:
    one(tmp_path / "a.jsonl", config(seed=0), fingerprint="a" * 64)
    one(tmp_path / "b.jsonl", config(seed=1), fingerprint="b" * 64)
    with pytest.raises(ValueError, match=r"a\.jsonl and .*b\.jsonl name the same data .* the data changed"):
        runs.check_same_data(read(tmp_path))


def test_worlds_may_differ_in_their_fingerprints(tmp_path: Path) -> None:
    for seed in (0, 1):
        data = {"name": "dial", "seed": seed}
        one(tmp_path / f"{seed}.jsonl", config(data=data, seed=seed), fingerprint=str(seed) * 64)
    runs.check_same_data(read(tmp_path))


def test_a_repetition_counts_once_and_is_noted(tmp_path: Path) -> None:
    one(tmp_path / "a.jsonl", config(threads=1))
    one(tmp_path / "b.jsonl", config(threads=2))
    kept, notes = runs.without_repeats(read(tmp_path))
    assert len(kept) == 1
    assert "b.jsonl repeats" in notes[0]


def test_two_results_of_one_seed_are_an_error(tmp_path: Path) -> None:
    one(tmp_path / "a.jsonl", config(), test=[0.7])
    one(tmp_path / "b.jsonl", config(), test=[0.71])
    with pytest.raises(ValueError, match="same configuration and seed but different results"):
        runs.without_repeats(read(tmp_path))


def test_runs_without_an_end_or_without_epochs_are_not_finished(tmp_path: Path) -> None:
    one(tmp_path / "a.jsonl", config(), finished=False)
    one(tmp_path / "b.jsonl", config(seed=1), train=[], valid=[], test=[])
    one(tmp_path / "c.jsonl", config(seed=2))
    done, left = runs.finished(record.find(tmp_path), selection.load("last"))
    assert ([run.name for run in done], [r.path.stem for r in left]) == (["c"], ["a", "b"])


def test_the_time_of_a_step_that_was_made_beside_others_is_not_told(tmp_path: Path) -> None:
    path = one(tmp_path / "a.jsonl", config())
    assert read(tmp_path)[0].measures["milliseconds"] > 0
    path.write_text(path.read_text().replace('"threads":2}', '"threads":2,"lanes":10}', 1))
    assert math.isnan(read(tmp_path)[0].measures["milliseconds"])
    assert read(tmp_path)[0].measures["passes"] == 1.0


def test_every_form_of_msam_meets_sam_and_every_method_with_it(tmp_path: Path) -> None:
    forms = {"printed": {"name": "msam"}, "scoped": {"name": "msam", "scope": "dominant"}, "sam": {"name": "sam"}}
    for form, rule in forms.items():
        for seed in range(2):
            one(tmp_path / f"{form}{seed}.jsonl", config(seed=seed, sharpness={**rule, "rho": 0.1}))
    (block,) = rows.blocks(read(tmp_path))
    met = {(a.name, b.name) for a, b in pairs.meeting(block)}
    names = {row.name for row in block.rows if row.sharpness == "msam"}
    assert len(names) == 2
    assert {a for a, b in met if b == "SAM"} == names
