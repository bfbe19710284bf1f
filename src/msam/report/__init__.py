"""Reports: tables, statistics, pictures and one self-contained page, read off records and nothing else."""

from msam.report.compose import Report, report
from msam.report.stats import Comparison, paired
from msam.selection import names as selections

__all__ = ["Comparison", "Report", "paired", "report", "selections"]
