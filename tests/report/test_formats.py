"""Every format of a table says the same: what is shown is what CSV and Parquet hold, rounded."""

import math
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msam import record, selection
from msam.report import datasets, formats, paper, report, runs
from msam.report.latex import escaped, latex
from msam.report.sections import sections
from msam.report.table import NONE, PARTS, Column, Estimate, Interval, Spread, Table
from tests.report import _read
from tests.report._records import config, write

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*(?:e[+-]\d+)?|inf)")
NASTY = st.text("ab1 _&%$#{}~^\\|[]*<>±τ–†-`\"'.,;:!?@/()", min_size=1, max_size=12).map(str.strip)
KNOWN = st.floats(-1e5, 1e5, allow_nan=False)
MAYBE = KNOWN | st.just(math.nan)


def values(kind: str) -> st.SearchStrategy[Any]:
    return {
        "text": NASTY,
        "whole": st.integers(-(10**9), 10**9),
        "number": MAYBE,
        "spread": st.builds(Spread, MAYBE, st.floats(0, 1e4) | st.just(math.nan)),
        "interval": st.builds(Interval, MAYBE, MAYBE),
        "estimate": st.builds(Estimate, MAYBE, MAYBE, MAYBE),
    }[kind]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    kinds = ["text", *draw(st.lists(st.sampled_from(sorted(PARTS)), max_size=6))]
    columns = [
        Column(
            draw(NASTY),
            kind,
            tuple(f"{i}.{part}" for part in range(PARTS[kind])),
            scale=draw(st.sampled_from((1, 100))) if kind not in ("text", "whole") else 1,
            digits=draw(st.integers(0, 4)),
            signed=draw(st.booleans()),
            only_mean=draw(st.booleans()),
            shown=i == 0 or draw(st.booleans()),
        )
        for i, kind in enumerate(kinds)
    ]
    rows = draw(st.lists(st.tuples(*map(values, kinds)), max_size=4))
    marks = {(row, 0): "best" for row in range(len(rows)) if draw(st.booleans())} if len(kinds) > 1 else {}
    return Table(draw(NASTY), tuple(columns), tuple(rows), draw(NASTY), marks=marks)  # type: ignore[arg-type]


def check_shown(cell: str, column: Column, parts: Sequence[object]) -> None:
    """What is shown is one of: the words; a dash where nothing is known; numbers that are the parts, rounded."""
    if column.kind == "text":
        assert cell == " ".join(str(parts[0]).split())
        return
    numbers = [math.nan if part in ("", None) else float(str(part)) for part in parts]
    first = column.scale * numbers[0]
    if cell == NONE:
        assert any(map(math.isnan, numbers))
        return
    if cell.startswith("<"):
        assert 0 <= numbers[0] < column.least
        return
    shown = [float(number) for number in NUMBER.findall(cell)]
    assert len(shown) in (1, len(numbers))
    assert len(shown) == len(numbers) or column.only_mean or any(map(math.isnan, numbers))
    for text, number in zip(shown, [first, *(column.scale * n for n in numbers[1:])], strict=False):
        half = 0.5 * 10.0**-column.digits if column.digits is not None else 1e-5 * abs(number)
        assert abs(text - number) <= half * (1 + 1e-6) + 1e-12 * abs(number), (cell, parts)


def check(several: Sequence[Table]) -> None:
    """All four formats of some tables agree."""
    shown = [row for table in several for row in table.rows]
    assert _read.markdown(formats.markdown(several)) == [[" ".join(c.split("\n")) for c in row] for row in shown]
    assert _read.latex("\n".join(map(latex, several))) == [[" ".join(cell.split()) for cell in row] for row in shown]
    lines = _read.comma_separated(formats.comma_separated(several))
    typed, types = _read.parquet(formats.parquet(several))
    assert len(lines) == len(typed) == len(shown)
    places = [(table, i) for table in several for i in range(len(table.rows))]
    for line, same, (table, i) in zip(lines, typed, places, strict=True):
        assert list(line) == list(same)
        assert line["table"] == same["table"] == table.title
        for key, text in line.items():
            assert (
                same[key] is None
                if text == "" and types[key] != "string"
                else {
                    "string": lambda v=same[key]: v or "",
                    "int64": lambda v=same[key]: str(v),
                    "double": lambda v=same[key]: v,
                }[types[key]]()
                == (float(text) if types[key] == "double" else text)
            )
        for cell, column in zip(table.rows[i], table.columns, strict=True):
            if column.keys:
                check_shown(" ".join(cell.split()), column, [line[key] for key in column.keys])


@settings(max_examples=60, deadline=None)
@given(tables())
def test_generated_tables_say_the_same_in_all_formats(table: Table) -> None:
    check([table])


