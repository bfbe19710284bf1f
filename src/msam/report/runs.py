"""Runs as the report sees them: a record and the one epoch at which it is reported."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from msam import record
from msam.record import WORLDS, Record
from msam.report import measures
from msam.report.measures import Task
from msam.selection import Selection, score, without_auxiliary

BOOK_KEEPING = ("record_every", "checkpoint_every", "threads", "probes")
"""Fields of a configuration that decide how a run is watched, not what it is."""

PLACES = ("root", "file")
"""Settings of data that say where they lie, not what they are."""

KINDS = ("zeroed", "shapley", "head")
"""Kinds of the deciding measure of a single modality: others absent; its Shapley logits; its own head."""


@dataclass(frozen=True)
class Run:
    """A finished run and the position of its selected epoch."""

    record: Record
    chosen: int

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the run."""
        return self.record.config

    @property
    def name(self) -> str:
        """The run's name, or its file's where it has none."""
        return str(self.record.header.get("run") or self.record.path.stem)

    @property
    def task(self) -> Task:
        """What was asked; records before there were several tasks are of classes."""
        return measures.task(self.record.header.get("task", measures.CLASSES.name))

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities of the model, in order."""
        return list(self.record.header["modalities"])

    @property
    def epoch(self) -> dict[str, Any]:
        """The line of the selected epoch."""
        return self.record.epochs[self.chosen]

    @property
    def world(self) -> bool:
        """Whether the data are a world, drawn anew from their seed."""
        return self.config["data"]["name"] in WORLDS

    @property
    def seed(self) -> tuple[int, ...]:
        """What tells replications of one row apart: the seed, and the world's where the data are a world."""
        config = self.config
        return (config.get("seed", 0), *((config["data"].get("seed", 0),) if self.world else ()))

    @property
    def data(self) -> dict[str, Any]:
        """The data's settings without where they lie, without their task and, of a world, without its seed."""
        left = (*PLACES, "task", *(("seed",) if self.world else ()))
        return {key: value for key, value in self.config["data"].items() if key not in left}

    @property
    def place(self) -> str:
        """Where the data lay, empty where the settings do not say."""
        return next((str(self.config["data"][key]) for key in PLACES if self.config["data"].get(key)), "")

    @property
    def same_data(self) -> tuple[str, str, str]:
        """What is equal for runs on the same data: settings, task and, but for worlds, the fingerprint."""
        content = "" if self.world else self.record.header["data"].get("fingerprint") or self.place
        return repr(sorted(self.data.items())), self.task.name, content

    @property
    def stacked(self) -> bool:
        """Whether it was trained beside others as one: the time of its steps is not what one of them takes alone."""
        return bool(self.record.header.get("host", {}).get("lanes", 1) > 1)

    @cached_property
    def measures(self) -> dict[str, float]:
        """Every number of the tables by key, NaN where it is not known; accuracies, F1 and shares in [0, 1].

        `score` is the measure that decides, `valid_score` the same on validation; those of the task have their names in the
        record beside it.
        """
        test, end = self.epoch["test"], self.record.end or {}
        found = {
            "score": score(test),
            "valid_score": score(self.epoch["valid"]),
            **{key: number(test.get(key)) for key in self.task.keys},
            "nll": number(test.get("nll")),
            "tau": tau(self.epoch),
            "share": self._of_steps("share"),
            "passes": number(end.get("passes_per_step")),
            "milliseconds": math.nan if self.stacked else 1000 * number(end.get("seconds_per_step")),
        }
        for name in self.modalities:
            metrics = test.get("modalities", {}).get(name, {})
            found |= {f"{kind}.{name}": number(metrics.get(kind)) for kind in KINDS}
            found[f"dominance.{name}"] = self._dominance(name)
        return found

    def _of_steps(self, key: str) -> float:
        """The mean of what the steps say, in lines of their own or in those of the epochs."""
        lines = self.record.steps or [epoch.get("means", {}) for epoch in self.record.epochs]
        return mean(line.get(key) for line in lines)

    def _dominance(self, modality: str) -> float:
        """The share of steps in which a modality dominates; without steps, of training samples, epoch by epoch."""
        steps = [step["dominant"] for step in self.record.steps if step.get("dominant") is not None]
        if steps:
            return mean(float(dominant == modality) for dominant in steps)
        told = [epoch.get("means", {}).get("dominance", {}).get(modality) for epoch in self.record.epochs]
        measured = [
            epoch["train"].get("modalities", {}).get(modality, {}).get("dominance") for epoch in self.record.epochs
        ]
        return mean(told) if any(value is not None for value in told) else mean(measured)

    def probed(self, probe: str) -> list[dict[str, Any]]:
        """Return the lines of a probe, in order."""
        return [line for line in self.record.probes if line.get("probe") == probe]

    @property
    def diverged(self) -> bool:
        """Whether a loss of the run was not finite."""
        return diverged(self.record)


