"""The paper's tables made from records; expected numbers are worked out here, by hand or in other words."""

import csv
import html
import math
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msam import record, selection, train
from msam.report import best, datasets, paper, report, rows, runs, theirs
from msam.report.rows import Block
from msam.report.table import Estimate, Table
from tests.report._records import config, write

SAM, MSAM = {"name": "sam", "rho": 0.1}, {"name": "msam", "rho": 0.1}


def blocks_of(folder: Path) -> list[Block]:
    return rows.blocks(runs.finished(record.find(folder), selection.load("best_validation"))[0])


def trained(
    folder: Path,
    accuracies: Mapping[str, tuple[Any, Any, list[float]]],
    data: str = "cremad",
    fusion: str = "late",
    modalities: tuple[str, ...] = ("audio", "video"),
    **more: Any,
) -> None:
    """Records of one epoch: name -> method, rule, test accuracy by seed."""
    for name, (method, rule, tests) in accuracies.items():
        mine = (method["modality"],) if isinstance(method, dict) and "modality" in method else modalities
        for seed, test in enumerate(tests):
            settings = config(method, rule, seed=seed, data={"name": data}, fusion={"name": fusion})
            path = folder / f"{data}-{fusion}-{name}-{seed}.jsonl"
            write(path, settings, train=[0.9], valid=[0.5], test=[test], modalities=mine, **more)


def cell(table: Table, row: str, key: str) -> Any:
    (line,) = [line for line in table.numbers if line["row"] == row]
    return line[key]


@pytest.fixture
def two(tmp_path: Path) -> list[Block]:
    """Late fusion on two datasets; M-SAM on one of them alone."""
    alone = {"name": "unimodal", "modality": "audio"}
    steps = [0.0, 0.02, 0.04]
    trained(
        tmp_path,
        {
            "alone": (alone, None, [0.5 + s for s in steps]),
            "joint": ("joint", None, [0.6 + s for s in steps]),
            "msam": ("joint", MSAM, [0.7, 0.7, 0.7]),
        },
        alone={"audio": 0.3},
    )
    joint = {"joint": ("joint", None, [0.8, 0.8, 0.8])}
    trained(tmp_path, joint, "urfunny", modalities=("audio", "vision", "text"))
    return blocks_of(tmp_path)


def test_rows_stand_over_datasets_and_what_is_missing_is_missing(two: list[Block]) -> None:
    table = paper.accuracy("late", two)
    assert [row[0] for row in table.rows] == ["Unimodal audio", "Joint", "M-SAM"]
    assert cell(table, "Joint", "cremad: accuracy mean") == pytest.approx(0.62)
    assert cell(table, "Joint", "urfunny: accuracy mean") == pytest.approx(0.8)
    assert cell(table, "M-SAM", "cremad: accuracy mean") == pytest.approx(0.7)
    assert math.isnan(cell(table, "M-SAM", "urfunny: accuracy mean"))
    assert [cell(table, "M-SAM", f"{data}: seeds") for data in ("cremad", "urfunny")] == [3, 0]


def test_a_model_of_one_modality_stands_in_the_column_of_its_modality(two: list[Block]) -> None:
    table = paper.accuracy("late", two)
    assert cell(table, "Unimodal audio", "cremad: shapley.audio mean") == pytest.approx(0.52)
    for key in ("cremad: shapley.video mean", "cremad: accuracy mean"):
        assert math.isnan(cell(table, "Unimodal audio", key))


def test_the_caption_names_the_kind_of_single_modality_accuracy(two: list[Block], tmp_path: Path) -> None:
    """Records without heads are read by Shapley logits; the writer of records puts those 2 points above zeroed ones."""
    table = paper.accuracy("late", two)
    assert "by its Shapley logits" in table.caption
    assert cell(table, "Joint", "cremad: shapley.audio mean") == pytest.approx(0.32)
    bare = [run for block in two for run in block.runs]
    for run in bare:
        for measures in (line["test"]["modalities"] for line in run.record.epochs):
            for one in measures.values():
                one["head"] = 0.25
    assert "by its own head" in paper.accuracy("late", _again(bare)).caption


def _again(found: list[runs.Run]) -> list[Block]:
    return rows.blocks([runs.Run(run.record, run.chosen) for run in found])


