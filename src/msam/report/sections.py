"""A section of the report: one block with its tables, comparisons and charts."""

from collections.abc import Sequence
from dataclasses import dataclass

from msam.report import controls, curvature, pairs, provenance, rows, series, tables
from msam.report.charts import Chart, Style, style
from msam.report.rows import Block
from msam.report.runs import Run
from msam.report.stats import Comparison
from msam.report.table import Table
from msam.selection import Selection


@dataclass(frozen=True)
class Section:
    """What the report says of one block; `paired` is None where nothing meets, `sharpness` where nothing was probed."""

    block: Block
    style: Style
    comparisons: tuple[Comparison, ...]
    results: Table
    by_kind: Table
    paired: Table | None
    sharpness: Table | None
    charts: tuple[Chart, ...]

    @property
    def tables(self) -> list[Table]:
        """The tables that every form of the report shows."""
        return [table for table in (self.results, self.paired, self.sharpness) if table is not None]


def sections(runs: Sequence[Run], selection: Selection) -> list[Section]:
    """Return a section for every block of the runs; a row keeps its colour in all of them."""
    blocks = [controls.marked(block) for block in rows.blocks(runs)]
    looks = style([(row.label, row.name) for block in blocks for row in block.rows])
    return [_section(block, looks, selection) for block in blocks]


def _section(block: Block, looks: Style, selection: Selection) -> Section:
    compared = tuple(pairs.comparisons(block))
    lines = (provenance.caption(block, selection), controls.line(block))
    return Section(
        block,
        looks,
        compared,
        tables.results(block, " ".join(filter(None, lines))),
        tables.by_kind(block),
        tables.paired(block, compared) if compared else None,
        curvature.table(block),
        tuple(series.charts(block, compared, looks)),
    )
