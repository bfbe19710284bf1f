"""The tables of the paper, made from records: accuracy by fusion (Tables 1 and 2), gain over Joint and overfitting gap."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from msam.report import best, gains, pairs, stats, theirs
from msam.report.best import Best
from msam.report.datasets import dataset_of
from msam.report.rows import Block, Row
from msam.report.runs import KINDS
from msam.report.table import Column, Estimate, Table, Value

Lines = Mapping[str, Row]
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
    columns = [Column("Row", keys=("row",))]
    places: list[tuple[int, str]] = []
    for i, block in enumerate(blocks):
        head = dataset_of(block)
        columns.append(Column("", "whole", (f"{head}: seeds",), shown=False, group=head))
        places.append((i, "seeds"))
        for modality in (*block.modalities, ""):
            columns.append(_accuracy(modality, f"{head}: {f'{kind}.{modality}' if modality else 'accuracy'}", head))
            places.append((i, modality))
            if any((place.dataset, place.modality) == (_data(block), modality) for place in printed):
                columns.append(_theirs(modality, f"{head}: theirs{f', {modality}' if modality else ''}", head))
                places.append((i, f"theirs {modality}"))
    columns += [
        Column("Passes/step", "number", ("passes",), short="Passes", rank=2, digits=2),
        Column("Time (× Joint)", "number", ("time over Joint",), short="× Joint", rank=1, digits=2),
    ]

    def value(name: str, i: int, what: str) -> Value:
        row, data = lines[i].get(name), _data(blocks[i])
        if what == "seeds":
            return len(row.runs) if row else 0
        if what.startswith("theirs "):
            return printed.get(theirs.Place(fusion, name, data, what.removeprefix("theirs ")), math.nan)
        return _estimate(row.values(_measure(row, what, kind))) if row else Estimate(math.nan)

    found = [best.of({n: row for n, row in line.items() if row.method != "unimodal"}) for line in lines]
    marks: dict[tuple[int, int], Literal["best", "near"]] = {}
    for i, one in enumerate(found):
        field = 1 + places.index((i, ""))
        marks |= {(names.index(name), field): "near" for name in one.alike}
        marks |= {(names.index(one.top), field): "best"} if one.top else {}
    return Table(
        _title(fusion),
        tuple(columns),
        tuple((name, *(value(name, *place) for place in places), *_cost(name, lines)) for name in names),
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
        yield _estimate(gains.relative(row, joint)) if row and joint and row is not joint else unknown
        yield _estimate(row.values("tau")) if row else unknown

    names = _names(lines)
    caption = (
        "Gain: 100 · (test accuracy − that of Joint) / that of Joint (Eq. 21), seed by seed, and the mean; the paper "
        "divides means. τ = |training accuracy − test accuracy| / test accuracy (Eq. 1) at the selected epoch, not "
        "clamped. "
        f"In brackets: {_interval()}"
    )
    values = tuple((name, *(cell for line in lines for cell in cells(name, line))) for name in names)
    return Table("Gain over Joint, and overfitting gap", tuple(columns), values, caption)


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


def _estimate(values: Sequence[float]) -> Estimate:
    mean = stats.summary(values).mean
    ends = stats.interval(np.asarray(values, dtype=float)) if math.isfinite(mean) else (math.nan, math.nan)
    return Estimate(mean, *ends)


def _accuracy(modality: str, key: str, group: str) -> Column:
    title = f"Acc {modality} (%)" if modality else "Acc (%)"
    keys = (f"{key} mean", f"{key} low", f"{key} high")
    return Column(title, "estimate", keys, scale=100, digits=1, rank=4 if modality else 0, group=group)


def _theirs(modality: str, key: str, group: str) -> Column:
    title = f"Acc {modality}, theirs (%)" if modality else "Acc, theirs (%)"
    return Column(title, "number", (key,), scale=100, digits=2, rank=5 if modality else 3, group=group)


def _cost(name: str, lines: Sequence[Lines]) -> tuple[float, float]:
    """Passes per step and time over that of Joint, averaged over the datasets that have both."""
    rows = [(line[name], line.get("Joint")) for line in lines if name in line]
    if not rows:
        return math.nan, math.nan
    passes = math.fsum(_mean(row, "passes") for row, _ in rows) / len(rows)
    ratios = [_mean(row, "milliseconds") / _mean(joint, "milliseconds") for row, joint in rows if joint]
    known = bool(ratios) and all(ratio > 0 for ratio in ratios)
    return passes, math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if known else math.nan


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
