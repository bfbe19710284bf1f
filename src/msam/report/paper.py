"""The tables of the paper, made from records: accuracy by fusion (Tables 1 and 2), gain over Joint and overfitting gap."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from msam.report import best, gains, measures, pairs, stats, theirs
from msam.report.best import Best
from msam.report.datasets import dataset_of
from msam.report.rows import Block, Row
from msam.report.runs import KINDS
from msam.report.table import Column, Estimate, Table, Value

Lines = Mapping[str, Row]
Field = tuple[Column, Callable[[str], Value]]
Marks = dict[tuple[int, int], Literal["best", "near"]]

TOGETHER = "Acc (%)"
"""Head of the column of all modalities together."""

WORDS = {
    "head": "by its own head or its part of the logits (as AGM's code, which the paper follows, has it for late fusion)",
    "shapley": "by its Shapley logits (as AGM's code, which the paper follows, has it for early fusion)",
    "zeroed": "with the features of all others zero",
}


def fusions(blocks: Sequence[Block]) -> dict[str, list[Block]]:
    """Return the blocks by the name of their fusion; blocks of unimodal models alone belong to none."""
    found: dict[str, list[Block]] = {}
    for block in blocks:
        fusion = block.rows[-1].config.get("fusion")
        if fusion and block.multimodal:
            found.setdefault(fusion["name"], []).append(block)
    return found


def left_out(blocks: Sequence[Block]) -> list[str]:
    """Return a note on the blocks that the paper's tables leave out: those without an accuracy."""
    titles = [block.title for block in blocks if not block.task.rated]
    return [
        f"The paper's tables are of accuracies; a regression has none and is left out: {'; '.join(titles)}."
    ] * bool(titles)


def accuracy(fusion: str, blocks: Sequence[Block], *, beside: bool = False) -> Table:
    """Return accuracies, all modalities together and each alone, of every row on every dataset of one fusion, and the cost.

    A row is a method and a rule; where a dataset has several of one name, the best on validation stands there. The paper
    prints one number each and sets the highest in bold; here every number has its interval, and the mark is what
    the comparisons support (`best.of`).

    Arguments:
        fusion: name of the fusion.
        blocks: its blocks, one per dataset.
        beside: whether the paper's own numbers stand beside ours, marked as theirs.
    """
    lines = [_lines(block) for block in blocks]
    printed = theirs.accuracies(fusion) if beside else {}
    printed = {place: value for place, value in printed.items() if place.dataset in map(_data, blocks)}
    kind = _kind(lines)
    names = _names([*lines, {place.row: None for place in printed}])
    fields: list[Field] = [(Column("Row", keys=("row",)), str)]
    found, marks = [], Marks()
    for block, line in zip(blocks, lines, strict=True):
        fields += _fields(block, line, kind, printed)
        found.append(best.of({name: row for name, row in line.items() if row.method != "unimodal"}))
        marks |= _marks(found[-1], names, [column.title for column, _ in fields])
    fields += [
        (
            Column("Passes/step", "number", ("passes",), short="Passes", rank=2, digits=2),
            lambda name: _passes(name, lines),
        ),
        (
            Column("Time (× Joint)", "number", ("time over Joint",), short="× Joint", rank=1, digits=2),
            lambda name: _time(name, lines),
        ),
    ]
    return Table(
        _title(fusion),
        tuple(column for column, _ in fields),
        tuple(tuple(value(name) for _, value in fields) for name in names),
        " ".join(_words(kind, blocks, found, printed=bool(printed), beside=beside)),
        marks=marks,
    )


def gain(blocks: Sequence[Block]) -> Table:
    """Return the relative gain over Joint (Eq. 21, Figure 7) and the overfitting gap (Eq. 1, Figure 2) of every row."""
    lines = [{name: row for name, row in _lines(block).items() if row.method != "unimodal"} for block in blocks]
    columns = [Column("Row", keys=("row",))]
    for block in blocks:
        key = (f"{block.title}: gain", f"{block.title}: gain low", f"{block.title}: gain high")
        gap = tuple(f"{block.title}: tau{end}" for end in ("", " low", " high"))
        columns.append(Column("Gain (%)", "estimate", key, digits=1, signed=True, group=block.title))
        columns.append(Column("τ", "estimate", gap, digits=3, rank=1, group=block.title))

    def cells(name: str, line: Lines) -> Iterator[Value]:
        row, joint = line.get(name), line.get("Joint")
        unknown = Estimate(math.nan)
        yield Estimate(*stats.estimate(gains.relative(row, joint))) if row and joint and row is not joint else unknown
        yield Estimate(*stats.estimate(row.values("tau"))) if row else unknown

    names = _names(lines)
    caption = (
        "Gain: 100 · (test accuracy − that of Joint) / that of Joint (Eq. 21), seed by seed, and the mean; the paper "
        "divides means. τ = |training accuracy − test accuracy| / test accuracy (Eq. 1) at the selected epoch, not "
        "clamped. "
        f"In brackets: {_interval()}"
    )
    values = tuple((name, *(cell for line in lines for cell in cells(name, line))) for name in names)
    return Table("Gain over Joint, and overfitting gap", tuple(columns), values, caption)


def _fields(block: Block, line: Lines, kind: str, printed: Mapping[theirs.Place, float]) -> Iterator[Field]:
    """The columns of a block: seeds, the accuracy of each modality and of all together, and theirs where there is one."""
    head, data = dataset_of(block), _data(block)
    yield (
        Column("", "whole", (f"{head}: seeds",), shown=False, group=head),
        lambda name: len(line[name].runs) if name in line else 0,
    )
    for modality in (*block.modalities, ""):
        key = f"{head}: {f'{kind}.{modality}' if modality else 'accuracy'}"
        yield _accuracy(modality, key, head), partial(_estimate, line, modality, kind)
        there = {place.row: v for place, v in printed.items() if (place.dataset, place.modality) == (data, modality)}
        if there:
            key = f"{head}: theirs{f', {modality}' if modality else ''}"
            yield _theirs(modality, key, head), partial(_printed, there)