def tau(epoch: dict[str, Any]) -> float:
    """Return the normalised overfitting gap |acc_train - acc_test| / acc_test of an epoch line, in [0, inf).

    Eq. 1 of the paper bounds it by 1, which does not hold (train 1, test 0.4 gives 1.5): it is not clamped.
    NaN where the test accuracy is 0, and where there is none: it is not defined for R², which may be 0 or below.

    >>> tau({"train": {"accuracy": 1.0}, "test": {"accuracy": 0.25}})
    3.0
    """
    train, test = (number(epoch[split].get("accuracy")) for split in ("train", "test"))
    return abs(train - test) / test if test else math.nan


def diverged(found: Record) -> bool:
    """Tell whether a loss in the record is not finite."""
    return any(not math.isfinite(number(line.get("loss"))) for line in (*found.steps, *found.epochs))


def finished(records: Iterable[Record], selection: Selection) -> tuple[list[Run], list[Record]]:
    """Return the finished runs, each at its selected epoch, and the records that are not finished."""
    runs, unfinished = [], []
    for found in map(without_auxiliary, records):
        if found.end is None or found.end.get("status", "finished") != "finished" or not found.epochs:
            unfinished.append(found)
        else:
            runs.append(Run(found, selection.choose([epoch["valid"] for epoch in found.epochs])))
    return runs, unfinished


def check_same_data(runs: Sequence[Run]) -> None:
    """Check that equal data configurations meant equal data.

    Raises:
        ValueError: naming two records whose data carry the same name and settings but another fingerprint.
    """
    first: dict[str, Run] = {}
    for run in runs:
        before = first.setdefault(repr(sorted(run.config["data"].items())), run)
        ours, theirs = (r.record.header["data"].get("fingerprint") for r in (run, before))
        if ours != theirs:
            raise ValueError(
                f"{before.record.path} and {run.record.path} name the same data ({run.config['data']['name']}, same "
                f"settings) but their fingerprints differ, {theirs!s:.12} and {ours!s:.12}: the data changed between "
                "them. Report them apart."
            )


def without_repeats(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Return the runs without repetitions, and a note for each that was left out.

    Raises:
        ValueError: naming two records with one configuration and one seed but different results.
    """
    kept: dict[str, Run] = {}
    notes = []
    for run in runs:
        settings = {key: value for key, value in run.config.items() if key not in ("data", *BOOK_KEEPING)}
        before = kept.setdefault(repr((sorted(settings.items()), run.same_data, run.seed)), run)
        if before is run:
            continue
        lines = [record.without_volatile(r.record.epochs) for r in (before, run)]
        if repr(lines[0]) != repr(lines[1]):
            raise ValueError(
                f"{before.record.path} and {run.record.path} have the same configuration and seed but different "
                "results. Report one of them, or find out what changed (versions, threads, host)."
            )
        notes.append(f"{run.record.path} repeats {before.record.path} and was counted once.")
    return list(kept.values()), notes


def number(value: float | None) -> float:
    """Return `value`, NaN for None."""
    return math.nan if value is None else float(value)


def mean(values: Iterable[float | None]) -> float:
    """Return the mean of the finite values, NaN when there is none."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan
