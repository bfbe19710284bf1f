"""Reports: tables, statistics, pictures and one self-contained page, read off records and nothing else."""

from msam.report import diagnosis
from msam.report.compose import Report, report
from msam.report.pairs import paired
from msam.report.stats import Comparison
from msam.selection import names as selections

__all__ = ["Comparison", "Report", "diagnosis", "paired", "report", "selections"]
