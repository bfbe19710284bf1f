"""Reports of labels and of numbers, from runs trained here: they show what the records say, in words of the task."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from msam import record
from msam.report import Report, measures, paired, report
from msam.train import config, train
from tests.report import _read

DATA = {"name": "dial", "train_size": 96, "valid_size": 40, "test_size": 40, "bayes_samples": 50, "nuisance": 0.1}
ROWS: dict[str, Any] = {"Joint": None, "SAM": "sam", "M-SAM": "msam"}
TASKS = ("single-label", "multi-label", "regression")
COLUMNS = {
    "single-label": {"Acc (%)": "accuracy", "Macro-F1 (%)": "macro_f1", "NLL (nats)": "nll"},
    "multi-label": {
        "Label accuracy (%)": "accuracy",
        "Macro-F1 (%)": "macro_f1",
        "Exact match (%)": "exact_match",
        "Average precision (%)": "average_precision",
        "NLL (nats)": "nll",
    },
    "regression": {"R² (%)": "r2", "RMSE": "rmse", "MAE": "mae", "NLL (nats)": "nll"},
}
DECIDES = {task: next(iter(columns.values())) for task, columns in COLUMNS.items()}
every_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rows with two seeds of every task; numbers are probed."""
    folder = tmp_path_factory.mktemp("tasks")
    for task in TASKS:
        for label, rule in ROWS.items():
            for seed in (0, 1):
                probes = ("gradients", "curvature", "landscape") if (task, seed) == ("regression", 0) else ()
                settings = {"data": {**DATA, "task": task}, "sharpness": rule, "seed": seed, "probes": probes}
                made = config(**settings, epochs=3, batch_size=32, record_every=1, threads=1)
                train(made, folder / task / f"{label}-{seed}")
    return folder


