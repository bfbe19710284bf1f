"""Tables: one structure, and the forms it is written in. The numbers of all forms are the same."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msam.report.ranks import Ranks
from msam.report.rows import Block, Row
from msam.report.runs import KINDS
from msam.report.stats import Comparison, Summary, summary

NONE = "–"
KIND_WORDS = {"zeroed": "others absent", "shapley": "Shapley logits", "head": "own head"}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its head, with the unit.
        numeric: whether it is aligned to the right.
        short: the head where there is little room.
        rank: what goes first where there is no room at all: the higher, the sooner; 0 always stays.
    """

    title: str
    numeric: bool = True
    short: str = ""
    rank: int = 0


@dataclass(frozen=True)
class Table:
    """A table of text cells, and the numbers behind them.

    Attributes:
        title: what it is a table of.
        columns: the columns; the first holds the labels of the rows.
        rows: the cells.
        caption: how the numbers were made.
        numbers: for every row the unrounded numbers by name, for the CSV.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    numbers: tuple[Mapping[str, float | str], ...] = field(default=(), repr=False)


def results(block: Block, caption: str) -> Table:
    """Return the main table of a block: what each row reaches, and what it costs."""
    columns = (
        Column("Row", numeric=False),
        Column("Seeds"),
        Column("Acc (%)"),
        *(Column(f"Acc {name} (%, zeroed)", short=f"{name} (%)") for name in block.modalities),
        Column("Macro-F1 (%)", short="F1 (%)", rank=7),
        Column("NLL (nats)", short="NLL", rank=6),
        Column("τ", rank=1),
        Column("Share s", rank=4),
        Column("Dominant (% of steps)", short="Dominant (%)", rank=3),
        Column("Passes/step", short="Passes", rank=2),
        Column("Time (ms/step)", short="ms/step", rank=5),
    )
    return Table(
        block.title,
        columns,
        tuple(tuple(_result_cells(row, block.modalities)) for row in block.rows),
        caption,
        tuple(_numbers(block, row) for row in block.rows),
    )


def by_kind(block: Block) -> Table:
    """Return the accuracies of single modalities in each of their three kinds."""
    columns = [Column("Row", numeric=False)]
    columns += [Column(f"{name}, {KIND_WORDS[kind]} (%)") for name in block.modalities for kind in KINDS]
    cells = tuple(
        (row.label, *(_percent(_of(row, f"{kind}.{name}")) for name in block.modalities for kind in KINDS))
        for row in block.rows
    )
    caption = (
        "Test, at the selected epoch. Others absent: the features of all other modalities are zero. Shapley logits: the "
        "class with the largest Shapley value of the modality. Own head: its own classifier, where there is one."
    )
    return Table(f"{block.title}: accuracy of single modalities", tuple(columns), cells, caption)


def paired(comparisons: Sequence[Comparison], title: str) -> Table:
    """Return the table of comparisons paired by seed, differences in accuracy points."""
    columns = (
        Column("Row", numeric=False),
        Column("Against", numeric=False),
        Column("Pairs"),
        Column("Ahead in", rank=3),
        Column("Difference (points)", short="Δ (points)"),
        Column("95 % interval (BCa)", short="95 % BCa"),
        Column("p", rank=2),
        Column("p (Holm)", rank=1),
        Column("P(higher)", rank=4),
        Column("Reading", numeric=False),
    )
    rows = tuple(
        (
            c.name,
            c.against,
            str(c.n),
            f"{c.ahead:g}",
            _signed(c.mean),
            f"[{_signed(c.low)}, {_signed(c.high)}]" if math.isfinite(c.low) else NONE,
            _p(c.p),
            _p(c.p_holm),
            _probability(c),
            c.reading,
        )
        for c in comparisons
    )
    size = comparisons[0].family if comparisons else 0
    caption = (
        "Test accuracy of a row minus that of the other, paired by seed. Interval: bias-corrected and accelerated "
        "bootstrap of the mean difference; of 95 % in name, it covers about 90 % with ten pairs, 84 % with five. p: paired "
        "permutation test, two-sided, exact up to 13 pairs; at least 2 / 2^pairs. Holm's family: the "
        f"{size} comparison{'s' * (size != 1)} of this table. P(higher): probability of improvement, that a run of the row "
        "is higher than a run of the other, whatever their seeds; ties count half; bootstrap over seeds."
    )
    return Table(title, columns, rows, caption, tuple(map(_comparison_numbers, comparisons)))


def ranks(found: Ranks) -> Table:
    """Return the table of ranks over blocks."""
    columns = (
        Column("Row", numeric=False),
        Column("Mean rank"),
        Column("Ranks by block", numeric=False, rank=1),
        Column("Not told apart from", numeric=False),
    )
    rows = tuple(
        (name, f"{found.mean[i]:.2f}", " ".join(f"{r:g}" for r in found.ranks[:, i]), ", ".join(found.near(i)) or NONE)
        for i, name in enumerate(found.rows)
    )
    n, k = found.ranks.shape
    words = [
        f"Rank 1 is the highest mean test accuracy over seeds; ties share their mean rank. {n} blocks: "
        f"{'; '.join(found.blocks)}",
        f"Friedman: chi squared {found.statistic:.2f} with {k - 1} degrees of freedom, p {_p(found.p)}; "
        f"Iman and Davenport: F {found.f:.2f}, p {_p(found.f_p)}",
        f"Nemenyi: mean ranks that differ by {found.critical:.2f} or more are told apart at 0.05"
        if found.different
        else "Friedman's test finds no difference, so no two rows are told apart",
        "A name with several rows in a block stands there with the best on validation",
        "Blocks of one dataset are no independent draws, and every mean rank depends on which rows are ranked",
    ]
    words += [f"Not in every block, so left out: {', '.join(found.left)}"] if found.left else []
    numbers = tuple(
        {"row": name, "mean rank": float(found.mean[i]), **_by_block(found, i), "critical difference": found.critical}
        | {"friedman": found.statistic, "p": found.p, "f": found.f, "f_p": found.f_p}
        for i, name in enumerate(found.rows)
    )
    return Table("Ranks over blocks", columns, rows, ". ".join(words) + ".", numbers)


def markdown(table: Table) -> str:
    """Return the table as Markdown: a heading, the table, the caption."""
    rule = " | ".join("---:" if column.numeric else ":---" for column in table.columns)
    lines = [
        f"### {table.title}",
        "",
        _markdown_line([column.title for column in table.columns]),
        f"| {rule} |",
        *map(_markdown_line, table.rows),
    ]
    return "\n".join([*lines, "", table.caption, ""] if table.caption else [*lines, ""])


def comma_separated(tables: Sequence[Table]) -> str:
    """Return the unrounded numbers of several tables as one CSV; what a table does not have stays empty."""
    lines = [{"table": table.title, **numbers} for table in tables for numbers in table.numbers]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v != v else v for k, v in line.items()} for line in lines)
    return text.getvalue()


def _result_cells(row: Row, modalities: Sequence[str]) -> Iterator[str]:
    yield row.label
    yield str(len(row.runs))
    yield _percent(_of(row, "accuracy"))
    for name in modalities:
        yield _percent(_of(row, f"zeroed.{name}"))
    yield _percent(_of(row, "macro_f1"))
    yield _plain(_of(row, "nll"), 3)
    yield _plain(_of(row, "tau"), 3)
    yield _plain(_of(row, "share"), 2)
    yield _dominant(row)
    yield _plain(_of(row, "passes"), 2, sd=False)
    yield _plain(_of(row, "milliseconds"), 1, sd=False)


def _numbers(block: Block, row: Row) -> dict[str, float | str]:
    keys = [
        "accuracy",
        *(f"{kind}.{name}" for kind in KINDS for name in block.modalities),
        "macro_f1",
        "nll",
        "tau",
    ]
    keys += ["share", *(f"dominance.{name}" for name in block.modalities), "passes", "milliseconds"]
    numbers: dict[str, float | str] = {"row": row.label, "seeds": len(row.runs)}
    for key in keys:
        found = _of(row, key)
        numbers |= {f"{key} mean": found.mean, f"{key} sd": found.sd}
    return numbers


def _comparison_numbers(c: Comparison) -> dict[str, float | str]:
    return {
        "row": c.name,
        "against": c.against,
        "pairs": c.n,
        "ahead": c.ahead,
        "mean": c.mean,
        "low": c.low,
        "high": c.high,
        "p": c.p,
        "p_holm": c.p_holm,
        "best_p_holm": c.best_p_holm,
        "improvement": c.improvement,
        "improvement_low": c.improvement_low,
        "improvement_high": c.improvement_high,
        "family": c.family,
        "reading": c.reading,
    }


def _by_block(found: Ranks, row: int) -> dict[str, float | str]:
    numbers: dict[str, float | str] = {}
    for i, title in enumerate(found.blocks):
        numbers |= {f"{title}: rank": float(found.ranks[i, row]), f"{title}: accuracy": float(found.values[i, row])}
    return numbers


def _of(row: Row, key: str) -> Summary:
    return summary(row.values(key))


def _dominant(row: Row) -> str:
    names = row.runs[0].modalities
    shares = {name: _of(row, f"dominance.{name}") for name in names}
    if len(names) < 2 or any(math.isnan(share.mean) for share in shares.values()):
        return NONE
    first = max(names, key=lambda name: shares[name].mean)
    return f"{first} {_scaled(shares[first], 100, 0, sd=False)}"


def _percent(found: Summary) -> str:
    return _scaled(found, 100, 1)


def _plain(found: Summary, digits: int, *, sd: bool = True) -> str:
    return _scaled(found, 1, digits, sd=sd)


def _scaled(found: Summary, factor: float, digits: int, *, sd: bool = True) -> str:
    if math.isnan(found.mean):
        return NONE
    shown = f"{factor * found.mean:.{digits}f}"
    return shown if math.isnan(found.sd) or not sd else f"{shown} ± {factor * found.sd:.{digits}f}"


def _signed(difference: float) -> str:
    return f"{100 * difference:+.2f}" if math.isfinite(difference) else NONE


def _probability(c: Comparison) -> str:
    if math.isnan(c.improvement):
        return NONE
    ends = f" [{c.improvement_low:.2f}, {c.improvement_high:.2f}]" if math.isfinite(c.improvement_low) else ""
    return f"{c.improvement:.2f}{ends}"


def _p(value: float) -> str:
    if math.isnan(value):
        return NONE
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
