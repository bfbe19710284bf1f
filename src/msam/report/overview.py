"""The table at the head of the page: every row on all data, what it gains over Joint, and what it costs."""

import math
from collections.abc import Iterator, Sequence

from msam.report import gains, measures, pairs, stats
from msam.report.runs import number
from msam.report.sections import Section
from msam.report.stats import summary
from msam.report.table import Column, Estimate, Table, Value


def table(sections: Sequence[Section]) -> Table:
    """Return a line per row and section: what decides and its gain over Joint with their intervals, passes and times."""
    tasks = [section.block.task for section in sections]
    rated = any(task.rated for task in tasks)
    of = measures.capital(measures.measured(tasks))
    columns = (
        Column("Row", keys=("row",)),
        Column("Data", keys=("data",), shown=len(sections) > 1),
        Column("Measure", keys=("measure",), shown=len(measures.each(tasks)) > 1),
        Column("Seeds", "whole", ("seeds",)),
        Column(f"{of} (%)", "estimate", ("score", "score low", "score high"), scale=100, digits=1),
        Column(
            "Difference to Joint (points)",
            "estimate",
            ("difference", "difference low", "difference high"),
            scale=100,
            digits=2,
            signed=True,
        ),
        Column("Relative gain (%)", "number", ("gain",), digits=2, signed=True, shown=rated),
        Column("Passes/step", "number", ("passes",), digits=2),
        Column("Time (ms/step)", "number", ("milliseconds",), digits=1),
        Column("Time (s/run)", "number", ("seconds",), digits=1),
    )
    values = tuple(line for section in sections for line in _lines(section))
    caption = (
        "Test, at the selected epoch; means over seeds and, in brackets, 95\u00a0% BCa bootstrap intervals of the mean, of "
        "the difference paired by seed; controls meet M-SAM instead. "
        f"{'Relative gain: Eq. 21 seed by seed, then the mean. ' if rated else ''}"
        "Passes are backward passes; "
        "times are measured, on the machine of each run. Intervals over few seeds are too narrow: 95\u00a0% in name covers "
        "about 84\u00a0% with five."
    )
    return Table("All rows", columns, values, caption)


def _lines(section: Section) -> Iterator[tuple[Value, ...]]:
    met = {ours.label: (c, joint) for c, ours, joint in pairs.over_joint(section.block, section.comparisons)}
    for row in section.block.rows:
        c, joint = met.get(row.label, (None, None))
        yield (
            row.label,
            section.block.title,
            section.block.task.measured,
            len(row.runs),
            Estimate(*stats.estimate(row.values("score"))),
            Estimate(c.mean, c.low, c.high) if c else Estimate(math.nan),
            summary(gains.relative(row, joint)).mean if joint else math.nan,
            summary(row.values("passes")).mean,
            summary(row.values("milliseconds")).mean,
            summary([number((run.record.end or {}).get("seconds")) for run in row.runs]).mean,
        )
