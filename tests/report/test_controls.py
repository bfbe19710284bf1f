"""Controls of M-SAM: found by their settings, called so, compared, and missed where they are missing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from msam import record, selection
from msam.report import controls, gains, pairs, paper, report, rows, runs
from msam.report.charts import Dots
from msam.report.rows import Block
from msam.report.sections import sections
from tests.report._records import config, write

MSAM = {"name": "msam", "rho": 0.2, "scope": "all", "weighting": "batch", "loss": "weighted", "share": "contribution"}
SHARE = 0.7  # of every step of the records below
Plan = dict[str, tuple[Any, Any, dict[str, Any]]]
FULL: Plan = {
    "joint": ("joint", None, {}),
    "msam": ("joint", MSAM, {}),
    "twice": ("joint", None, {"epochs": 6}),
    "smaller": ("joint", {"name": "sam", "rho": 0.14}, {}),
    "constant": ("joint", {"name": "gnp", "rho": 0.2, "alpha": 0.7}, {}),
    "ensemble": ("ensemble", None, {}),
}


def study(folder: Path, plan: Plan, levels: Sequence[float] = (0.8, 0.9)) -> Block:
    for name, (method, rule, more) in plan.items():
        for seed, level in enumerate(levels):
            settings = config(method, rule, seed=seed, **more)
            write(folder / f"{name}-{seed}.jsonl", settings, train=[0.9], valid=[level], test=[level], shares=[SHARE])
    (block,) = rows.blocks(runs.finished(record.find(folder), selection.load("last"))[0])
    return block


def found(block: Block) -> set[tuple[str, str, str]]:
    return {(c.label, c.of, c.kind) for c in controls.found(block)}


def test_all_four_are_found_and_called_so(tmp_path: Path) -> None:
    block = controls.marked(study(tmp_path, FULL))
    assert found(block) == {
        ("Joint (epochs=6), control", "M-SAM", "twice"),
        ("SAM, control", "M-SAM", "smaller"),
        ("GNP, control", "M-SAM", "constant"),
        ("Ensemble, control", "M-SAM", "ensemble"),
    }
    assert {row.label for row in block.rows} >= {"Joint (epochs=3)", "M-SAM"}
    assert controls.missing(block, block.rows[-1]) == ""
    line = controls.line(block)
    for words in (
        "Joint (epochs=6), control of M-SAM: the method without a rule for twice the epochs (what the second pass costs",
        "SAM, control of M-SAM: SAM at rho times the mean share",
        "GNP, control of M-SAM: the blend with the mean share held constant",
        "Ensemble, control of M-SAM: the sum of the unimodal nets (nets that share nothing)",
    ):
        assert words in line


def test_msam_meets_each_of_its_controls_once(tmp_path: Path) -> None:
    block = controls.marked(study(tmp_path, FULL))
    met = [(a.label, b.label) for a, b in pairs.meeting(block)]
    assert len(met) == len(set(met))
    assert {b for a, b in met if a == "M-SAM"} == {
        "Joint (epochs=3)",
        *("Joint (epochs=6), control", "SAM, control", "GNP, control", "Ensemble, control"),
    }
    # the rest of the family: the best SAM row and the ensemble are rows of their own right, the other controls are not
    assert {a for a, b in met if b == "Joint (epochs=3)"} == {"M-SAM", "SAM, control", "Ensemble, control"}
    assert {c.family for c in pairs.comparisons(block)} == {len(met)} == {7}


def test_a_control_never_stands_for_a_name_that_another_row_has(tmp_path: Path) -> None:
    """Here every control is above the row that it could be taken for, on validation too."""
    plain: Plan = {"joint": FULL["joint"], "sam": ("joint", {"name": "sam", "rho": 0.05}, {})}
    study(tmp_path, plain, levels=(0.6, 0.7))
    block = controls.marked(study(tmp_path, {name: parts for name, parts in FULL.items() if name != "joint"}))
    names = {name: row.label for name, row in pairs.standing(block).items()}
    assert names == {
        "Joint": "Joint (epochs=3)",
        "Joint, twice the epochs": "Joint (epochs=6), control",
        "Ensemble": "Ensemble, control",
        "GNP, control": "GNP, control",
        "SAM": "SAM (rho=0.05)",
        "SAM, control": "SAM (rho=0.14), control",
        "M-SAM": "M-SAM",
    }
    table = paper.accuracy("late", [block])
    accuracy = {line["row"]: line["avdigits: accuracy mean"] for line in table.numbers}
    assert [accuracy[name] for name in ("SAM", "SAM, control")] == pytest.approx([0.65, 0.85])
    met = [(a.label, b.label) for a, b in pairs.meeting(block)]
    assert {("M-SAM", "SAM (rho=0.05)"), ("M-SAM", "SAM (rho=0.14), control")} <= set(met)
    assert ("SAM (rho=0.14), control", "Joint (epochs=3)") not in met


def test_msam_gains_over_joint_once_though_joint_is_a_control_too(tmp_path: Path) -> None:
    study(tmp_path, FULL, levels=(0.8, 0.9))
    (section,) = sections(runs.finished(record.find(tmp_path), selection.load("last"))[0], selection.load("last"))
    lanes = ["Ensemble, control", "SAM, control", "M-SAM"]
    for chart in (gains.chart([section]), next(c for c in section.charts if c.name == "overview")):
        assert [mark.label for mark in chart.panels[-1].marks if isinstance(mark, Dots)] == lanes


@pytest.mark.parametrize("kind", controls.KINDS)
def test_a_missing_one_is_named_with_its_settings_and_the_way_to_make_it(tmp_path: Path, kind: str) -> None:
    block = study(tmp_path, {name: parts for name, parts in FULL.items() if name != kind})
    (row,) = controls.guarded(block)
    (note,) = controls.notes([(block, row)])
    assert note.startswith("avdigits, late fusion: M-SAM stands here without controls: ")
    assert controls.WHAT[kind] in note  # type: ignore[index]
    wanted = {"twice": "(Joint, 6 epochs)", "smaller": "(rho=0.14)", "constant": "(share=0.70)", "ensemble": "nets"}
    assert wanted[kind] in note
    assert "`msam bench run RECIPE`" in note
    assert not any(words in note for other, words in controls.WHAT.items() if other != kind)


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("twice", ("joint", None, {"epochs": 5})),
        ("twice", ("ogm_ge", None, {"epochs": 6})),
        ("twice", ("joint", {"name": "sam", "rho": 0.2}, {"epochs": 6})),
        ("twice", ("joint", None, {"epochs": 6, "optimizer": {"name": "adamw", "lr": 0.01}})),
        ("smaller", ("joint", {"name": "sam", "rho": 0.2}, {})),
        ("smaller", ("joint", {"name": "sam", "rho": 0.14}, {"batch_size": 32})),
        ("smaller", ("ogm_ge", {"name": "sam", "rho": 0.14}, {})),
        ("constant", ("joint", {"name": "gnp", "rho": 0.2, "alpha": 0.6}, {})),
        ("constant", ("joint", {"name": "gnp", "rho": 0.1, "alpha": 0.7}, {})),
        ("ensemble", ("ensemble", None, {"epochs": 6})),
        ("ensemble", ("ensemble", {"name": "sam", "rho": 0.14}, {})),
    ],
)
def test_what_differs_is_no_control(
    tmp_path: Path, kind: controls.Kind, other: tuple[Any, Any, dict[str, Any]]
) -> None:
    block = study(tmp_path, {"joint": FULL["joint"], "msam": FULL["msam"], "other": other})
    (row,) = controls.guarded(block)
    assert controls.of(block, row, kind) == []


def test_msam_with_a_number_for_its_share_is_a_control_and_needs_none(tmp_path: Path) -> None:
    plan = {"joint": FULL["joint"], "msam": FULL["msam"], "constant": ("joint", {**MSAM, "share": 0.7}, {})}
    block = controls.marked(study(tmp_path, plan))
    assert found(block) == {("M-SAM (constant share), control", "M-SAM", "constant")}
    assert [row.label for row in controls.guarded(block)] == ["M-SAM"]


def test_the_method_for_twice_the_epochs_may_have_been_tuned(tmp_path: Path) -> None:
    other = ("joint", None, {"epochs": 6, "optimizer": {"name": "sgd", "lr": 0.2}})
    block = study(tmp_path, {"msam": FULL["msam"], "other": other})
    assert [kind for _, _, kind in found(block)] == ["twice"]


def test_rounded_shares_are_near_enough(tmp_path: Path) -> None:
    plan = {"msam": FULL["msam"], "a": ("joint", {"name": "sam", "rho": 0.142}, {})}
    assert [kind for _, _, kind in found(study(tmp_path, plan))] == ["smaller"]


def test_beside_another_method_the_ensemble_is_not_asked_for_and_split_losses_have_no_constant(tmp_path: Path) -> None:
    plan = {"other": ("ogm_ge", MSAM, {}), "sample": ("joint", {**MSAM, "weighting": "sample"}, {})}
    block = study(tmp_path, plan)
    assert {row.method: list(controls.wanted(row)) for row in controls.guarded(block)} == {
        "ogm_ge": ["twice", "smaller", "constant"],
        "joint": ["twice", "smaller", "ensemble"],
    }


def test_a_report_says_it_in_the_table_its_caption_and_its_notes(tmp_path: Path) -> None:
    study(tmp_path / "runs", {name: parts for name, parts in FULL.items() if name != "ensemble"})
    made = report([tmp_path / "runs"], tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| GNP, control | 2 |" in text
    assert "Controls: Joint (epochs=6), control of M-SAM: the method without a rule" in text
    assert "M-SAM stands here without controls: the sum of the unimodal nets." in made.notes[0]
    page = (tmp_path / "out" / "page.html").read_text()
    assert "GNP, control" in page
    assert "stands here without controls: the sum of the unimodal nets" in page


def test_what_is_missing_in_several_blocks_is_one_note(tmp_path: Path) -> None:
    for fusion in ("late", "early"):
        settings = config("joint", MSAM, fusion={"name": fusion})
        write(tmp_path / f"{fusion}.jsonl", settings, train=[0.9], valid=[0.8], test=[0.8], shares=[SHARE])
    blocks = rows.blocks(runs.finished(record.find(tmp_path), selection.load("last"))[0])
    (note,) = controls.notes([(block, block.rows[0]) for block in blocks])
    assert "avdigits, early fusion; avdigits, late fusion: M-SAM stands here without controls: " in note


def test_where_there_is_no_msam_there_are_no_controls(tmp_path: Path) -> None:
    block = study(tmp_path, {name: parts for name, parts in FULL.items() if name != "msam"})
    assert found(block) == set()
    assert controls.marked(block) == block
    assert controls.line(block) == ""
