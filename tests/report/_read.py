"""Tables read back from the files they were written to, by readers of their own."""

import csv
import io
import re
from collections.abc import Mapping

import pyarrow.parquet

TEXT = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\textdagger{}": "†",
    r"\textasciigrave{}": "`",
    r"\dots{}": "…",
    r"$\pm$": "±",
    r"$\times$": "×",
    r"$\tau$": "τ",
    r"$\Delta$": "Δ",
    r"$-$": "−",
    "---": "—",
    "--": "–",
    "{}": "",
    **{rf"\{sign}": sign for sign in "{}$&%#_"},
}


def markdown(text: str) -> list[list[str]]:
    """The cells of every row of the tables, heads left out."""
    lines = text.splitlines()
    rules = [i for i, line in enumerate(lines) if re.fullmatch(r"\|( (:---|---:) \|)+", line)]
    found = []
    for rule in rules:
        for line in lines[rule + 1 :]:
            if not line.startswith("|"):
                break
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            found.append([_unmarked(cell.replace("\\|", "|").strip()) for cell in cells])
    return found


def latex(text: str) -> list[list[str]]:
    """The same of the bodies of LaTeX tables."""
    found = []
    for body in re.findall(r"\\midrule\n(.*?)\\bottomrule", text, re.S):
        for line in body.splitlines():
            assert line.endswith(r" \\")
            found.append([_plain(cell.strip()) for cell in re.split(r"(?<!\\)&", line.removesuffix(r" \\"))])
    return found


def comma_separated(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def parquet(content: bytes) -> tuple[list[dict[str, object]], Mapping[str, str]]:
    """Rows, and types of the columns."""
    table = pyarrow.parquet.read_table(io.BytesIO(content))
    return table.to_pylist(), {field.name: str(field.type) for field in table.schema}


def _plain(cell: str) -> str:
    cell = cell.removesuffix(r"\,\textdagger{}").removeprefix("{}")
    cell = cell[len(r"{\boldmath ") : -1] if cell.startswith(r"{\boldmath ") else cell
    number = re.fullmatch(r"\$([^$]*)\$", cell)
    if number and re.search(r"\d|infty", number[1]):
        return number[1].replace(r"\pm", "±").replace(r"\ [", " [").replace(r"\infty", "inf")
    return re.sub("|".join(map(re.escape, TEXT)), lambda sign: TEXT[sign[0]], cell)


def _unmarked(cell: str) -> str:
    return cell[2:-2] if cell.startswith("**") and cell.endswith("**") else cell.removesuffix(" †")