def test_an_estimate_is_the_mean_and_the_interval_over_seeds(two: list[Block]) -> None:
    table = paper.accuracy("late", two)
    low, high = (cell(table, "Joint", f"cremad: accuracy {end}") for end in ("low", "high"))
    assert 0.6 <= low < 0.62 < high <= 0.64
    assert cell(table, "M-SAM", "cremad: accuracy low") == pytest.approx(0.7)


def test_cost_is_passes_and_time_over_joint(two: list[Block]) -> None:
    table = paper.accuracy("late", two)
    assert [cell(table, row, "passes") for row in ("Joint", "M-SAM")] == [1.0, 2.0]
    assert [cell(table, row, "time over Joint") for row in ("Joint", "M-SAM")] == pytest.approx([1.0, 2.0])


def test_gain_is_equation_21_and_tau_equation_1(two: list[Block]) -> None:
    table = paper.gain(two)
    by_hand = [100 * (0.7 - j) / j for j in (0.60, 0.62, 0.64)]
    assert cell(table, "M-SAM", "cremad, late fusion: gain") == pytest.approx(sum(by_hand) / 3)
    assert cell(table, "M-SAM", "cremad, late fusion: tau") == pytest.approx((0.9 - 0.7) / 0.7)
    assert math.isnan(cell(table, "Joint", "cremad, late fusion: gain"))
    assert "Unimodal audio" not in [row[0] for row in table.rows]


def test_each_fusion_has_its_own_table(tmp_path: Path) -> None:
    for fusion in ("late", "early", "concat"):
        trained(tmp_path, {"joint": ("joint", None, [0.5])}, fusion=fusion)
    assert {name: len(of) for name, of in paper.fusions(blocks_of(tmp_path)).items()} == {
        "late": 1,
        "early": 1,
        "concat": 1,
    }


RNG = np.random.default_rng(0)
NOISE = (RNG.normal(0, 0.001, 10)).round(5).tolist()


def contest(tmp_path: Path, levels: Mapping[str, float], seeds: int = 10) -> Table:
    methods = {
        name: (name, None, [v + n * (1 + i) for n in NOISE[:seeds]]) for i, (name, v) in enumerate(levels.items())
    }
    trained(tmp_path, methods)
    return paper.accuracy("late", blocks_of(tmp_path))


def test_the_best_is_bold_what_cannot_be_excluded_has_a_dagger_and_the_rest_nothing(tmp_path: Path) -> None:
    levels = {"joint": 0.6, "agm": 0.7, "uniform": 0.7001, "mses": 0.65}
    table = contest(tmp_path, levels)
    field = [column.title for column in table.fields].index("Acc (%)")
    named = {table.values[row][0]: mark for (row, column), mark in table.marks.items() if column == field}
    assert len(table.marks) == 2
    assert sorted(named) == ["AGM", "Uniform"]
    assert sorted(named.values()) == ["best", "near"]


def test_nothing_is_bold_where_nothing_is_told_apart(tmp_path: Path) -> None:
    table = contest(tmp_path, {"joint": 0.6, "agm": 0.6})
    assert not table.marks
    assert "cremad: no row is told apart from the best" in table.caption
    assert "**" not in "".join(cell for row in table.rows for cell in row)


def test_nothing_is_bold_with_too_few_seeds_however_far_apart(tmp_path: Path) -> None:
    table = contest(tmp_path, {"joint": 0.2, "agm": 0.9}, seeds=5)
    assert not table.marks
    assert "cremad: too few seeds to tell any row apart" in table.caption


def test_models_of_one_modality_do_not_compete(tmp_path: Path) -> None:
    alone = {"name": "unimodal", "modality": "audio"}
    tests = {"joint": ("joint", None, [0.6 + n for n in NOISE]), "agm": ("agm", None, [0.7 + n for n in NOISE])}
    trained(tmp_path, {**tests, "alone": (alone, None, [0.9 + n for n in NOISE])})
    table = paper.accuracy("late", blocks_of(tmp_path))
    assert [table.values[row][0] for row, _ in table.marks] == ["AGM"]


