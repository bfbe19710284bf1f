"""Tables as LaTeX, with booktabs; nothing but `booktabs` and `graphicx` is needed, whatever the names in it."""

from collections.abc import Sequence
from itertools import pairwise

from msam.report.labels import slug
from msam.report.table import NONE, Column, Table

WIDTH, LETTER, GAP = 345, 5, 12
"""Points of a line of text in LaTeX's article, of a letter, and between columns: what is wider is shrunk to fit."""

SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "†": r"\textdagger{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "−": r"$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "τ": r"$\tau$",
    "Δ": r"$\Delta$",
    "ρ": r"$\rho$",
    "θ": r"$\theta$",
    "ε": r"$\varepsilon$",
    "α": r"$\alpha$",
    "χ": r"$\chi$",
    "²": r"\textsuperscript{2}",
}
"""What LaTeX reads as something else, or what its fonts lack."""


def latex(table: Table) -> str:
    """Return a table as a LaTeX float with booktabs' rules, to be put in by `\\input`.

    Numbers stand in mathematical mode, so that minus is one; the best cell is bold, those as good carry a dagger. The
    caption is that of the table, with what a table that stands alone must say.
    """
    columns = table.columns
    layout = "".join("r" if column.numeric else "l" for column in columns)
    heads = [*_groups(table), _line([escaped(column.title) for column in columns])]
    body = [
        _line([_cell(*one) for one in zip(columns, cells, marks, strict=True)])
        for cells, marks in zip(table.rows, table.marked, strict=True)
    ]
    tabular = [
        rf"\begin{{tabular}}{{@{{}}{layout}@{{}}}}",
        r"\toprule",
        *heads,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if _width(table) > WIDTH:
        tabular = [r"\resizebox{\textwidth}{!}{%", *tabular, "}"]
    words = [f"{table.title}.", table.caption, table.about]
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs,graphicx}.",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(' '.join(filter(None, words)))}}}",
            rf"\label{{tab:{slug(table.title)}}}",
            *tabular,
            r"\end{table}",
            "",
        ]
    )


def escaped(text: str) -> str:
    r"""Return text as LaTeX prints it.

    >>> print(escaped("a_b & 95 % ± τ"))
    a\_b \& 95 \% $\pm$ $\tau$
    """
    text = " ".join(text.split())
    return "".join(f"{SPECIAL.get(a, a)}{'{}' * _merge(a, b)}" for a, b in pairwise(f"{text} "))


def _merge(a: str, b: str) -> bool:
    """Whether LaTeX would set two letters as one: `--` is a dash, two apostrophes are a quotation mark."""
    return (a in "-–—" and b in "-–—") or a == b == "'"


def _width(table: Table) -> int:
    """An estimate of the table's width in points."""
    heads = [column.title for column in table.columns]
    letters = [max(map(len, cells)) for cells in zip(heads, *table.rows, strict=True)]
    return LETTER * sum(letters) + GAP * len(letters)


def _groups(table: Table) -> list[str]:
    """The heads that neighbours share, with a rule under each; nothing where there are none."""
    if not table.groups:
        return []
    cells, rules, at = [], [], 1
    for group, size in table.groups:
        cells.append(rf"\multicolumn{{{size}}}{{c}}{{{escaped(group)}}}" if group else " & ".join([""] * size))
        rules += [rf"\cmidrule(lr){{{at}-{at + size - 1}}}"] if group else []
        at += size
    return [_line(cells), "".join(rules)]


def _cell(column: Column, cell: str, mark: str) -> str:
    if column.kind == "text":
        return escaped(cell)
    shown = escaped(cell) if cell == NONE else f"${_formula(cell)}$"
    return {"best": rf"{{\boldmath {shown}}}", "near": rf"{shown}\,\textdagger{{}}"}.get(mark, shown)


def _formula(cell: str) -> str:
    """A shown number as a formula: `88.2 ± 0.7`, `[-0.10, +0.20]`, `< 0.0001`."""
    return cell.replace(" [", r"\ [").replace("±", r"\pm").replace("inf", r"\infty")


def _line(cells: Sequence[str]) -> str:
    """A row; what begins with a bracket or a star would be read as an argument of the row before."""
    guarded = f"{{}}{cells[0]}" if cells[0][:1] in ("[", "*") else cells[0]
    return f"{' & '.join([guarded, *cells[1:]])} " + r"\\"
