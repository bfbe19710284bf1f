"""From records to a report: tables, pictures, one page."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Group
from rich.text import Text

from msam import record
from msam import selection as selections
from msam.report import controls, critical, curves, datasets, folder, gains, labels, page, pairs, provenance, tables
from msam.report import formats as files
from msam.report import paper as papers
from msam.report import ranks as ranking
from msam.report import runs as running
from msam.report.console import ConsoleTable
from msam.report.ranks import Ranks
from msam.report.rows import Block, Row
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
        paper: the paper's tables made from these records, by the name of their files; empty where none were wanted.
    """

    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    paths: tuple[Path, ...]
    ranks: Ranks | None = None
    paper: Mapping[str, Table] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        """The rows of all sections."""
        return [row for section in self.sections for row in section.block.rows]

    def console_table(self) -> Group:
        """Return the tables and notes for a rich console."""
        shown = [ConsoleTable(table) for table in (*_tables(self.sections, self.ranks), *self.paper.values())]
        return Group(*shown, *(Text(note, style="yellow") for note in self.notes))


def report(
    paths: StrPath | Sequence[StrPath],
    out: StrPath,
    *,
    select: str = "best_validation",
    formats: Sequence[str] = ("md", "csv", "png"),
    paper: bool = False,
    theirs: bool = False,
) -> Report:
    """Write tables, pictures and a page about the records under `paths`.

    Writes `table`, `paired` (where there is something to compare), `sharpness` (where it was probed), `ranks` (where
    datasets and fusions are enough to rank over) in the formats of tables, a picture per chart in those of pictures, and
    `page.html`; with several datasets or fusions the names of the pictures say of which. `table.md` holds all of these
    tables. With several datasets also the paper's tables, which are of accuracies: `paper_late`, `paper_early` (any fusion
    has its own), `paper_gain` and `paper_datasets`. A file appears whole or not at all; files of an earlier report in the
    folder that this one does not write are taken away.

    Arguments:
        paths: one or several, records (`*.jsonl`) or folders that hold some.
        out: a folder, made if it does not exist.
        select: which epoch is reported, "best_validation" or "last".
        formats: of tables, "md", "csv", "tex" (LaTeX with booktabs) and "parquet" (needs pyarrow); of pictures, "png" and
            "svg". All tables hold the same numbers, CSV and Parquet unrounded.
        paper: whether the paper's tables are made of a single dataset too.
        theirs: whether the paper's own numbers stand in them beside ours, marked as theirs; implies `paper`.

    Raises:
        FileNotFoundError: if there is no record.
        ValueError: if the selection or a format is unknown, no run is finished, the data changed between runs that name
            the same data, or one configuration with one seed has two results.
    """
    selection = selections.load(select)
    wanted = files.checked(formats)
    runs, notes = _read([paths] if isinstance(paths, str | os.PathLike) else paths, selection)
    found = sections(runs, selection)
    blocks = [section.block for section in found]
    ranks, why_not = ranking.over(blocks)
    notes += controls.notes((block, row) for block in blocks for row in pairs.champions(block))
    notes += [why_not] if why_not else []
    rated = [block for block in blocks if block.task.rated]
    several = len({block.runs[0].config["data"]["name"] for block in rated}) > 1
    printed = _paper(rated, selection, beside=theirs) if paper or theirs or several else {}
    notes += papers.left_out(blocks) if paper or theirs or several else []
    made = Report(tuple(found), tuple(notes), (), ranks, printed)
    return replace(made, paths=folder.write(Path(out), _files(made, selection, wanted)))


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


def _paper(blocks: Sequence[Block], selection: Selection, *, beside: bool) -> dict[str, Table]:
    if not blocks:
        return {}
    about = provenance.about([run for block in blocks for run in block.runs], selection)
    fusions = papers.fusions(blocks)
    found = {f"paper_{labels.slug(name)}": papers.accuracy(name, of, beside=beside) for name, of in fusions.items()}
    multimodal = [block for of in fusions.values() for block in of]
    found |= {"paper_gain": papers.gain(multimodal)} if multimodal else {}
    found = {name: replace(table, about=about) for name, table in found.items()}
    return found | {"paper_datasets": datasets.table(blocks, beside=beside)}


def _files(made: Report, selection: Selection, wanted: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for format_ in (name for name in files.WRITERS if name in wanted):
        for name, several in _tables_by_file(made, selection, format_).items():
            yield f"{name}.{format_}", files.WRITERS[format_](several) + _notes(made, name, format_)
    for picture in (name for name in files.PICTURES if name in wanted):
        yield from _pictures(made.sections, made.ranks, picture)
    yield (
        "page.html",
        page.render(made.sections, made.ranks, made.notes, selection, tuple(made.paper.values())).encode(),
    )


def _tables_by_file(made: Report, selection: Selection, format_: str) -> dict[str, list[Table]]:
    """Markdown has one file of what a report always says, to be read; formats for programs have one per kind of table."""
    printed = {name: [table] for name, table in made.paper.items()}
    if format_ == "md":
        return {"table": _tables(made.sections, made.ranks), **printed}
    about = provenance.about([run for section in made.sections for run in section.block.runs], selection)
    compared = [(section.paired, section.block.runs) for section in made.sections if section.paired]
    kinds = {
        "table": [section.results for section in made.sections],
        "paired": [replace(table, about=provenance.about(runs, selection)) for table, runs in compared],
        "sharpness": [section.sharpness for section in made.sections if section.sharpness],
        "ranks": [replace(tables.ranks(made.ranks), about=about)] if made.ranks else [],
    }
    return {name: several for name, several in {**kinds, **printed}.items() if several}


def _notes(made: Report, name: str, format_: str) -> bytes:
    if (name, format_) != ("table", "md") or not made.notes:
        return b""
    return "\n".join(["", "### Notes", "", *(f"- {note}" for note in made.notes), ""]).encode()


def _pictures(found: Sequence[Section], ranks: Ranks | None, format_: files.Picture) -> Iterator[tuple[str, bytes]]:
    if ranks:
        yield f"ranks.{format_}", critical.png(ranks) if format_ == "png" else critical.svg(ranks).encode()
    gained = gains.chart(found)
    if gained.panels:
        yield f"{gained.file}.{format_}", curves.picture(gained, "all rows that meet Joint", format_)
    for section in found:
        suffix = f"-{labels.slug(section.block.title)}" if len(found) > 1 else ""
        for chart in section.charts:
            if chart.file:
                yield f"{chart.file}{suffix}.{format_}", curves.picture(chart, section.block.title, format_)
