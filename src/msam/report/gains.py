"""Relative gain over joint training, over all datasets and fusions (Eq. 21, the paper's Figure 7)."""

import math
from collections.abc import Sequence

from msam.report import measures, pairs, stats
from msam.report.charts import Chart, Dots, Panel
from msam.report.marks import paired_dots, per_row
from msam.report.rows import Row
from msam.report.sections import Section


def chart(sections: Sequence[Section]) -> Chart:
    """Return the chart of relative gains, a panel per section; without panels where no row meets Joint."""
    found = [(section.block, marks) for section in sections if (marks := _marks(section))]
    panels = [Panel(block.title, "relative gain over Joint (%)", "", marks, zero=True) for block, marks in found]
    counts = [len(mark.values) for _, marks in found for mark in marks]
    of = measures.measured(block.task for block, _ in found)
    caption = (
        f"100 · (test {of} − that of Joint) / that of Joint (Eq. 21), seed by seed: small dots are seeds, large dots "
        f"their means, bars 95\u00a0% BCa bootstrap intervals of the mean ({per_row(counts)}). The paper divides means of "
        "unstated seeds and shows no interval."
    )
    return Chart("gain", "Relative gain over Joint", caption, tuple(panels), columns=2, file="gain")


def relative(ours: Row, theirs: Row) -> list[float]:
    """Return the relative gains of test accuracy of a row over another in %, one per seed that both have (Eq. 21).

    NaN where there is no accuracy: R² may be 0 or below, and a share of it says nothing.
    """
    base = {run.seed: accuracy for run, accuracy in zip(theirs.runs, theirs.values("accuracy"), strict=True)}
    mine = zip(ours.runs, ours.values("accuracy"), strict=True)
    both = [(accuracy, base[run.seed]) for run, accuracy in mine if run.seed in base]
    return [100 * (accuracy - joint) / joint if joint else math.nan for accuracy, joint in both]


def _marks(section: Section) -> list[Dots]:
    marks = []
    for _, ours, joint in pairs.over_joint(section.block, section.comparisons):
        gained = relative(ours, joint)
        if all(map(math.isfinite, gained)):
            marks.append(paired_dots(ours, joint, section.style.colours[ours.label], gained, *stats.estimate(gained)))
    return marks
