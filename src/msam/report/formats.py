"""Tables as files: Markdown to read, LaTeX to print, CSV and Parquet to compute with. All hold the same numbers."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from msam import checks
from msam.report.latex import latex
from msam.report.table import Plain, Table

Picture = Literal["png", "svg"]
PICTURES: tuple[Picture, ...] = ("png", "svg")
"""Formats of charts."""


def checked(formats: Sequence[str]) -> tuple[str, ...]:
    """Return the formats, each once, in their order.

    Raises:
        ValueError: if there is none, one is unknown, or Parquet cannot be written for want of pyarrow.

    >>> checked(["md", "csv", "md"])
    ('md', 'csv')
    """
    if isinstance(formats, str) or not formats:
        raise ValueError(f"`formats` must name at least one of {', '.join(names())} in a list, received {formats!r}.")
    for name in formats:
        checks.one_of("format", name, names())
    if "parquet" in formats:
        _pyarrow()
    return tuple(dict.fromkeys(formats))


def names() -> list[str]:
    """Return the names of all formats, of tables and of pictures.

    >>> names()
    ['md', 'csv', 'tex', 'parquet', 'png', 'svg']
    """
    return [*WRITERS, *PICTURES]


def markdown(tables: Sequence[Table]) -> str:
    """Return tables as Markdown, each a heading, the table and its caption; the best cell bold, those as good with a †."""
    return "\n".join(map(_markdown, tables))


def comma_separated(tables: Sequence[Table]) -> str:
    """Return the unrounded numbers of several tables as one CSV; what a table does not have stays empty."""
    lines = _lines(tables)
    text = io.StringIO()
    writer = csv.DictWriter(text, _types(tables), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v != v else v for k, v in line.items()} for line in lines)
    return text.getvalue()


def parquet(tables: Sequence[Table]) -> bytes:
    """Return what the CSV holds as Parquet: text, whole numbers and float64, null where there is none.

    Captions stand in the metadata of the schema, by title.

    Raises:
        ValueError: if pyarrow is not installed.
    """
    pa, write = _pyarrow()
    lines = _lines(tables)
    made = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    types = {key: made[type_] for key, type_ in _types(tables).items()}
    captions = {table.title: " ".join(filter(None, (table.caption, table.about))) for table in tables}
    schema = pa.schema(list(types.items()), metadata=captions)
    rows = [{key: None if line.get(key) != line.get(key) else line.get(key) for key in types} for line in lines]
    sink = io.BytesIO()
    write(pa.Table.from_pylist(rows, schema=schema), sink)
    return sink.getvalue()


WRITERS: Mapping[str, Callable[[Sequence[Table]], bytes]] = {
    "md": lambda tables: markdown(tables).encode(),
    "csv": lambda tables: comma_separated(tables).encode(),
    "tex": lambda tables: "\n".join(map(latex, tables)).encode(),
    "parquet": parquet,
}
"""Formats of tables: from tables to the content of a file."""


def _markdown(table: Table) -> str:
    rule = " | ".join("---:" if column.numeric else ":---" for column in table.columns)
    lines = [
        f"### {_one_line(table.title)}",
        "",
        _markdown_line([column.full_title for column in table.columns]),
        f"| {rule} |",
        *(
            _markdown_line([_emphasised(cell, mark) for cell, mark in zip(*row, strict=True)])
            for row in zip(table.rows, table.marked, strict=True)
        ),
    ]
    words = " ".join(filter(None, (table.caption, table.about)))
    return "\n".join([*lines, "", words, ""] if words else [*lines, ""])


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_one_line(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _emphasised(cell: str, mark: str) -> str:
    return {"best": f"**{cell}**", "near": f"{cell} †"}.get(mark, cell)


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _lines(tables: Sequence[Table]) -> list[dict[str, Plain]]:
    return [{"table": table.title, **numbers} for table in tables for numbers in table.numbers]


def _types(tables: Sequence[Table]) -> dict[str, type]:
    """The type of every column of a file; of a name with several, the one that can hold all."""
    types: dict[str, type] = {"table": str}
    for column in (column for table in tables for column in table.fields):
        kind = {"text": str, "whole": int}.get(column.kind, float)
        for key in column.keys:
            types[key] = max(types.get(key, int), kind, key=(int, float, str).index)
    return types


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("The format parquet needs pyarrow: pip install 'msam[parquet]'.") from error
    return pyarrow, pyarrow.parquet.write_table