def _marks(found: Best, names: Sequence[str], titles: Sequence[str]) -> Marks:
    """The marks of a block, in the last of its columns so far that has the accuracy of all modalities together."""
    field = max(i for i, title in enumerate(titles) if title == TOGETHER)
    marks: Marks = {(names.index(name), field): "near" for name in found.alike}
    return marks | ({(names.index(found.top), field): "best"} if found.top else {})


def _lines(block: Block) -> dict[str, Row]:
    """The row that stands for each name, unimodal models first."""
    alone = {row.label: row for row in block.rows if row.method == "unimodal"}
    return {**alone, **pairs.standing(block)}


def _names(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of all rows in their order, models of one modality first."""
    names = dict.fromkeys(name for line in lines for name in line)
    return sorted(names, key=lambda name: not name.startswith("Unimodal "))


def _kind(lines: Sequence[Lines]) -> str:
    """The kind of single-modality accuracy that all rows have, as the paper has it where they do."""
    rows = [row for line in lines for row in line.values() if row.method != "unimodal"]
    for kind in ("head", "shapley"):
        measures = [row.values(f"{kind}.{name}") for row in rows for name in row.runs[0].modalities]
        if measures and np.isfinite(np.concatenate(measures)).all():
            return kind
    return KINDS[0]


def _measure(row: Row, modality: str, kind: str) -> str:
    """The measure of a cell; a model of one modality has its accuracy in that modality's column, and none in the last."""
    if row.method != "unimodal":
        return f"{kind}.{modality}" if modality else "accuracy"
    return "accuracy" if row.has(modality) else "none"


def _estimate(line: Lines, modality: str, kind: str, name: str) -> Estimate:
    row = line.get(name)
    return Estimate(*stats.estimate(row.values(_measure(row, modality, kind)))) if row else Estimate(math.nan)


def _printed(there: Mapping[str, float], name: str) -> float:
    return there.get(name, math.nan)


def _accuracy(modality: str, key: str, group: str) -> Column:
    title = f"Acc {modality} (%)" if modality else TOGETHER
    keys = (f"{key} mean", f"{key} low", f"{key} high")
    return Column(title, "estimate", keys, scale=100, digits=1, rank=4 if modality else 0, group=group)


def _theirs(modality: str, key: str, group: str) -> Column:
    title = f"Acc {modality}, theirs (%)" if modality else "Acc, theirs (%)"
    return Column(title, "number", (key,), scale=100, digits=2, rank=5 if modality else 3, group=group)


def _passes(name: str, lines: Sequence[Lines]) -> float:
    """Passes per step, averaged over the datasets that have the row."""
    return stats.summary([_mean(line[name], "passes") for line in lines if name in line]).mean


def _time(name: str, lines: Sequence[Lines]) -> float:
    """Time per step over that of Joint: the geometric mean over the datasets that have both."""
    both = [(line[name], line["Joint"]) for line in lines if name in line and "Joint" in line]
    ratios = [_mean(row, "milliseconds") / _mean(joint, "milliseconds") for row, joint in both]
    known = bool(ratios) and all(ratio > 0 for ratio in ratios)
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if known else math.nan


def _mean(row: Row, key: str) -> float:
    return stats.summary(row.values(key)).mean


def _data(block: Block) -> str:
    return str(block.rows[-1].config["data"]["name"])


def _title(fusion: str) -> str:
    number = theirs.TABLES.get(fusion)
    return f"{fusion.capitalize()} fusion{f', as in Table {number} of the paper' if number else ''}"


def _words(kind: str, blocks: Sequence[Block], found: Sequence[Best], *, printed: bool, beside: bool) -> Iterator[str]:
    """The sentences of the caption."""
    yield f"Test accuracy. Acc: all modalities together; of one modality, {WORDS[kind]}. In brackets: {_interval()}"
    labels = [dataset_of(block) for block in blocks if block.task is not measures.CLASSES]
    if labels:
        yield f"Acc of {', '.join(labels)}: {measures.LABELS.measured}."
    yield _marks_in_words(blocks, found)
    yield (
        "Cost: backward passes per step and time per step over that of Joint, as recorded"
        f"{', averaged over datasets' if len(blocks) > 1 else ''}."
    )
    if printed:
        yield theirs.NOTE
    elif beside:
        yield f"The paper has no numbers for {'; '.join(block.title for block in blocks)}."


def _marks_in_words(blocks: Sequence[Block], found: Sequence[Best]) -> str:
    words = []
    if any(one.top for one in found):
        words.append(
            "Bold: the highest mean; †: not shown to be below any other row, by paired permutation tests with Holm's "
            "correction over the comparisons of a row; the truly best row is among the two kinds in at least 95 % of such "
            "tables. Single modalities carry no marks: they were not tested."
        )
    dull = [(block, one) for block, one in zip(blocks, found, strict=True) if not one.top]
    for possible, why in ((True, "no row is told apart from the best"), (False, "too few seeds to tell any row apart")):
        titles = [dataset_of(block) for block, one in dull if one.possible is possible]
        words += [f"{', '.join(titles)}: {why}; nothing is marked."] if titles else []
    return " ".join(words)


def _interval() -> str:
    return "95 % BCa bootstrap interval of the mean over seeds; it covers less with few (docs/statistics.md)."
