"""From records to a report: tables, pictures, one page."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.text import Text

from msam import record
from msam import selection as selections
from msam.report import controls, critical, curves, labels, page, pairs, provenance, tables
from msam.report import formats as files
from msam.report import ranks as ranking
from msam.report import runs as running
from msam.report.console import ConsoleTable
from msam.report.ranks import Ranks
from msam.report.rows import Row
from msam.report.runs import Run
from msam.report.sections import Section, sections
from msam.report.table import Table
from msam.selection import Selection

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Report:
    """A report as written.

    Attributes:
        sections: one per dataset and fusion: its rows, tables, comparisons and charts.
        notes: what was left out or is missing, and why.
        paths: the files written.
        ranks: of the rows that all sections have; None where they cannot be told apart, which the notes say.
    """

    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    paths: tuple[Path, ...]
    ranks: Ranks | None = None

    @property
    def rows(self) -> list[Row]:
        """The rows of all sections."""
        return [row for section in self.sections for row in section.block.rows]

    def console_table(self) -> Group:
        """Return the tables and notes for a rich console."""
        shown = [ConsoleTable(table) for table in _tables(self.sections, self.ranks)]
        return Group(*shown, *(Text(note, style="yellow") for note in self.notes))


def report(
    paths: Sequence[StrPath],
    out: StrPath,
    *,
    select: str = "best_validation",
    formats: Sequence[str] = ("md", "csv", "png"),
) -> Report:
    """Write tables, pictures and a page about the records under `paths`.

    Writes `table`, `paired` (where there is something to compare), `ranks` (where datasets and fusions are enough to rank
    over) in the formats of tables, a picture per chart in those of pictures, and `page.html`; with several datasets or
    fusions the names of the pictures say of which. `table.md` holds all tables. A file appears whole or not at all.

    Arguments:
        paths: records (`*.jsonl`) or folders that hold some.
        out: a folder, made if it does not exist.
        select: which epoch is reported, "best_validation" or "last".
        formats: of tables, "md", "csv", "tex" (LaTeX with booktabs) and "parquet" (needs pyarrow); of pictures, "png" and
            "svg". All tables hold the same numbers, CSV and Parquet unrounded.

    Raises:
        FileNotFoundError: if there is no record.
        ValueError: if the selection or a format is unknown, no run is finished, the data changed between runs that name
            the same data, or one configuration with one seed has two results.
    """
    selection = selections.load(select)
    wanted = files.checked(formats)
    runs, notes = _read(paths, selection)
    found = sections(runs, selection)
    blocks = [section.block for section in found]
    ranks, why_not = ranking.over(blocks)
    notes += controls.notes((block, row) for block in blocks for row in pairs.champions(block))
    notes += [why_not] if why_not else []
    written = [_write(Path(out) / name, content) for name, content in _files(found, ranks, notes, selection, wanted)]
    return Report(tuple(found), tuple(notes), tuple(written), ranks)


def _read(paths: Sequence[StrPath], selection: Selection) -> tuple[list[Run], list[str]]:
    runs, left = running.finished(record.find(*paths), selection)
    notes = [*provenance.survivors(runs, left), *(provenance.unfinished(one) for one in left)]
    if not runs:
        raise ValueError("\n".join(["No run is finished, so there is nothing to report.", *notes]))
    running.check_same_data(runs)
    runs, repeated = running.without_repeats(runs)
    return runs, [*notes, *repeated, *(provenance.not_finite(run) for run in runs if run.diverged)]


def _tables(found: Sequence[Section], ranks: Ranks | None) -> list[Table]:
    """The tables that every form of the report shows."""
    return [table for section in found for table in section.tables] + ([tables.ranks(ranks)] if ranks else [])


def _files(
    found: Sequence[Section], ranks: Ranks | None, notes: Sequence[str], selection: Selection, wanted: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    yield from _tables_as_files(found, ranks, notes, wanted)
    for picture in (name for name in files.PICTURES if name in wanted):
        yield from _pictures(found, ranks, picture)
    yield "page.html", page.render(found, ranks, notes, selection).encode()


def _tables_as_files(
    found: Sequence[Section], ranks: Ranks | None, notes: Sequence[str], wanted: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Markdown in one file, to be read; a file per kind of table in the formats that other programs take."""
    if "md" in wanted:
        parts = [files.markdown(_tables(found, ranks))]
        parts += ["\n".join(["### Notes", "", *(f"- {note}" for note in notes), ""])] if notes else []
        yield "table.md", "\n".join(parts).encode()
    kinds = {
        "table": [section.results for section in found],
        "paired": [section.paired for section in found if section.paired],
        "ranks": [tables.ranks(ranks)] if ranks else [],
    }
    for format_ in (name for name in files.WRITERS if name in wanted and name != "md"):
        for kind, several in kinds.items():
            if several:
                yield f"{kind}.{format_}", files.WRITERS[format_](several)


def _pictures(found: Sequence[Section], ranks: Ranks | None, format_: files.Picture) -> Iterator[tuple[str, bytes]]:
    if ranks:
        yield f"ranks.{format_}", critical.png(ranks) if format_ == "png" else critical.svg(ranks).encode()
    for section in found:
        suffix = f"-{labels.slug(section.block.title)}" if len(found) > 1 else ""
        for chart in section.charts:
            if chart.file:
                yield f"{chart.file}{suffix}.{format_}", curves.picture(chart, section.block.title, format_)


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
