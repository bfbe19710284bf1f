"""Every table and every figure, by one command from the records in this repository; all formats hold the same numbers."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from msam.cli.app import main
from tests.report import _read

RESULTS = Path(__file__).parents[2] / "results"
LATE, EARLY = "avdigits-late-fusion", "avdigits-early-fusion"
TABLES = ("table", "paired", "sharpness", "paper_late", "paper_early", "paper_gain", "paper_datasets")
FORMATS = ("csv", "tex", "parquet")
EVERYWHERE = ("accuracy", "curves", "modalities", "tau", "contributions", "dominance")
PROBED = ("gradients", "gradients-encoders", "sharpness", "landscape")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Late fusion with ten seeds, early fusion with probes."""
    folder = tmp_path_factory.mktemp("everything")
    records = [str(RESULTS / name / "runs") for name in ("avdigits-late", "avdigits-probes")]
    with pytest.raises(SystemExit) as ended:
        main(["report", *records, "--out", str(folder), "--theirs", "--formats", "md,csv,tex,parquet,png"])
    assert ended.value.code == 0
    return folder


def test_every_table_and_every_figure_of_the_paper_is_there(out: Path) -> None:
    expected = {f"{name}.{kind}" for name in TABLES for kind in FORMATS}
    expected |= {f"{name}.md" for name in ("table", *TABLES[3:])}
    expected |= {f"{name}-{block}.png" for name in EVERYWHERE for block in (LATE, EARLY)}
    expected |= {f"{name}-{EARLY}.png" for name in PROBED} | {"gain.png", "page.html"}
    assert {path.name for path in out.iterdir() if path.name[0] != "."} == expected


@pytest.mark.parametrize("name", TABLES)
def test_the_files_of_a_table_say_the_same(out: Path, name: str) -> None:
    latex = _read.latex((out / f"{name}.tex").read_text())
    plain = _read.comma_separated((out / f"{name}.csv").read_text())
    typed, _ = _read.parquet((out / f"{name}.parquet").read_bytes())
    markdown = _read.markdown((out / f"{name if name.startswith('paper') else 'table'}.md").read_text())
    assert latex
    assert all(row in markdown for row in latex)
    assert len(latex) == len(plain) == len(typed)
    for shown, text, value in zip(latex, plain, typed, strict=True):
        assert shown[0] in text.values()
        assert {key: _read_as(value[key], cell) for key, cell in text.items()} == value


def _read_as(like: object, cell: str) -> object:
    """A cell of a CSV in the type that Parquet gives it."""
    return type(like)(cell) if isinstance(like, int | float | str) else {"": None}[cell]


def test_the_page_shows_every_cell_and_every_figure(out: Path) -> None:
    page = (out / "page.html").read_text()
    found = re.findall(r"(?:<td[^>]*>|<strong>|<span class=\"dot\"[^>]*></span>|<span class=\"label\">)([^<]+)", page)
    cells = {html.unescape(cell).removesuffix(" †") for cell in found}
    for row in _rows(out):
        assert set(row) <= cells
    for section, more in (("s0", ()), ("s1", ("gradients", "sharpness", "landscape"))):
        for name in ("overview", "curves", "tau", "contributions", "dominance", *more):
            assert f'<figure id="{section}-{name}">' in page
    assert '<figure id="gain">' in page
    assert len(page.encode()) < 8e6


def _rows(out: Path) -> Iterator[list[str]]:
    for name in ("table", *TABLES[3:]):
        yield from _read.markdown((out / f"{name}.md").read_text())
