"""What the runs of a grid came to: a measure of a row, world by world."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from msam import bench, record, selection
from msam.bench import tune as tuning
from msam.bench.grid import Grid, Settings, cell
from msam.recipes import evidence
from msam.report import stats
from msam.report.runs import Run, finished, number

FOLDER = Path(__file__).parents[2] / "results" / "evidence"
PROBED = "probed"
"""Folder of the runs whose curvature is measured."""

RULES = ("none", "sam", "msam", "msam.scope=dominant")
"""Rules of joint training that are looked at closely, where a grid has them: their curvature, and M-SAM's controls."""

FAST, SLOW = 1.0, 0.0
"""Places in the dial's signals and modes: one mode per class is learned fast, four are learned slowly."""

DIGITS: Mapping[str, float] = {"image": FAST, "audio": SLOW}
"""On AV-digits the image is what joint training learns fast (docs/results.md)."""

Measure = Callable[[Run], float]


@dataclass(frozen=True)
class Found:
    """The finished runs of a grid.

    Attributes:
        name: of the grid.
        rows: by the row's name, then by seed; those of the controls are called `ROW (CONTROL)`.
        diverged: how many runs of each row ended because a loss was not finite.
        chosen: what tuning chose of each row.
    """

    name: str
    rows: Mapping[str, Mapping[int, Run]]
    diverged: Mapping[str, int]
    chosen: Mapping[str, tuning.Chosen]
    probed: Mapping[str, Mapping[int, Run]] = field(default_factory=dict)

    def values(self, row: str, measure: Measure) -> dict[int, float]:
        """Return a measure of every run of a row, by seed."""
        return {seed: measure(run) for seed, run in self.rows[row].items()}

    def summary(self, row: str, measure: Measure) -> stats.Summary:
        """Return number, mean and standard deviation of a measure of a row."""
        return stats.summary(list(self.values(row, measure).values()))

    def seeds(self) -> int:
        """Return the largest number of runs that a row has."""
        return max((len(runs) for runs in self.rows.values()), default=0)


def tuned(name: str, rows: Collection[str] | None = None) -> Grid:
    """Return a grid with what tuning chose: of these rows, or of all that were tuned so far."""
    chosen, grid = tuning.chosen(FOLDER / name / "tuning"), evidence.GRIDS[name]()
    wanted = {row: settings for row, settings in grid.rows.items() if row in (chosen if rows is None else rows)}
    return grid.with_rows(wanted).tuned({row: choice.settings for row, choice in chosen.items()})


def controlled(grid: Grid) -> Grid:
    """Return the grid without those rows with M-SAM that are themselves variations, or pairs: they have no controls."""
    return grid.with_rows({name: row for name, row in grid.rows.items() if "msam" not in name or _rule(name) in RULES})


def probed(grid: Grid) -> Grid:
    """Return the rows whose curvature is measured, with that measure."""
    rows = {name: row for name, row in grid.rows.items() if _rule(name) in RULES}
    return grid.with_rows(rows).with_settings({"probes": ("curvature",)})


@cache
def load(name: str) -> Found | None:
    """Return what a grid came to; None where it was not run."""
    folder = FOLDER / name
    if not (folder / "tuning" / "chosen").is_dir() or not (folder / "runs").is_dir():
        return None
    chosen = tuned(name)
    records = {found.header["run"]: found for found in record.find(folder / "runs")}
    controls = bench.controls(controlled(chosen), records.values())
    rows, diverged = {}, {}
    told: set[str] = set()
    for row, settings in {**chosen.rows, **controls.rows}.items():
        first = cell(settings, chosen.seeds[0]).run_name()
        if row in chosen.rows or first not in told:
            rows[row], diverged[row] = runs_of(settings, chosen.seeds, records)
        told.add(first)
    curved: dict[str, Mapping[int, Run]] = {}
    if (folder / PROBED).is_dir():
        measured = {found.header["run"]: found for found in record.find(folder / PROBED)}
        curved = {row: runs_of(settings, chosen.seeds, measured)[0] for row, settings in probed(chosen).rows.items()}
    choices = tuning.chosen(folder / "tuning")
    return Found(name, {row: runs for row, runs in rows.items() if runs}, diverged, choices, curved)


def _rule(row: str) -> str | None:
    """Return the rule of a row of joint training."""
    _, joint, rule = row.removesuffix("-sgd").partition("-joint-")
    return rule if joint else None


def runs_of(
    settings: Settings, seeds: Sequence[int], records: Mapping[str, record.Record]
) -> tuple[dict[int, Run], int]:
    """Return the finished runs of a row by seed, and how many diverged."""
    named = {seed: records.get(cell(settings, seed).run_name()) for seed in seeds}
    done = {seed: finished([found], selection.load("best_validation"))[0] for seed, found in named.items() if found}
    diverged = sum(
        one is not None and one.end is not None and one.end["status"] == "diverged" for one in named.values()
    )
    return {seed: runs[0] for seed, runs in done.items() if runs}, diverged


def accuracy(run: Run) -> float:
    """Test accuracy at the selected epoch, in percent."""
    return 100 * run.measures["score"]


def validation(run: Run) -> float:
    """Validation accuracy at the selected epoch, in percent."""
    return 100 * run.measures["valid_score"]


def tau(run: Run) -> float:
    """The gap between training and test accuracy over the latter (Eq. 1)."""
    return run.measures["tau"]


def roughness(run: Run) -> float:
    """Mean second difference of the validation accuracy over epochs, absolute, in points: 0 for a straight line."""
    curve = [100 * epoch["valid"]["accuracy"] for epoch in run.record.epochs]
    return fmean(abs(a - 2 * b + c) for a, b, c in zip(curve, curve[1:], curve[2:], strict=False))


def eigenvalue(run: Run) -> float:
    """Largest eigenvalue of the Hessian of the training loss at the last weights."""
    return number(next(iter(_curvature(run).get("eigenvalues", [])), None))


def eigenvalue_per_loss(run: Run) -> float:
    """The same over that loss: where a loss is nearly 0, so is its curvature, whatever the minimum is like."""
    loss = number(_curvature(run).get("loss"))
    return eigenvalue(run) / loss if loss else math.nan


def of_fast(run: Run) -> float:
    """Test accuracy of the fast modality alone, the other absent, in percent."""
    return _alone(run, FAST)


def of_slow(run: Run) -> float:
    """Test accuracy of the slow modality alone, the other absent, in percent."""
    return _alone(run, SLOW)


def dominance(run: Run, epoch: int | None = None) -> float:
    """Training samples of which the fast modality has the largest share, in percent; after an epoch, or mean over all."""
    name = _named(run, FAST)
    lines = run.record.epochs if epoch is None else [line for line in run.record.epochs if line["epoch"] == epoch]
    if name is None or not lines:
        return math.nan
    return 100 * fmean(line["train"]["modalities"][name]["dominance"] for line in lines)


def _curvature(run: Run) -> Mapping[str, Any]:
    return next((line for line in reversed(run.record.probes) if line.get("probe") == "curvature"), {})


def _alone(run: Run, place: float) -> float:
    name = _named(run, place)
    return math.nan if name is None else 100 * run.measures[f"zeroed.{name}"]


def _named(run: Run, place: float) -> str | None:
    facts = run.record.header["data"].get("facts", {})
    dealt = {name: facts.get(f"dealt/{name}", DIGITS.get(name)) for name in run.modalities}
    return next((name for name, found in dealt.items() if found == place), None)
