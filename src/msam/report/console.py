"""Tables on the console: what does not fit is left out and named, not squeezed into unreadable columns."""

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from msam.report.table import Table

WORDS, LABEL, PADDING = 12, 30, 3
"""Characters that a column of words needs at least, that a row's label has at most without a break, and that lie between
columns."""


class ConsoleTable:
    """A renderable that shows as many columns of a table as the console is wide; the caption follows."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = self.table.columns
        kept = list(range(len(columns)))
        while sum(_width(self.table, i) + PADDING for i in kept) > options.max_width:
            droppable = [i for i in kept if columns[i].rank]
            if not droppable:
                break
            kept.remove(max(droppable, key=lambda i: columns[i].rank))
        yield _drawn(self.table, kept)
        left = [column.full_title for i, column in enumerate(columns) if i not in kept]
        if left:
            yield Text(f"No room for: {', '.join(left)}.", style="dim")
        words = " ".join(filter(None, (self.table.caption, self.table.about)))
        if words:
            yield Text(f"{words}\n", style="dim")


def _drawn(table: Table, kept: Sequence[int]) -> RichTable:
    """Names are shown as they stand, never read as markup."""
    shown = RichTable(title=Text(table.title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i in kept:
        justify: JustifyMethod = "right" if table.columns[i].numeric else "left"
        shown.add_column(Text(_head(table, i)), justify=justify, no_wrap=_whole(table, i))
    for cells in table.rows:
        shown.add_row(*(Text(cells[i]) for i in kept))
    return shown


def _width(table: Table, i: int) -> int:
    """Characters that the column needs."""
    return _longest(table, i) if _whole(table, i) else min(_longest(table, i), LABEL if i == 0 else WORDS)


def _whole(table: Table, i: int) -> bool:
    """Whether the column's cells must stand on one line: numbers, and labels unless they are long."""
    return table.columns[i].numeric or (i == 0 and _longest(table, i) <= LABEL)


def _longest(table: Table, i: int) -> int:
    return max(cell_len(text) for text in (_head(table, i), *(cells[i] for cells in table.rows)))


def _head(table: Table, i: int) -> str:
    return table.columns[i].short or table.columns[i].full_title