@pytest.fixture(scope="module")
def mixed(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("mixed")
    return report([runs], out, formats=("md", "csv", "tex", "parquet"), theirs=True), out


@pytest.fixture(scope="module")
def numbers(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("numbers")
    return report([runs / "regression"], out, formats=("md", "csv", "tex", "svg")), out


def chosen(runs: Path, task: str, row: str) -> list[dict[str, Any]]:
    """The epoch lines of a row that validation chooses, seed by seed, read off the files."""
    found = []
    for seed in (0, 1):
        (path,) = (runs / task / f"{row}-{seed}").glob("*.jsonl")
        epochs = [line for text in path.read_text().splitlines() if (line := json.loads(text))["kind"] == "epoch"]
        found.append(max(epochs, key=lambda line: line["valid"][DECIDES[task]]))
    return found


def section(made: Report, task: str) -> Any:
    (found,) = [each for each in made.sections if each.block.task.name == task]
    return found


def words_of(out: Path) -> Iterator[str]:
    """All that a report says: tables, and the page with what its figures say, without plotly and style."""
    yield from (path.read_text() for path in out.iterdir() if path.suffix in (".md", ".csv", ".tex", ".svg"))
    page = (out / "page.html").read_text()
    yield re.sub(r"<style>.*?</style>|<script>.*?</script>|base64,[^\"]*", "", page, flags=re.S)


@every_task
def test_a_table_has_the_columns_of_its_task_and_their_numbers_are_those_of_the_records(
    mixed: tuple[Report, Path], runs: Path, task: str
) -> None:
    results = section(mixed[0], task).results
    heads = [column.title for column in results.columns]
    measured = [head for head in heads[2:] if head.partition(" (")[0] not in ("τ", "Share s", "Dominant", "Time")]
    assert [head for head in measured if "zeroed" not in head and "Passes" not in head] == list(COLUMNS[task])
    for cells, plain in zip(results.rows, results.numbers, strict=True):
        epochs = chosen(runs, task, cells[0])
        for head, key in COLUMNS[task].items():
            values = [line["test"][key] for line in epochs]
            assert plain[f"{key} mean"] == pytest.approx(fmean(values), abs=1e-12)
            assert plain[f"{key} sd"] == pytest.approx(stdev(values), abs=1e-12)
            scale = 100 if "%" in head else 1
            shown, _, beside = cells[heads.index(head)].partition(" ± ")
            assert float(shown) == pytest.approx(scale * fmean(values), abs=0.51 * 10.0 ** -_digits(shown))
            assert float(beside) == pytest.approx(scale * stdev(values), abs=0.51 * 10.0 ** -_digits(beside))


def _digits(shown: str) -> int:
    return len(shown.partition(".")[2])


@every_task
def test_single_modalities_are_shown_by_the_measure_that_decides(
    mixed: tuple[Report, Path], runs: Path, task: str
) -> None:
    made = section(mixed[0], task)
    head = next(iter(COLUMNS[task])).removesuffix(" (%)")
    assert f"{head} modality_1 (%, zeroed)" in [column.title for column in made.results.columns]
    assert made.by_kind.title.endswith(f"{measures.task(task).measured} of single modalities")
    for plain in made.by_kind.numbers:
        for kind in ("zeroed", "shapley", "head"):
            values = [line["test"]["modalities"]["modality_1"][kind] for line in chosen(runs, task, plain["row"])]
            assert plain[f"{kind}.modality_1 mean"] == pytest.approx(fmean(values), abs=1e-12)


@every_task
def test_rows_are_compared_by_the_measure_that_decides(mixed: tuple[Report, Path], runs: Path, task: str) -> None:
    made = section(mixed[0], task)
    assert made.paired.caption.startswith(f"Test {measures.task(task).measured} of a row minus that of the other")
    assert [(c.name, c.against) for c in made.comparisons] == [("SAM", "Joint"), ("M-SAM", "Joint"), ("M-SAM", "SAM")]
    for c in made.comparisons:
        ours, theirs = (
            [line["test"][DECIDES[task]] for line in chosen(runs, task, row)] for row in (c.name, c.against)
        )
        assert c.differences == pytest.approx([a - b for a, b in zip(ours, theirs, strict=True)], abs=1e-12)


@every_task
def test_the_rule_of_selection_is_told_in_words_of_the_task(mixed: tuple[Report, Path], task: str) -> None:
    said = f"the epoch with the best validation {measures.task(task).measured}, the earliest on ties; test is read once"
    assert said in section(mixed[0], task).results.caption


def test_paired_compares_what_decides_and_whatever_else_is_measured(runs: Path) -> None:
    ours, theirs = (
        [found for seed in (0, 1) for found in record.find(runs / "regression" / f"{row}-{seed}")]
        for row in ("M-SAM", "Joint")
    )
    for key, found in (("r2", paired(ours, theirs)), ("rmse", paired(ours, theirs, metric="rmse"))):
        values = [[line["test"][key] for line in chosen(runs, "regression", row)] for row in ("M-SAM", "Joint")]
        assert found.mean == pytest.approx(fmean(a - b for a, b in zip(*values, strict=True)), abs=1e-12)


def test_one_dataset_with_three_tasks_is_three_blocks(mixed: tuple[Report, Path]) -> None:
    titles = [each.block.title for each in mixed[0].sections]
    assert sorted(titles) == sorted(f"dial, late fusion (task={task})" for task in TASKS)
    assert [len(each.block.rows) for each in mixed[0].sections] == [3, 3, 3]


def test_a_record_from_before_there_were_tasks_is_of_classes(runs: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        (path,) = (runs / "single-label" / f"Joint-{seed}").glob("*.jsonl")
        first, *rest = path.read_text().splitlines()
        header = json.loads(first)
        if seed == 0:
            del header["task"], header["config"]["data"]["task"]
        (tmp_path / f"{seed}.jsonl").write_text("\n".join([json.dumps(header), *rest, ""]))
    made = report([tmp_path], tmp_path / "out", formats=("md",))
    assert [(row.label, len(row.runs)) for row in made.rows] == [("Joint", 2)]
    assert made.sections[0].block.task is measures.CLASSES


def test_a_task_that_nobody_knows_is_named(runs: Path, tmp_path: Path) -> None:
    (path,) = (runs / "regression" / "Joint-0").glob("*.jsonl")
    (tmp_path / "a.jsonl").write_text(
        path.read_text().replace('"task":"regression","num', '"task":"regresion","num', 1)
    )
    with pytest.raises(ValueError, match=r"Unknown task 'regresion'\. Did you mean 'regression'"):
        report([tmp_path], tmp_path / "out")


def test_ranks_are_of_each_block_by_the_measure_that_decides_there(mixed: tuple[Report, Path], runs: Path) -> None:
    ranks = mixed[0].ranks
    assert ranks is not None
    for task in TASKS:
        block = ranks.blocks.index(f"dial, late fusion (task={task})")
        means = {row: fmean(line["test"][DECIDES[task]] for line in chosen(runs, task, row)) for row in ROWS}
        assert dict(zip(ranks.rows, ranks.values[block], strict=True)) == pytest.approx(means, abs=1e-12)
        best = [
            row for row, rank in zip(ranks.rows, ranks.ranks[block], strict=True) if rank == min(ranks.ranks[block])
        ]
        assert max(means, key=lambda row: means[row]) in best
    (line, *_) = _read.comma_separated((mixed[1] / "ranks.csv").read_text())
    assert "dial, late fusion (task=regression): r2" in line
    assert "Rank 1 is the highest mean test accuracy, label accuracy or R² over seeds" in words(mixed[1] / "ranks.tex")


def words(path: Path) -> str:
    return path.read_text().replace(r"R\textsuperscript{2}", "R²")


def test_relative_gains_and_gaps_are_of_accuracies_and_left_out_for_numbers(
    mixed: tuple[Report, Path], runs: Path
) -> None:
    table = mixed[0].paper["paper_gain"]
    assert not any("regression" in key for line in table.numbers for key in line)
    (line,) = [line for line in table.numbers if line["row"] == "SAM"]
    sam, joint = ([one["test"]["accuracy"] for one in chosen(runs, "multi-label", row)] for row in ("SAM", "Joint"))
    gained = fmean(100 * (a - b) / b for a, b in zip(sam, joint, strict=True))
    assert line["dial, late fusion (task=multi-label): gain"] == pytest.approx(gained, abs=1e-9)
    taus = {each.block.task.name for each in mixed[0].sections if any(chart.name == "tau" for chart in each.charts)}
    assert taus == {"single-label", "multi-label"}
    assert all(math.isnan(run.measures["tau"]) for run in section(mixed[0], "regression").block.runs)


def test_the_papers_tables_leave_numbers_out_and_say_so(mixed: tuple[Report, Path]) -> None:
    late = mixed[0].paper["paper_late"]
    assert {column.group for column in late.columns} - {""} == {
        "dial (task=single-label)",
        "dial (task=multi-label)",
    }
    assert "Acc of dial (task=multi-label): label accuracy." in late.caption
    assert "Classes of dial (task=multi-label): labels" in mixed[0].paper["paper_datasets"].caption
    (left,) = [note for note in mixed[0].notes if "The paper's tables" in note]
    assert left.endswith("a regression has none and is left out: dial, late fusion (task=regression).")


def test_all_formats_of_a_table_say_the_same(mixed: tuple[Report, Path]) -> None:
    out = mixed[1]
    rows = [
        [cell.replace(r"R\textsuperscript{2}", "R²") for cell in row] for row in _read.latex(words(out / "table.tex"))
    ]
    markdown = _read.markdown((out / "table.md").read_text())
    assert len(rows) == len(_read.comma_separated((out / "table.csv").read_text())) == 9
    assert all(row in markdown for row in rows)
    typed, types = _read.parquet((out / "table.parquet").read_bytes())
    assert types["r2 mean"] == "double"
    assert (
        sum(line["r2 mean"] is not None for line in typed) == sum(line["accuracy mean"] is None for line in typed) == 3
    )


def test_the_page_has_one_table_of_all_rows_that_says_what_is_measured_where(mixed: tuple[Report, Path]) -> None:
    page = (mixed[1] / "page.html").read_text()
    assert "Accuracy, label accuracy or R² (%)" in page
    for said in ("test label accuracy", "test R² ", "<dt>task</dt><dd>regression</dd>", "<dt>numbers</dt><dd>1</dd>"):
        assert said in page
    assert page.count("<dt>classes</dt>") == 1
    assert "<dt>labels</dt><dd>4</dd>" in page


def test_a_report_of_numbers_speaks_of_no_accuracy_and_no_class(numbers: tuple[Report, Path]) -> None:
    made, out = numbers
    assert made.paper == {}
    names = {path.name for path in out.iterdir()}
    assert "r2.svg" in names
    assert not names & {"accuracy.svg", "gain.svg", "tau.svg"}
    for said in words_of(out):
        assert not re.search(r"accurac|τ|classifier|with the largest Shapley|Relative gain|F1", said)


def test_curves_of_numbers_are_r2_epoch_by_epoch(numbers: tuple[Report, Path], runs: Path) -> None:
    (chart,) = [chart for chart in numbers[0].sections[0].charts if (chart.name, chart.tab) == ("curves", "together")]
    (test,) = [panel for panel in chart.panels if panel.title == "Test"]
    assert test.y_label == "R² (%)"
    (line,) = [mark for mark in test.marks if mark.label == "Joint"]
    epochs = [record.find(runs / "regression" / f"Joint-{seed}")[0].epochs for seed in (0, 1)]
    means = [100 * fmean(line["test"]["r2"] for line in lines) for lines in zip(*epochs, strict=True)]
    assert line.y.tolist() == pytest.approx(means)


def test_the_loss_of_numbers_has_another_unit(numbers: tuple[Report, Path], mixed: tuple[Report, Path]) -> None:
    made = numbers[0].sections[0]
    assert made.sharpness is not None
    assert "Training loss (MSE)" in [column.title for column in made.sharpness.columns]
    labels = [panel.x_label + panel.y_label for chart in made.charts for panel in chart.panels]
    assert any("MSE" in label for label in labels)
    assert not any("nats" in label for label in labels)


def test_digits_of_errors_follow_their_size(runs: Path, tmp_path: Path) -> None:
    """Targets have somebody's unit: an error of 0.00012 is not 0.000, one of 1234.5 needs no digits."""
    (path,) = (runs / "regression" / "Joint-0").glob("*.jsonl")
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    for line in lines:
        for split in ("train", "valid", "test"):
            if split in line:
                line[split] |= {"rmse": 1234.5, "mae": 0.00012}
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = report([tmp_path / "a.jsonl"], tmp_path / "out", formats=("md",)).sections[0].results
    cells = dict(zip([column.title for column in results.columns], results.rows[0], strict=True))
    assert (cells["RMSE"], cells["MAE"]) == ("1234", "0.000120")
