"""Write docs/methods.md, the catalogue of methods, from what the methods say of themselves.

python tools/build_catalogue.py           # writes it
python tools/build_catalogue.py --check   # fails if it is not what would be written
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from cyclopts import App

from msam import methods
from msam.methods._catalogue import Entry, entries
from msam.train.config import options

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
INTRODUCTION = """\
# Methods

This page is written by `tools/build_catalogue.py` from the methods themselves; `msam list methods` prints the same table.

Each method is one file in `src/msam/methods`: its arithmetic as pure functions at the top, then a class whose fields are
its hyper-parameters and its flags. The default is what the paper says where that is well defined; `variant=code` is the
official code where it differs in substance. A pass is a forward and a backward of the whole model; a backward counts as two
forwards. *Late* stands for the fusions `late`, `concat` and `shared`, whose logits split into modalities, *early* for
`early` and `maxout`. An extension of ours, for what a paper leaves undefined, has a flag of its own and is off by default.

ATF (adaptive tracking factor, Sun, Mai, Hu 2021) is not here: neither its equations nor its code could be had, and a guess
under its name would help nobody.

| Method | Paper | Family | Changes | Added heads | Passes | Fusions | Modalities | Choices |
| :--- | :--- | :--- | :--- | :--- | ---: | :--- | :--- | :--- |
"""
PAIRS = """
## Beside a sharpness rule, with an adaptive optimizer

Every method runs beside every rule and every optimizer: running scores move in the first pass only, and coefficients,
weights and noise of the first pass are kept in the second, so that what climbs and what comes back are of one loss.
Whether a pair makes sense is another question. Adam and AdamW divide by the size of past gradients: a factor that stays
the same for a parameter disappears, one that changes from step to step does not.

| Method | What to know |
| :--- | :--- |
"""

FAULTS = """
## Known faults

Faults of public codes and of easy mistakes. The tests plant each one and see that a law catches it.

"""
FAULT = re.compile(r"def test_the_planted_fault_(?:of_)?(\w+?)_is_caught\(")


def page() -> str:
    """Return the whole page."""
    found = entries()
    lines = [INTRODUCTION.rstrip("\n"), *map(_row, found)]
    lines += [PAIRS.rstrip("\n"), *(f"| [{e.name}](#{e.name}) | {e.pairs or '–'} |" for e in found)]
    lines += [FAULTS.rstrip("\n"), "", *_faults()]
    for e in found:
        lines += _section(e)
    return "\n".join(lines) + "\n"


def _row(e: Entry) -> str:
    cells = [f"[{e.name}](#{e.name})", *e[3:7], e.passes, e.fusions, e.modalities, e.variants or "–"]
    return "| " + " | ".join(cells) + " |"


def _faults() -> Iterator[str]:
    for path in sorted((PAGE.parents[1] / "tests" / "methods").glob("test_*.py")):
        for name in FAULT.findall(path.read_text(encoding="utf-8")):
            method = path.stem.removeprefix("test_")
            yield f"- [{method}](#{method}): {name.replace('_', ' ')}"


def _section(e: Entry) -> Iterator[str]:
    yield from ("", f"## {e.name}", "", e.what, "")
    text = (inspect.getdoc(methods.load(e.name)) or "").split("\n\nArguments:")[0].split("\n\n>>>")[0]
    yield from (text, "")
    known = options("method", e.name)
    if known:
        yield from ("| Flag | Default | Range | Tuned in | |", "| :--- | ---: | :--- | :--- | :--- |")
        for key, option in known.items():
            default = "none" if option.default in (None, ()) else str(option.default).lower()
            allowed = option.range.describe() if option.range else ""
            tuned = option.search.describe() if option.search else ""
            yield f"| `--method.{key}` | {default} | {allowed} | {tuned} | {option.help.replace('|', chr(92) + '|')} |"


def main(*, check: bool = False) -> None:
    """Write the page, or with --check only compare it."""
    made = page()
    if check:
        if not PAGE.exists() or PAGE.read_text() != made:
            raise SystemExit("docs/methods.md is not what tools/build_catalogue.py would write. Run it.")
    else:
        PAGE.write_text(made)


if __name__ == "__main__":
    App(help=__doc__, default_command=main)()
