"""Blocks and rows: runs that may be compared, and runs that differ in nothing but their seeds."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from msam.report import labels
from msam.report.measures import Task
from msam.report.runs import BOOK_KEEPING, Run

Item = TypeVar("Item")

NO_SETTINGS = ("seed", "data", "fusion", *BOOK_KEEPING)
"""Fields that do not tell rows of one block apart: what makes the block, replications, and book-keeping."""


@dataclass(frozen=True)
class Row:
    """One row of a table: the runs of one configuration over seeds, ordered by seed."""

    label: str
    name: str
    runs: tuple[Run, ...]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, that of the first run."""
        return self.runs[0].config

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.config["method"]["name"])

    @property
    def sharpness(self) -> str | None:
        """Name of the sharpness rule, or None."""
        rule = self.config.get("sharpness")
        return rule["name"] if rule else None

    @property
    def setting(self) -> str:
        """Everything but data, method, sharpness rule and seed: what a fair comparison holds fixed."""
        rest = settings(self.config)
        return repr(sorted((k, v) for k, v in rest.items() if not k.startswith(("method.", "sharpness"))))

    def values(self, key: str) -> list[float]:
        """Return one measure of every run; NaN where a run does not have it."""
        return [run.measures.get(key, float("nan")) for run in self.runs]

    def has(self, modality: str) -> bool:
        """Whether the row's model takes `modality`."""
        return modality in self.runs[0].modalities


@dataclass(frozen=True)
class Block:
    """Rows on the same data with the same fusion: what may be compared.

    Attributes:
        title: the dataset and the fusion, with settings where other blocks share both names.
        modalities: names of all modalities, in order.
        rows: the rows, unimodal models first, then Joint, methods, sharpness rules, and both together.
    """

    title: str
    modalities: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def task(self) -> Task:
        """What was asked in all runs of the block."""
        return self.rows[0].runs[0].task

    @property
    def runs(self) -> list[Run]:
        """All runs of the block."""
        return [run for row in self.rows for run in row.runs]

    @property
    def multimodal(self) -> list[Row]:
        """The rows with more than one modality."""
        return [row for row in self.rows if len(row.runs[0].modalities) > 1]


def blocks(runs: Sequence[Run]) -> list[Block]:
    """Group runs into blocks of rows.

    A block is a dataset with its settings, its task and a fusion; a row is a configuration but for its seeds. A unimodal
    run without fusion joins every block of its data. Equal data in two places are the same.
    """
    data = _grouped(runs, lambda run: run.same_data)
    parts: list[list[Run]] = []
    for members in data.values():
        fusions = _grouped(members, lambda run: _key(run.config.get("fusion")))
        everywhere = fusions.pop(_key(None), []) if len(fusions) > 1 else []
        parts += [everywhere + part for part in fusions.values()]
    titles = _titles([part[-1] for part in parts])
    return [Block(title, _modalities(part), tuple(_rows(part))) for title, part in zip(titles, parts, strict=True)]


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return what tells the rows of a block apart, as one level of dotted keys."""
    return labels.flatten({key: value for key, value in config.items() if key not in NO_SETTINGS})


def _rows(runs: Sequence[Run]) -> list[Row]:
    groups = [
        tuple(sorted(group, key=lambda run: run.seed))
        for group in _grouped(runs, lambda run: _key(settings(run.config))).values()
    ]
    names = [labels.of_run(group[0].config) for group in groups]
    distinct = labels.distinct(names, [settings(group[0].config) for group in groups])
    rows = [Row(*found) for found in zip(distinct, names, groups, strict=True)]
    return sorted(rows, key=_order)


def _order(row: Row) -> tuple[int, str]:
    if row.method in ("unimodal", "joint"):
        rank = {("unimodal", None): 0, ("joint", None): 1, ("joint", "msam"): 4}.get((row.method, row.sharpness), 3)
    else:
        rank = 5 if row.sharpness else 2
    return rank, row.label


def _modalities(runs: Iterable[Run]) -> tuple[str, ...]:
    widest_first = sorted(runs, key=lambda run: -len(run.modalities))
    return tuple(dict.fromkeys(name for run in widest_first for name in run.modalities))


def _titles(runs: Sequence[Run]) -> list[str]:
    """A title for each block's run: settings only where names do not suffice, and places only where settings do not."""
    titles = [_title(run) for run in runs]
    configs = [{"data": run.data, "task": run.task.name, "fusion": run.config.get("fusion")} for run in runs]
    for alike in _grouped(range(len(runs)), lambda i: (titles[i], repr(configs[i]))).values():
        if len(alike) > 1:
            for i, end in zip(alike, labels.ends([runs[i].place for i in alike]), strict=True):
                configs[i] = {**configs[i], "in": end}
    return labels.distinct(titles, configs)


def _title(run: Run) -> str:
    fusion = run.config.get("fusion")
    return run.config["data"]["name"] + (f", {fusion['name']} fusion" if fusion else "")


def _key(value: Any) -> str:
    return repr(sorted(labels.flatten(value).items())) if isinstance(value, dict) else repr(value)


def _grouped(items: Iterable[Item], key: Callable[[Item], Hashable]) -> dict[Hashable, list[Item]]:
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