@pytest.fixture(scope="module")
def committed() -> list[runs.Run]:
    folders = ("avdigits-late/runs", "avdigits-late/controls", "avdigits-methods/early/runs")
    found = record.find(*(ROOT / "results" / folder for folder in folders))
    return runs.finished(found, selection.load("best_validation"))[0]


def test_the_tables_of_the_committed_records_say_the_same_in_all_formats(committed: list[runs.Run]) -> None:
    found = sections(committed, selection.load("best_validation"))
    check([section.results for section in found])
    check([section.paired for section in found if section.paired])
    check([section.by_kind for section in found])
    blocks = [section.block for section in found]
    for fusion, several in paper.fusions(blocks).items():
        check([paper.accuracy(fusion, several, beside=True)])
    check([paper.gain(blocks)])
    check([datasets.table(blocks, beside=True)])


def test_csv_keeps_full_precision() -> None:
    table = Table("t", (Column("x", keys=("x",)), Column("y", "number", ("y",), digits=1)), (("a", 1 / 3),))
    assert _read.comma_separated(formats.comma_separated([table])) == [{"table": "t", "x": "a", "y": repr(1 / 3)}]
    assert table.rows == (("a", "0.3"),)


def test_parquet_has_types_nulls_and_captions() -> None:
    columns = (Column("x", keys=("x",)), Column("n", "whole", ("n",)), Column("y", "spread", ("m", "s"), digits=1))
    table = Table("t", columns, (("a", 3, Spread(0.5)),), "How it was made.")
    rows, types = _read.parquet(formats.parquet([table]))
    assert types == {"table": "string", "x": "string", "n": "int64", "m": "double", "s": "double"}
    assert rows == [{"table": "t", "x": "a", "n": 3, "m": 0.5, "s": None}]
    assert b"How it was made." in formats.parquet([table])


def test_latex_has_a_real_minus_rules_groups_and_a_caption() -> None:
    columns = (
        Column("Row", keys=("row",)),
        Column("Gain (%)", "estimate", ("g", "l", "h"), digits=1, signed=True, group="a_b"),
        Column("τ", "number", ("t",), digits=2, group="a_b"),
    )
    table = Table("T & U", columns, (("[x]", Estimate(-1.0, -2.0, 0.5), 0.1),), "95 % of it.", marks={(0, 1): "best"})
    text = latex(table)
    for line in (
        r"\begin{tabular}{@{}lrr@{}}",
        r"\caption{T \& U. 95 \% of it.}",
        r" & \multicolumn{2}{c}{a\_b} \\",
        r"\cmidrule(lr){2-3}",
        r"Row & Gain (\%) & $\tau$ \\",
        r"{}[x] & {\boldmath $-1.0\ [-2.0, +0.5]$} & $0.10$ \\",
    ):
        assert line in text.splitlines()


def test_a_wide_table_is_fitted_to_the_page() -> None:
    columns = (Column("x"), *(Column(f"column {i}", "number", digits=2) for i in range(9)))
    assert r"\resizebox{\textwidth}" in latex(Table("t", columns, (("a", *range(9)),)))
    assert r"\resizebox" not in latex(Table("t", columns[:2], (("a", 1.0),)))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex, as a judge that is not ours")
def test_pdflatex_takes_whatever_a_name_holds(tmp_path: Path) -> None:
    nasty = '[*] a_b & 5 % $x$ #1 {y} ~ ^ \\z | <t> "q" ± τ – − × … † ≥'
    columns = (Column(nasty, keys=("x",)), Column("p", "number", ("p",), least=0.01, group=nasty))
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\n"
        + latex(Table(nasty, columns, ((nasty, 0.001), ("*", -1.0), ("[a]", math.nan)), nasty, marks={(0, 1): "near"}))
        + "\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]


@given(st.text(max_size=20))
def test_escaped_text_leaves_no_sign_that_latex_reads(text: str) -> None:
    rest = re.sub(r"\\[a-zA-Z]+\{\d?\}|\\[{}$&%#_]|\$\\?[a-zA-Z-]+\$", "", escaped(text))
    assert not set(rest) & set("{}$&%#_~^\\")


def test_several_formats_and_only_those_are_written(tmp_path: Path) -> None:
    curves: dict[str, Any] = {"train": [0.9], "valid": [0.8], "test": [0.7]}
    write(tmp_path / "a.jsonl", config(), **curves)
    made = report([tmp_path / "a.jsonl"], tmp_path / "out", formats=("tex", "parquet"))
    assert {path.name for path in made.paths} == {"table.tex", "table.parquet", "page.html"}


def test_an_unknown_format_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Unknown format 'latex'"):
        report([tmp_path], tmp_path / "out", formats=("md", "latex"))
    with pytest.raises(ValueError, match="at least one of md, csv, tex"):
        report([tmp_path], tmp_path / "out", formats=())
    assert not (tmp_path / "out").exists()


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'msam\[parquet\]'"):
        formats.checked(("csv", "parquet"))
