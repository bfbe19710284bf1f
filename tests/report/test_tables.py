import csv
import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from msam.report import Report, report
from tests.report._records import config, write


def lines_of(markdown: str) -> list[list[str]]:
    """The cells of every row of the Markdown tables."""
    found = [line for line in markdown.splitlines() if line.startswith("| ") and not line.startswith("| :")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found]


def shown(value: str, factor: float, digits: int, sd: str = "") -> str:
    if not value:
        return "–"
    return f"{factor * float(value):.{digits}f}" + (f" ± {factor * float(sd):.{digits}f}" if sd else "")


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Joint with test accuracies 0.70, 0.72, 0.77 where validation chooses, and higher ones elsewhere."""
    for seed, test in enumerate((0.70, 0.72, 0.77)):
        alone = {"audio": 0.2 + 0.1 * seed, "image": 0.6}
        curves = {"train": [0.8, 0.9], "valid": [0.75, 0.70], "test": [test, 0.99]}
        write(tmp_path / f"{seed}.jsonl", config(seed=seed), alone=alone, **curves)  # type: ignore[arg-type]
    return tmp_path


def test_numbers_by_hand(three: Path, tmp_path: Path) -> None:
    made = report([three], tmp_path / "out")
    (row,) = made.sections[0].results.rows
    cells = dict(zip([column.title for column in made.sections[0].results.columns], row, strict=True))
    taus = [(0.8 - t) / t for t in (0.70, 0.72, 0.77)]
    mean = sum(taus) / 3
    sd = math.sqrt(sum((t - mean) ** 2 for t in taus) / 2)
    assert cells == {
        "Row": "Joint",
        "Seeds": "3",
        "Acc (%)": "73.0 ± 3.6",
        "Acc audio (%, zeroed)": "30.0 ± 10.0",
        "Acc image (%, zeroed)": "60.0 ± 0.0",
        "Macro-F1 (%)": "72.0 ± 3.6",
        "NLL (nats)": "0.540 ± 0.072",
        "τ": f"{mean:.3f} ± {sd:.3f}",
        "Share s": "–",
        "Dominant (% of steps)": "image 100",
        "Passes/step": "1.00",
        "Time (ms/step)": "12.0",
    }


def test_selection_last_reads_the_last_epoch(three: Path, tmp_path: Path) -> None:
    assert report([three], tmp_path / "out", select="last").sections[0].results.rows[0][2] == "99.0 ± 0.0"


def test_caption_says_how_the_numbers_were_made(three: Path, tmp_path: Path) -> None:
    caption = report([three], tmp_path / "out").sections[0].results.caption
    for words in ("Selection best_validation", "Seeds 0–2", "standard deviation", "x86_64, 2 CPUs", "msam 0.1.0"):
        assert words in caption


def test_markdown_csv_and_console_show_the_same_numbers(written: tuple[Report, Path]) -> None:
    made, out = written
    markdown = lines_of((out / "table.md").read_text())
    numbers = {(r["table"], r["row"]): r for r in csv.DictReader(io.StringIO((out / "table.csv").read_text()))}
    console = Console(width=250, file=io.StringIO())
    console.print(made.console_table())
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for section in made.sections:
        for cells in section.results.rows:
            assert list(cells) in markdown
            assert any(all(cell in line for cell in cells) for line in printed.splitlines()), cells
            found = numbers[section.block.title, cells[0]]
            first = 3 + len(section.block.modalities)
            alone = [
                shown(found[f"zeroed.{m} mean"], 100, 1, found[f"zeroed.{m} sd"]) for m in section.block.modalities
            ]
            assert list(cells[1 : first + 3]) == [
                found["seeds"],
                shown(found["accuracy mean"], 100, 1, found["accuracy sd"]),
                *alone,
                shown(found["macro_f1 mean"], 100, 1, found["macro_f1 sd"]),
                shown(found["nll mean"], 1, 3, found["nll sd"]),
                shown(found["tau mean"], 1, 3, found["tau sd"]),
            ]
            assert cells[-1] == shown(found["milliseconds mean"], 1, 1)


def test_paired_table_and_csv_agree(written: tuple[Report, Path]) -> None:
    made, out = written
    lines = list(csv.DictReader(io.StringIO((out / "paired.csv").read_text())))
    cells = [cells for section in made.sections if section.paired for cells in section.paired.rows]
    assert [(c[0], c[1], c[4], c[9]) for c in cells] == [
        (line["row"], line["against"], f"{100 * float(line['mean']):+.2f}", line["reading"]) for line in lines
    ]


def test_a_narrow_console_leaves_columns_out_by_name_and_cuts_none(written: tuple[Report, Path]) -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(written[0].console_table())
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "No room for: " in printed
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_long_labels_are_broken_before_numbers_are_cut(tmp_path: Path) -> None:
    curves = {"train": [0.8], "valid": [0.8], "test": [0.8]}
    for rho, scope in ((0.1, "dominant"), (0.2, "dominant+fusion")):
        rule = {"name": "msam", "rho": rho, "scope": scope, "modality": "weakest" if rho > 0.1 else "dominant"}
        write(tmp_path / f"{rho}.jsonl", config("joint", rule), **curves)  # type: ignore[arg-type]
    made = report([tmp_path], tmp_path / "out")
    assert max(len(row.label) for row in made.rows) > 45
    console = Console(width=80, file=io.StringIO())
    console.print(made.console_table())
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in printed
    for head in ("Acc (%)", "audio (%)", "image (%)"):
        assert head in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_names_are_never_read_as_markup(tmp_path: Path) -> None:
    curves = {"train": [0.8], "valid": [0.8], "test": [0.8]}
    names = ("[red]x[/red]", "a|b")
    write(tmp_path / "a.jsonl", config(), modalities=names, **curves)  # type: ignore[arg-type]
    made = report([tmp_path], tmp_path / "out")
    console = Console(width=250, file=io.StringIO())
    console.print(made.console_table())
    assert "[red]x[/red] (%)" in console.file.getvalue()  # type: ignore[attr-defined]
    assert r"Acc a\|b (%, zeroed)" in (tmp_path / "out" / "table.md").read_text()
    assert "[red]x[/red]" in (tmp_path / "out" / "page.html").read_text()


def test_seeds_without_spread_have_no_plus_minus(tmp_path: Path) -> None:
    curves = {"train": [0.8], "valid": [0.8], "test": [0.0]}
    write(tmp_path / "a.jsonl", config(), **curves)  # type: ignore[arg-type]
    row = report([tmp_path], tmp_path / "out").sections[0].results.rows[0]
    assert row[2] == "0.0"
    assert row[7] == "–"  # tau: no division by zero
