"""The findings of a diagnosis as tables and charts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from msam.report.charts import Chart, Dots, Panel, modality_colours
from msam.report.table import NONE, Column, Estimate, Table, Value

Found = Mapping[str, Any]
"""A diagnosis as its JSON file has it."""

INTERVALS = "Intervals are 95 % BCa bootstraps over samples."
REACH = {
    "zeroed": "others absent",
    "shapley": "Shapley logits",
    "head": "own part",
    "probe": "probe",
    "unimodal": "by itself",
}
MOST = 24
"""Classes that a chart shows, at most; the table has them all."""


def tables(found: Found) -> list[Table]:
    """Return who contributes, what each modality could do, what is lost and how sharp it is, and interactions."""
    names = list(found["modalities"])
    made = [
        _table("Who carries the predictions", found, _CONTRIBUTIONS, _contributed(found)),
        _table("What each modality can do, accuracy (%)", found, _ABLE, _able(found)),
        _table("What is lost, and how sharp it is", found, _LOST, _lost(found)),
    ]
    return [*made, _pairs(found)] if len(names) > 1 else made


def by_class(found: Found) -> Table:
    """Return the shares of modalities and their accuracy in the model within every class."""
    of = found["modalities"]
    fields = [Column("class"), Column("rows", "whole"), Column("accuracy (%)", "estimate", scale=100, digits=1)]
    for name in of:
        fields.append(Column("share (%)", "estimate", scale=100, digits=1, group=name))
        fields.append(Column("in the model (%)", "estimate", scale=100, digits=1, group=name))
    rows = []
    for c, (label, count) in enumerate(zip(found["classes"], found["counts"], strict=True)):
        row: list[Value] = [label, count, estimate(found["accuracy"]["by_class"][c])]
        for one in of.values():
            row += [estimate(one[key]["by_class"][c]) for key in ("likelihood_share", "in_model")]
        rows.append(tuple(row))
    caption = f"Shares are of the log-likelihood of the class. {INTERVALS}"
    return Table("Within each class", tuple(fields), tuple(rows), caption)


def charts(found: Found) -> list[Chart]:
    """Return the pictures: contributions, what each could do, what is lost, interactions, classes, sharpness."""
    made = [_shares(found), _reaches(found), _losses(found)]
    if len(found["modalities"]) > 1:
        made.append(_interactions(found))
    if 1 < len(found["classes"]) <= MOST:
        made.append(_classes(found))
    if any(one["sharpness"] for one in found["modalities"].values()):
        made.append(_sharpness(found))
    return made


def estimate(value: Mapping[str, Any] | None) -> Estimate:
    """Return a number of the file with its interval; NaN where there is none."""
    if value is None:
        return Estimate(math.nan)
    return Estimate(*(math.nan if value[key] is None else float(value[key]) for key in ("value", "low", "high")))


def _column(title: str, scale: float = 100, digits: int = 1, rank: int = 0, signed: bool = False) -> Column:
    return Column(title, "estimate", scale=scale, digits=digits, rank=rank, signed=signed)


_CONTRIBUTIONS = (
    Column("modality"),
    _column("share of likelihood (%)"),
    _column("likelihood (nats)", 1, 3, rank=3),
    _column("share of accuracy (%)", rank=1),
    _column("accuracy (points)", rank=4, signed=True),
    _column("dominates samples (%)", rank=2),
    _column("dominates batches (%)", rank=5),
)
_ABLE = (
    Column("modality"),
    _column("best in the model"),
    *(_column(words, rank=rank) for words, rank in zip(REACH.values(), (4, 3, 5, 1, 2), strict=True)),
    _column("under-training", signed=True),
)
_LOST = (
    Column("modality"),
    _column("missing (points)", signed=True),
    _column("missing (nats)", 1, 3, rank=4),
    _column("disturbed (points)", signed=True, rank=1),
    _column("disturbed (nats)", 1, 3, rank=5),
    Column("disturbance", rank=6),
    Column("sharpness", "estimate", rank=2),
    Column("largest eigenvalue", "number", digits=3, rank=3),
)


def _table(title: str, found: Found, fields: Sequence[Column], rows: Iterator[tuple[Value, ...]]) -> Table:
    return Table(title, tuple(fields), tuple(rows), f"{found['samples']} samples. {INTERVALS}")


def _contributed(found: Found) -> Iterator[tuple[Value, ...]]:
    keys = ("likelihood_share", "likelihood", "accuracy_share", "accuracy", "dominance", "batch_dominance")
    for name, one in found["modalities"].items():
        yield (name, *(estimate(one[key]) for key in keys))


def _able(found: Found) -> Iterator[tuple[Value, ...]]:
    for name, one in found["modalities"].items():
        yield (name, *(estimate(one[key]) for key in ("in_model", *REACH, "gap")))


def _lost(found: Found) -> Iterator[tuple[Value, ...]]:
    keys = ("missing_accuracy", "missing_likelihood", "noisy_accuracy", "noisy_likelihood")
    for name, one in found["modalities"].items():
        known = one["eigenvalue"]
        sharp = Estimate(*(float(f"{value:.3g}") for value in estimate(one["sharpness"])))
        yield (name, *(estimate(one[key]) for key in keys), one["noise"], sharp, math.nan if known is None else known)


def _pairs(found: Found) -> Table:
    fields = (
        Column("modalities"),
        _column("accuracy (points)", signed=True),
        _column("likelihood (nats)", 1, 3, signed=True),
        Column("reading of accuracy"),
    )
    rows: list[tuple[Value, ...]] = [
        (" and ".join(pair["modalities"]), estimate(pair["accuracy"]), estimate(pair["likelihood"]), _read(pair))
        for pair in found["pairs"]
    ]
    caption = (
        f"Shapley interactions: below 0 two modalities tell the same, above 0 more together than apart. {INTERVALS}"
    )
    return Table("Interactions", fields, tuple(rows), caption)


def _read(pair: Mapping[str, Any]) -> str:
    low, high = (estimate(pair["accuracy"])[k] for k in (1, 2))
    if not (math.isfinite(low) and math.isfinite(high)):
        return NONE
    return "redundancy" if high < 0 else "synergy" if low > 0 else "none shown"


def _dots(label: str, colour: str, value: Mapping[str, Any] | None, scale: float = 100) -> Dots:
    mean, low, high = (scale * number for number in estimate(value))
    return Dots(label, colour, np.zeros(0), (), mean, low, high)


def _lanes(found: Found, key: str, scale: float = 100) -> list[Dots]:
    colours = modality_colours(list(found["modalities"]))
    return [_dots(name, colours[name], one[key], scale) for name, one in found["modalities"].items() if one[key]]


def _panel(title: str, unit: str, lanes: Sequence[Dots], *, zero: bool = True, row: str = "") -> Panel:
    return Panel(title, unit, "", tuple(lanes), zero=zero, row=row)


def _shares(found: Found) -> Chart:
    panels = (
        _panel("share of the log-likelihood", "%", _lanes(found, "likelihood_share")),
        _panel("share of the accuracy", "%", _lanes(found, "accuracy_share")),
        _panel("samples it dominates", "%", _lanes(found, "dominance")),
    )
    return Chart("contributions", "Who carries the predictions", INTERVALS, panels)


def _reaches(found: Found) -> Chart:
    colours = modality_colours(list(found["modalities"]))
    panels = tuple(
        _panel(
            name,
            "accuracy (%)",
            [_dots(REACH[k], colours[name], one[k]) for k in REACH if one[k]],
            zero=False,
            row=name,
        )
        for name, one in found["modalities"].items()
    )
    caption = (
        "Three kinds of its accuracy in the model; a probe on its frozen features; its encoder trained on by itself. "
        f"{INTERVALS}"
    )
    return Chart("reach", "What each modality can do", caption, panels)


def _losses(found: Found) -> Chart:
    noise = found["settings"]["noise"]
    panels = (
        _panel("it is missing", "accuracy lost, points", _lanes(found, "missing_accuracy")),
        _panel("it is disturbed", "accuracy lost, points", _lanes(found, "noisy_accuracy")),
    )
    caption = (
        f"Disturbed: numbers by normal noise of {noise:g} of their standard deviations, tokens by those of another sample. "
        f"{INTERVALS}"
    )
    return Chart("lost", "What is lost where", caption, panels, columns=2)


def _interactions(found: Found) -> Chart:
    def lanes(key: str, scale: float) -> list[Dots]:
        return [_dots(" + ".join(pair["modalities"]), "#7F7F7F", pair[key], scale) for pair in found["pairs"]]

    panels = (
        _panel("accuracy", "points", lanes("accuracy", 100)),
        _panel("log-likelihood", "nats", lanes("likelihood", 1)),
    )
    return Chart("pairs", "Redundancy (below 0) and synergy (above 0)", INTERVALS, panels, columns=2)


def _classes(found: Found) -> Chart:
    colours = modality_colours(list(found["modalities"]))
    panels = tuple(
        _panel(
            name,
            "share of the class's log-likelihood, %",
            [
                _dots(str(label), colours[name], value)
                for label, value in zip(found["classes"], one["likelihood_share"]["by_class"], strict=True)
                if value["value"] is not None
            ],
            row=name,
        )
        for name, one in found["modalities"].items()
    )
    return Chart("classes", "Who carries each class", INTERVALS, panels)


def _sharpness(found: Found) -> Chart:
    rho = found["settings"]["rho"]
    panel = _panel("within each encoder", "rise of the loss, nats", _lanes(found, "sharpness", 1))
    caption = (
        f"The rise of the loss by one step of ascent of length {rho:g} within the encoder's parameters. It is not "
        "invariant under scaling of layers: compare encoders of one kind. Intervals hold the step fixed."
    )
    return Chart("sharpness", "Sharpness", caption, (panel,), columns=1)
