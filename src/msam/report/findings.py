"""The findings of a diagnosis as tables and charts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

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


class Words(NamedTuple):
    """What things are called in a task: a class, what the best guess is, whose probability counts, Shapley logits as
    answers, the probe, the loss with its unit, and what else must be said."""

    one: str
    many: str
    guess: str
    right: str
    answer: str
    probe: str
    loss: str
    more: str = ""


WORDS: Mapping[str, Words] = {
    "single-label": Words(
        "class",
        "classes",
        "by the most frequent class",
        "the right class",
        "the class with the largest Shapley value of the modality",
        "multinomial logistic regression",
        "loss, nats",
    ),
    "multi-label": Words(
        "label",
        "labels",
        "by the more frequent answer to each label",
        "the right answers",
        "labels whose Shapley value of the modality is above 0",
        "a logistic regression for each label",
        "loss, nats",
        "Label accuracy is the share of labels that are told right; it and the log-likelihood are means over labels, the "
        "probability of the right answers is their geometric mean. “Within a label” is over the rows that have it.",
    ),
    "regression": Words(
        "",
        "",
        "by the mean of the targets",
        "the target",
        "the Shapley values of the modality",
        "ridge regression",
        "squared error",
        "R² is 1 − the squared errors / the squared differences from the mean, both summed over samples and numbers; the "
        "log-likelihood is that of a normal distribution with the variance of the targets, its constant left out. Both "
        "follow from the squared error, so that contributions to both are the same but for their scale. Intervals hold the "
        "variance fixed.",
    ),
}
MOST = 24
"""Classes that a chart shows, at most; the table has them all."""


def tables(found: Found) -> list[Table]:
    """Return who contributes, what each modality could do, what is lost and how sharp it is, and interactions."""
    names = list(found["modalities"])
    made = [
        _table("Who carries the predictions", found, _contributions(found["measure"]), _contributed(found)),
        _table(f"What each modality can do, {found['measure']} (%)", found, _ABLE, _able(found)),
        _table("What is lost, and how sharp it is", found, _LOST, _lost(found)),
    ]
    return [*made, _pairs(found)] if len(names) > 1 else made


def by_class(found: Found) -> Table | None:
    """Return the shares of modalities and their accuracy in the model within every class or label, where there are any."""
    of, one = found["modalities"], WORDS[found["task"]].one
    if not found["classes"]:
        return None
    fields = [Column(one), Column("rows", "whole"), _column(f"{found['measure']} (%)")]
    for name in of:
        fields.append(Column("share (%)", "estimate", scale=100, digits=1, group=name))
        fields.append(Column("in the model (%)", "estimate", scale=100, digits=1, group=name))
    rows = []
    for c, (label, count) in enumerate(zip(found["classes"], found["counts"], strict=True)):
        row: list[Value] = [label, count, estimate(found["accuracy"]["by_class"][c])]
        for its in of.values():
            row += [estimate(its[key]["by_class"][c]) for key in ("likelihood_share", "in_model")]
        rows.append(tuple(row))
    caption = f"Shares are of the log-likelihood within the {one}. {INTERVALS}"
    return Table(f"Within each {one}", tuple(fields), tuple(rows), caption)


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


def _contributions(measure: str) -> tuple[Column, ...]:
    return (
        Column("modality"),
        _column("share of likelihood (%)"),
        _column("likelihood (nats)", 1, 3, rank=3),
        _column(f"share of {measure} (%)", rank=1),
        _column(f"{measure} (points)", rank=4, signed=True),
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
    numbers = found["task"] == "regression"
    fields = (
        Column("modalities"),
        _column(f"{found['measure']} (points)", signed=True),
        _column("likelihood (nats)", 1, 3, rank=2, signed=True),
        Column("offset (points)", "number", scale=100, digits=1, rank=1, signed=True, shown=numbers),
        Column(f"reading of {found['measure']}"),
    )
    rows: list[tuple[Value, ...]] = [
        (" and ".join(p["modalities"]), estimate(p["accuracy"]), estimate(p["likelihood"]), p["offset"], _read(p))
        for p in found["pairs"]
    ]
    caption = (
        f"Shapley interactions: below 0 two modalities tell the same, above 0 more together than apart. {INTERVALS}"
    )
    if numbers:
        caption += " Offset: what of R² is of answers that are off on average, which the reading leaves out."
    return Table("Interactions", fields, tuple(rows), caption)


def _read(pair: Mapping[str, Any]) -> str:
    low, high = (estimate(pair["accuracy"])[k] - pair["offset"] for k in (1, 2))
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
        _panel(f"share of the {found['measure']}", "%", _lanes(found, "accuracy_share")),
        _panel("samples it dominates", "%", _lanes(found, "dominance")),
    )
    return Chart("contributions", "Who carries the predictions", INTERVALS, panels)


def _reaches(found: Found) -> Chart:
    colours = modality_colours(list(found["modalities"]))
    panels = tuple(
        _panel(
            name,
            f"{found['measure']} (%)",
            [_dots(REACH[k], colours[name], one[k]) for k in REACH if one[k]],
            zero=False,
            row=name,
        )
        for name, one in found["modalities"].items()
    )
    caption = (
        f"Three kinds of its {found['measure']} in the model; a probe on its frozen features; its encoder trained on by "
        f"itself. {INTERVALS}"
    )
    return Chart("reach", "What each modality can do", caption, panels)


def _losses(found: Found) -> Chart:
    noise, lost = found["settings"]["noise"], f"{found['measure']} lost, points"
    panels = (
        _panel("it is missing", lost, _lanes(found, "missing_accuracy")),
        _panel("it is disturbed", lost, _lanes(found, "noisy_accuracy")),
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
        _panel(found["measure"], "points", lanes("accuracy", 100)),
        _panel("log-likelihood", "nats", lanes("likelihood", 1)),
    )
    return Chart("pairs", "Redundancy (below 0) and synergy (above 0)", INTERVALS, panels, columns=2)


def _classes(found: Found) -> Chart:
    one = WORDS[found["task"]].one
    colours = modality_colours(list(found["modalities"]))
    panels = tuple(
        _panel(
            name,
            f"share of the log-likelihood within the {one}, %",
            [
                _dots(str(label), colours[name], value)
                for label, value in zip(found["classes"], its["likelihood_share"]["by_class"], strict=True)
                if value["value"] is not None
            ],
            row=name,
        )
        for name, its in found["modalities"].items()
    )
    return Chart("classes", f"Who carries each {one}", INTERVALS, panels)


def _sharpness(found: Found) -> Chart:
    rho = found["settings"]["rho"]
    panel = _panel("within each encoder", f"rise of the {WORDS[found['task']].loss}", _lanes(found, "sharpness", 1))
    caption = (
        f"The rise of the loss by one step of ascent of length {rho:g} within the encoder's parameters. It is not "
        "invariant under scaling of layers: compare encoders of one kind. Intervals hold the step fixed."
    )
    return Chart("sharpness", "Sharpness", caption, (panel,), columns=1)