def test_the_truly_best_row_is_seldom_left_out() -> None:
    """Of rows that are all equal each is the best: one given row is left out in at most 5 % of studies."""

    class Run:
        def __init__(self, seed: int, accuracy: float) -> None:
            self.seed, self.measures = (seed,), {"score": accuracy}

    class Row:
        def __init__(self, values: np.ndarray) -> None:
            self.runs = [Run(i, float(v)) for i, v in enumerate(values)]

    random = np.random.default_rng(1)
    missed = 0
    for _ in range(150):
        values = random.normal(size=(4, 8))
        found = best.of({str(i): Row(row) for i, row in enumerate(values)})  # type: ignore[misc]
        missed += bool(found.top) and "0" not in {found.top, *found.alike}
    assert 0 < missed <= 0.05 * 150


# The paper's own numbers


def printed(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(files("msam.report").joinpath("files", name).read_text().splitlines()))


def test_their_tables_have_the_form_that_the_paper_prints() -> None:
    """Table 1: 13 rows, 13 numbers in most; a single modality has one for each of its datasets; OGM-GE none on UR-Funny."""
    lines = printed("paper_tables.csv")
    count = {
        label: sum(line["label"] == label for line in lines if line["table"] == "1") for label in _labels(lines, "1")
    }
    single = {"Single-audio": 4, "Single video": 4, "Single-text": 1}
    assert count == dict.fromkeys(count, 13) | single | {"OGM-GE [28]": 9}
    assert len(count) == 13
    assert len(_labels(lines, "2")) == 7
    assert sum(line["table"] == "2" for line in lines) == 7 * 13
    assert all(14 < float(line["accuracy"]) < 80 for line in lines)


def _labels(lines: list[dict[str, str]], table: str) -> list[str]:
    return list(dict.fromkeys(line["label"] for line in lines if line["table"] == table))


def test_in_their_tables_msam_has_the_highest_accuracy_everywhere() -> None:
    for fusion in ("late", "early"):
        found = theirs.accuracies(fusion)
        for data in ("avmnist", "cremad", "urfunny", "ave"):
            together = {place.row: v for place, v in found.items() if place.dataset == data and not place.modality}
            assert max(together, key=together.__getitem__) == "M-SAM"


def test_their_gains_over_the_best_of_cggm_and_reconboost_are_those_worked_out_from_table_2() -> None:
    found = {(p.row, p.dataset): v for p, v in theirs.accuracies("early").items() if not p.modality}
    gains = [
        round(100 * (found["M-SAM", data] - max(found["CGGM", data], found["ReconBoost", data])), 2)
        for data in ("avmnist", "cremad", "urfunny", "ave")
    ]
    assert gains == [1.37, 1.53, 0.94, 0.91]


def test_their_numbers_stand_beside_ours_marked_and_never_in_our_columns(two: list[Block]) -> None:
    table = paper.accuracy("late", two, beside=True)
    assert cell(table, "M-SAM", "cremad: theirs") == 0.6856
    assert cell(table, "Joint", "urfunny: theirs, vision") == 0.5351
    assert "Acc, theirs (%)" in [column.title for column in table.columns]
    assert cell(table, "MSES", "cremad: theirs") == 0.6413
    ours = [v for key, v in _line(table, "MSES").items() if "theirs" not in key and key not in ("row",)]
    assert all(v == 0 or math.isnan(float(v)) for v in ours)
    assert not [row for row, _ in table.marks if table.values[row][0] == "MSES"]
    assert theirs.NOTE in table.caption


def test_early_fusion_by_maxout_stands_beside_table_2(tmp_path: Path) -> None:
    trained(tmp_path, {"msam": ("joint", MSAM, [0.5])}, fusion="maxout")
    table = paper.accuracy("maxout", blocks_of(tmp_path), beside=True)
    assert table.title == "Maxout fusion, as in Table 2 of the paper"
    place = theirs.Place("early", "M-SAM", "cremad", "")
    assert cell(table, "M-SAM", "cremad: theirs") == theirs.accuracies("early")[place]


def test_without_being_asked_for_they_are_nowhere(two: list[Block]) -> None:
    table = paper.accuracy("late", two)
    assert not [key for key in table.numbers[0] if "theirs" in key]
    assert "theirs" not in table.caption.lower()


def test_where_the_paper_has_no_numbers_the_caption_says_so(tmp_path: Path) -> None:
    trained(tmp_path, {"joint": ("joint", None, [0.5])}, data="avdigits", modalities=("audio", "image"))
    table = paper.accuracy("late", blocks_of(tmp_path), beside=True)
    assert "The paper has no numbers for avdigits, late fusion." in table.caption
    assert len(table.rows) == 1


