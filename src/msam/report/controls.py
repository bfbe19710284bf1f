"""The controls of M-SAM: which rows of a block are some, of which row, and which are missing."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from msam.report import labels, stats
from msam.report.rows import Block, Row

Kind = Literal["twice", "smaller", "constant", "ensemble"]
WHAT: dict[Kind, str] = {
    "twice": "the method without a rule for twice the epochs",
    "smaller": "SAM at rho times the mean share",
    "constant": "the blend with the mean share held constant",
    "ensemble": "the sum of the unimodal nets",
}
WHY: dict[Kind, str] = {
    "twice": "what the second pass costs, spent on steps",
    "smaller": "M-SAM's radius, to first order",
    "constant": "the same rule without Shapley values",
    "ensemble": "nets that share nothing",
}
KINDS: tuple[Kind, ...] = tuple(WHAT)

SHAPLEY = "contribution"
"""What M-SAM's `share` is where it is not held constant."""

TOLERANCE = 0.02
"""Largest relative distance from what a control should be: shares are rounded when it is set up."""


@dataclass(frozen=True)
class Control:
    """A row that is a control: the label of the row, of which row, and of which kind."""

    label: str
    of: str
    kind: Kind


def guarded(block: Block) -> list[Row]:
    """Return the rows that need controls: M-SAM with the share that Shapley values give."""
    return [row for row in block.rows if row.sharpness == "msam" and _rule(row).get("share", "contribution") == SHAPLEY]


def of(block: Block, row: Row, kind: Kind) -> list[Row]:
    """Return the rows of the block that are controls of a kind of an M-SAM row."""
    is_one = {"twice": _twice, "smaller": _smaller, "constant": _constant, "ensemble": _ensemble}[kind]
    return [other for other in block.rows if other is not row and is_one(row, other)]


def found(block: Block) -> list[Control]:
    """Return every control in the block, of every M-SAM row."""
    return [
        Control(other.label, row.label, kind)
        for row in guarded(block)
        for kind in KINDS
        for other in of(block, row, kind)
    ]


def marked(block: Block) -> Block:
    """Return the block with its controls called so in their labels."""
    mine = {control.label for control in found(block)}
    rows = (replace(row, label=f"{row.label}, control") if row.label in mine else row for row in block.rows)
    return replace(block, rows=tuple(rows))


def line(block: Block) -> str:
    """Return what stands under the table of a marked block: which row is a control of which, and why."""
    by_kind: dict[tuple[str, Kind], list[str]] = {}
    for control in found(block):
        by_kind.setdefault((control.label, control.kind), []).append(control.of)
    words = [f"{label} of {_listed(of)}: {WHAT[kind]} ({WHY[kind]})" for (label, kind), of in by_kind.items()]
    return f"Controls: {'; '.join(words)}." if words else ""


def missing(block: Block, row: Row) -> str:
    """Return the controls that an M-SAM row stands without, in words; empty where it has all."""
    return _listed([_wanted(row, kind) for kind in wanted(row) if not of(block, row, kind)])


def notes(champions: Iterable[tuple[Block, Row]]) -> list[str]:
    """Return a note on every M-SAM row that stands without a control; one for all blocks in which the same are missing."""
    where: dict[tuple[str, str], list[str]] = {}
    for block, row in champions:
        where.setdefault((row.label, missing(block, row)), []).append(block.title)
    return [
        f"{'; '.join(titles)}: {label} stands here without controls: {lacking}. `msam bench run RECIPE` adds them to the "
        "recipe's grid."
        for (label, lacking), titles in where.items()
        if lacking
    ]


def wanted(row: Row) -> Iterator[Kind]:
    """Yield the kinds of controls that an M-SAM row needs.

    A constant share is the same rule only where the share is one number that weighs the loss of the batch; an ensemble is
    the control of joint training.
    """
    rule = _rule(row)
    yield from ("twice", "smaller")
    if rule.get("weighting", "batch") == "batch" and rule.get("loss", "weighted") == "weighted":
        yield "constant"
    if row.method == "joint":
        yield "ensemble"


def _twice(row: Row, other: Row) -> bool:
    return _plain(row, other, method=row.method) and _length(other) == 2 * _length(row)


def _ensemble(row: Row, other: Row) -> bool:
    return _plain(row, other, method="ensemble") and _length(other) == _length(row)


def _plain(row: Row, other: Row, *, method: str) -> bool:
    """A method without a rule; with the same optimizer, whose learning rate may have been tuned for it."""
    same = other.config["optimizer"]["name"] == row.config["optimizer"]["name"]
    return other.sharpness is None and other.method == method and same


def _smaller(row: Row, other: Row) -> bool:
    if other.sharpness != "sam" or not _alike(row, other):
        return False
    rho = _number(_rule(row).get("rho"))
    return _near(_rule(other).get("rho"), rho if _rule(row).get("compensate") else share(row) * rho)


def _constant(row: Row, other: Row) -> bool:
    key = {"gnp": "alpha", "msam": "share"}.get(other.sharpness or "")
    if key is None or not _alike(row, other) or _rule(other).get("rho") != _rule(row).get("rho"):
        return False
    return _near(_rule(other).get(key), share(row))


def share(row: Row) -> float:
    """Return the mean share of a row's steps, over its seeds; NaN where it is not recorded."""
    return stats.summary(row.values("share")).mean


def _alike(row: Row, other: Row) -> bool:
    return row.setting == other.setting and row.config["method"] == other.config["method"]


def _wanted(row: Row, kind: Kind) -> str:
    s, rho = share(row), _number(_rule(row).get("rho"))
    settings = {
        "twice": f"{labels.of_run({**row.config, 'sharpness': None})}, {2 * _length(row)} epochs",
        "smaller": "" if math.isnan(s * rho) else f"rho={s * rho:.3g}",
        "constant": "" if math.isnan(s) else f"share={s:.2f}",
        "ensemble": "",
    }[kind]
    return f"{WHAT[kind]} ({settings})" if settings else WHAT[kind]


def _rule(row: Row) -> dict[str, Any]:
    return dict(row.config.get("sharpness") or {})


def _length(row: Row) -> int:
    return int(row.config.get("epochs", 0))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _near(value: Any, target: float) -> bool:
    return abs(_number(value) - target) <= TOLERANCE * abs(target)


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
