"""Write the tables of docs/recipes.md, every value of the paper's recipes with its source, from the recipes themselves.

python tools/build_recipes.py           # writes them
python tools/build_recipes.py --check   # fails if they are not what would be written
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cyclopts import App

from msam.recipes._methods import METHODS
from msam.recipes._values import COMMON, DATASETS, SHARPNESS, Value

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
BEGIN, END = "<!-- tables: written by tools/build_recipes.py -->\n", "<!-- end of tables -->\n"
HEAD = ("Key", "Value", "Source", "Note")


def page(old: str) -> str:
    """Return the page with its tables made anew."""
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{chr(10).join(_tables())}\n{END}{after}"


def main(*, check: bool = False) -> None:
    """Write the page, or check it."""
    old = PAGE.read_text()
    if check and old != page(old):
        raise SystemExit(f"{PAGE} is not what {Path(__file__).name} writes. Run it.")
    PAGE.write_text(page(old))


def _tables() -> Iterator[str]:
    yield "### All recipes\n"
    yield from _table(HEAD, (_cells(value) for value in COMMON))
    yield "### Datasets and fusions\n"
    rows = [(name, value) for name, setting in DATASETS.items() for value in setting.values]
    for name, setting in DATASETS.items():
        rows += [(f"{name}-{fusion}", value) for fusion, values in setting.fusions.items() for value in values]
    yield from _table(("Where", *HEAD), ((f"`{where}`", *_cells(value)) for where, value in rows))
    yield "### Sharpness\n"
    yield from _table(
        ("Row", *HEAD), ((f"`{row}`", *_cells(value)) for row, values in SHARPNESS.items() for value in values)
    )
    yield "### Methods\n"
    found = [
        (method, where, value) for method, of in METHODS.items() for where, values in of.items() for value in values
    ]
    yield from _table(
        ("Method", "Where", *HEAD), ((f"`{m}`", f"`{w}`" if w else "elsewhere", *_cells(v)) for m, w, v in found)
    )


def _cells(value: Value) -> tuple[str, ...]:
    return (f"`{value.key}`", f"`{_plain(value.value)}`", value.source, value.note)


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join(':---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |".replace("|  |", "| |")
    yield ""


if __name__ == "__main__":
    App(default_command=main)()