def _line(table: Table, row: str) -> dict[str, Any]:
    return next(line for line in table.numbers if line["row"] == row)


# The dataset card


def test_the_card_reads_headers_and_shows_dashes_for_what_old_records_do_not_say(two: list[Block]) -> None:
    table = datasets.table(two, beside=True)
    cells = {row[0]: dict(zip([c.title for c in table.columns], row, strict=True)) for row in table.rows}
    assert cells["urfunny"]["Modalities"] == "audio, vision, text"
    assert [cells["cremad"][split] for split in ("Classes", "Train", "Valid", "Test")] == ["10", "1500", "600", "1500"]
    assert cells["cremad"]["Shape of a sample"] == cells["cremad"]["Encoders"] == cells["cremad"]["Splits"] == "–"
    assert [cells[name]["Samples, theirs"] for name in ("cremad", "urfunny")] == ["7442", "16514"]


def test_what_train_writes_today_fills_the_card(tmp_path: Path) -> None:
    data = {"name": "dial", "train_size": 40, "valid_size": 20, "test_size": 20, "dimension": 16, "bayes_samples": 100}
    train.train(train.config(data=data, epochs=1), tmp_path / "run")
    (row,) = datasets.table(blocks_of(tmp_path)).rows
    assert row[2:6] == ("10", "40", "20", "20")
    assert row[6].count("16") == 2
    assert "mlp" in row[7]


# In the report


def test_the_tables_are_written_with_several_datasets_or_on_demand(two: list[Block], tmp_path: Path) -> None:
    several = report([tmp_path], tmp_path / "out", formats=("csv",))
    assert sorted(several.paper) == ["paper_datasets", "paper_gain", "paper_late"]
    assert {f"{name}.csv" for name in several.paper} <= {path.name for path in several.paths}
    one = [path for path in tmp_path.glob("*.jsonl") if path.name.startswith("cremad")]
    assert not report(one, tmp_path / "one", formats=("csv",)).paper
    assert report(one, tmp_path / "one", formats=("md",), paper=True).paper
    text = (tmp_path / "one" / "paper_late.md").read_text()
    assert "Selection best_validation" in text
    assert "Seeds 0–2" in text


def test_the_page_shows_them_theirs_marked_and_ours_too(two: list[Block], tmp_path: Path) -> None:
    made = report([tmp_path], tmp_path / "out", formats=("csv",), theirs=True)
    page = html.unescape((tmp_path / "out" / "page.html").read_text())
    start = page.index('<section id="paper"')
    shown = page[start : page.index("</section>", start)]
    assert '<td class="number theirs">68.56</td>' in shown
    assert '<th scope="col" class="number theirs">Acc, theirs (%)</th>' in shown
    assert re.search(r'<th colspan="\d+" scope="colgroup">cremad</th>', shown)
    assert theirs.NOTE in shown
    assert "Selection best_validation" in shown
    assert {cell for table in made.paper.values() for row in table.rows for cell in row} <= set(re.split("[<>]", shown))


def test_the_page_has_the_marks_of_the_tables(tmp_path: Path) -> None:
    contest(tmp_path, {"joint": 0.6, "agm": 0.7, "uniform": 0.7001, "mses": 0.65})
    report([tmp_path], tmp_path / "out", formats=("csv",), paper=True)
    page = (tmp_path / "out" / "page.html").read_text()
    assert len(re.findall(r'<td class="number"><strong>7', page)) == 1
    assert len(re.findall(r'<td class="number">7[^<]* †</td>', page)) == 1


def test_unimodal_records_alone_have_a_card_and_nothing_else(tmp_path: Path) -> None:
    alone = {"name": "unimodal", "modality": "audio"}
    trained(tmp_path, {"alone": (alone, None, [0.5, 0.6])})
    assert list(report([tmp_path], tmp_path / "out", formats=("md",), paper=True).paper) == ["paper_datasets"]


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    trained(tmp_path, {"joint": ("joint", None, [0.5])})
    table = paper.accuracy("late", blocks_of(tmp_path))
    (estimate,) = [v for v, c in zip(table.values[0], table.fields, strict=True) if c.title == "Acc (%)"]
    assert isinstance(estimate, Estimate)
    assert math.isnan(estimate.low)
    assert table.rows[0][3] == "50.0"
