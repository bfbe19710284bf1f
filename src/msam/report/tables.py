"""The tables of a block and of the ranks over blocks."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from msam.report import measures
from msam.report.measures import Measure
from msam.report.ranks import Ranks
from msam.report.rows import Block, Row
from msam.report.runs import KINDS
from msam.report.stats import Comparison, summary
from msam.report.table import NONE, Column, Estimate, Interval, Spread, Table, Value, digits_of

KIND_WORDS = {"zeroed": "others absent", "shapley": "Shapley logits", "head": "own head"}


def results(block: Block, caption: str) -> Table:
    """Return the main table of a block: what each row reaches, and what it costs."""
    task = block.task
    columns = (
        Column("Row", keys=("row",)),
        Column("Seeds", "whole", ("seeds",)),
        _spread(f"{task.head} (%)", task.key, 100, 1),
        *(
            _spread(f"{task.head} {name} (%, zeroed)", f"zeroed.{name}", 100, 1, short=f"{name} (%)")
            for name in block.modalities
        ),
        *(_hidden(f"{kind}.{name}") for kind in KINDS if kind != "zeroed" for name in block.modalities),
        *(_beside(block, measure) for measure in task.others),
        _spread("NLL (nats)", "nll", 1, 3, short="NLL", rank=6),
        *([_spread("τ", "tau", 1, 3, rank=1)] if task.rated else []),
        _spread("Share s", "share", 1, 2, rank=4),
        *(_hidden(f"dominance.{name}") for name in block.modalities),
        Column("Dominant (% of steps)", short="Dominant (%)", rank=3, right=True),
        _spread("Passes/step", "passes", 1, 2, short="Passes", rank=2, only_mean=True),
        _spread("Time (ms/step)", "milliseconds", 1, 1, short="ms/step", rank=5, only_mean=True),
    )
    return Table(block.title, columns, tuple(tuple(_result(row, columns)) for row in block.rows), caption)


def by_kind(block: Block) -> Table:
    """Return the measure that decides of single modalities in each of its three kinds."""
    measures = [(f"{kind}.{name}", f"{name}, {KIND_WORDS[kind]} (%)") for name in block.modalities for kind in KINDS]
    columns = (Column("Row", keys=("row",)), *(_spread(title, key, 100, 1) for key, title in measures))
    values: tuple[tuple[Value, ...], ...] = tuple(
        (row.label, *(_of(row, key) for key, _ in measures)) for row in block.rows
    )
    caption = (
        "Test, at the selected epoch. Others absent: the features of all other modalities are zero. Shapley logits: "
        f"{block.task.shapley}. Own head: {block.task.own}, where there is one."
    )
    return Table(f"{block.title}: {block.task.measured} of single modalities", columns, values, caption)


def paired(block: Block, comparisons: Sequence[Comparison]) -> Table:
    """Return the table of comparisons within a block, paired by seed, differences in points of what decides."""
    points: dict[str, Any] = {"scale": 100, "digits": 2, "signed": True}
    columns = (
        Column("Row", keys=("row",)),
        Column("Against", keys=("against",)),
        Column("Pairs", "whole", ("pairs",)),
        Column("Ahead in", "number", ("ahead",), rank=3),
        Column("Difference (points)", "number", ("mean",), short="Δ (points)", **points),
        Column("95 % interval (BCa)", "interval", ("low", "high"), short="95 % BCa", **points),
        Column("p", "number", ("p",), rank=2, digits=4, least=0.0001),
        Column("p (Holm)", "number", ("p_holm",), rank=1, digits=4, least=0.0001),
        Column("", "number", ("best_p_holm",), shown=False),
        Column("P(higher)", "estimate", ("improvement", "improvement_low", "improvement_high"), rank=4, digits=2),
        Column("", "whole", ("family",), shown=False),
        Column("Reading", keys=("reading",)),
    )
    values = tuple(map(_comparison, comparisons))
    size = comparisons[0].family if comparisons else 0
    caption = (
        f"Test {block.task.measured} of a row minus that of the other, paired by seed. Interval: bias-corrected and "
        "accelerated bootstrap of the mean difference; of 95 % in name, it covers about 90 % with ten pairs, 84 % with "
        "five. p: paired permutation test, two-sided, exact up to 13 pairs; at least 2 / 2^pairs. Holm's family: the "
        f"{size} comparison{'s' * (size != 1)} of this table. P(higher): probability of improvement, that a run of the row "
        "is higher than a run of the other, whatever their seeds; ties count half; bootstrap over seeds."
    )
    return Table(f"{block.title}: paired comparisons", columns, values, caption)


def ranks(found: Ranks) -> Table:
    """Return the table of ranks over blocks."""
    columns = (
        Column("Row", keys=("row",)),
        Column("Mean rank", "number", ("mean rank",), digits=2),
        Column("Ranks by block", rank=1),
        *(
            Column("", "number", (f"{title}: {what}",), shown=False)
            for title, task in zip(found.blocks, found.tasks, strict=True)
            for what in ("rank", task.key)
        ),
        *(Column("", "number", (key,), shown=False) for key in ("critical difference", "friedman", "p", "f", "f_p")),
        Column("Not told apart from"),
    )
    tests = (found.critical, found.statistic, found.p, found.f, found.f_p)
    values: tuple[tuple[Value, ...], ...] = tuple(
        (
            name,
            float(found.mean[i]),
            " ".join(f"{r:g}" for r in found.ranks[:, i]),
            *(float(v) for pair in zip(found.ranks[:, i], found.values[:, i], strict=True) for v in pair),
            *map(float, tests),
            ", ".join(found.near(i)) or NONE,
        )
        for i, name in enumerate(found.rows)
    )
    n, k = found.ranks.shape
    words = [
        f"Rank 1 is the highest mean test {measures.measured(found.tasks)} over seeds; ties share their mean rank. "
        f"{n} blocks: {'; '.join(found.blocks)}",
        f"Friedman: chi squared {found.statistic:.2f} with {k - 1} degrees of freedom, p {_p(found.p)}; "
        f"Iman and Davenport: F {found.f:.2f}, p {_p(found.f_p)}",
        f"Nemenyi: mean ranks that differ by {found.critical:.2f} or more are told apart at 0.05"
        if found.different
        else "Friedman's test finds no difference, so no two rows are told apart",
        "A name with several rows in a block stands there with the best on validation",
        "Blocks of one dataset are no independent draws, and every mean rank depends on which rows are ranked",
    ]
    words += [f"Not in every block, so left out: {', '.join(found.left)}"] if found.left else []
    return Table("Ranks over blocks", columns, values, ". ".join(words) + ".")


def _spread(title: str, key: str, scale: float, digits: int, **more: Any) -> Column:
    return Column(title, "spread", (f"{key} mean", f"{key} sd"), scale=scale, digits=digits, **more)


def _beside(block: Block, measure: Measure) -> Column:
    """The column of a measure that does not decide."""
    means = (_of(row, measure.key).mean for row in block.rows)
    digits = digits_of(means) if measure.digits is None else measure.digits
    return _spread(measure.title, measure.key, measure.scale, digits, short=measure.short, rank=measure.rank)


def _hidden(key: str) -> Column:
    return _spread("", key, 1, 3, shown=False)


def _result(row: Row, columns: Sequence[Column]) -> Iterator[Value]:
    for column in columns:
        if column.kind == "spread":
            yield _of(row, column.keys[0].removesuffix(" mean"))
        elif column.kind == "whole":
            yield len(row.runs)
        else:
            yield row.label if column.keys else _dominant(row)


def _comparison(c: Comparison) -> tuple[Value, ...]:
    improvement = Estimate(c.improvement, c.improvement_low, c.improvement_high)
    difference = (float(c.mean), Interval(c.low, c.high), c.p, c.p_holm, c.best_p_holm)
    return (c.name, c.against, c.n, c.ahead, *difference, improvement, c.family, c.reading)


def _of(row: Row, key: str) -> Spread:
    found = summary(row.values(key))
    return Spread(found.mean, found.sd)


def _dominant(row: Row) -> str:
    names = row.runs[0].modalities
    shares = {name: _of(row, f"dominance.{name}").mean for name in names}
    if len(names) < 2 or any(map(math.isnan, shares.values())):
        return NONE
    first = max(names, key=lambda name: shares[name])
    return f"{first} {100 * shares[first]:.0f}"


def _p(value: float) -> str:
    if math.isnan(value):
        return NONE
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"
