"""Relative gain over joint training, over all datasets and fusions (Eq. 21, the paper's Figure 7)."""

import math
from collections.abc import Sequence

from msam.report import pairs, stats
from msam.report.charts import Chart, Dots, Panel
from msam.report.marks import paired_dots, per_row
from msam.report.rows import Row
from msam.report.sections import Section


def chart(sections: Sequence[Section]) -> Chart:
    """Return the chart of relative gains, a panel per section; without panels where no row meets Joint."""
    found = [(section.block.title, _marks(section)) for section in sections]
    panels = [Panel(title, "relative gain over Joint (%)", "", marks, zero=True) for title, marks in found if marks]
    counts = [len(mark.values) for _, marks in found for mark in marks]
    caption = (
        "100 · (test accuracy − that of Joint) / that of Joint (Eq. 21), seed by seed: small dots are seeds, large dots "
        f"their means, bars 95\u00a0% BCa bootstrap intervals of the mean ({per_row(counts)}). The paper divides means of "
        "unstated seeds and shows no interval."
    )
    return Chart("gain", "Relative gain over Joint", caption, tuple(panels), columns=2, file="gain")


def relative(ours: Row, theirs: Row) -> list[float]:
    """Return the relative gains of test accuracy of a row over another in %, one per seed that both have (Eq. 21)."""
    base = {run.seed: run.measures["accuracy"] for run in theirs.runs}
    both = [(run.measures["accuracy"], base[run.seed]) for run in ours.runs if run.seed in base]
    return [100 * (accuracy - joint) / joint if joint else math.nan for accuracy, joint in both]


def _marks(section: Section) -> list[Dots]:
    marks = []
    for _, ours, joint in pairs.over_joint(section.block, section.comparisons):
        gained = relative(ours, joint)
        if all(map(math.isfinite, gained)):
            marks.append(paired_dots(ours, joint, section.style.colours[ours.label], gained, *stats.estimate(gained)))
    return marks
