"""What to try: rules from the numbers, each silent where it has no ground.

A rule says something of a modality (or a pair) only if the whole of an interval lies beyond its threshold. Thresholds were
chosen on dial worlds in which nothing is wrong, so that none speaks there; they are fractions and nats. Accuracy stands
for the measure of the task, be it of classes or labels, or R².
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from msam.diagnosis.result import Advice, Diagnosis, Estimate, Modality

MARGIN = 0.05
"""Accuracy by which an interval must lie beyond what it is compared with; half of it between classifiers of features,
one and a half times it where equal modalities differ by the chance of training."""

LIKELIHOOD = 0.05
"""Nats per sample by which an interaction must be above 0."""

KNOWING = 0.2
"""Accuracy above chance with which a modality surely tells something."""

Rule = Callable[[Diagnosis], Iterator[Advice]]


def under_trained(found: Diagnosis) -> Iterator[Advice]:
    """An encoder could learn more by itself: `encoder_gap` and `encoder_lag` beyond 0.025.

    What all modalities lack alike is no imbalance, and mostly the price of training them together. Needs `unimodal`. OGM-GE
    and AGM go by probabilities, which a regression has not.
    """
    for name, gap in _lagging(found, "encoder", MARGIN / 2, MARGIN / 2):
        mine = found.modalities[name]
        assert mine.probe is not None
        assert mine.unimodal is not None
        yield Advice(
            "under_trained",
            name,
            f"The encoder of {name} is under-trained: a probe on its features reaches {_percent(mine.probe)}, "
            f"trained on by itself it reaches {_percent(mine.unimodal)} (difference {_interval(gap)} of {found.measure}).",
            f"Let {name} learn: train its encoder by itself first, give it a higher learning rate (mslr), or slow the "
            f"others ({'mses' if found.task == 'regression' else 'ogm_ge, agm, mses'}).",
        )


def unused(found: Diagnosis) -> Iterator[Advice]:
    """The features tell more than the model uses: `fusion_gap` beyond 0.05, `fusion_lag` beyond 0.075.

    Silent where the encoder itself is under-trained: that comes first. Needs probes.
    """
    first = {advice.modality for advice in under_trained(found)}
    for name, gap in _lagging(found, "fusion", MARGIN, 1.5 * MARGIN):
        mine = found.modalities[name]
        assert mine.probe is not None
        if name not in first:
            yield Advice(
                "unused",
                name,
                f"The model does not use what the encoder of {name} knows: a probe on its features reaches "
                f"{_percent(mine.probe)}, the model makes {_percent(mine.in_model)} of it (difference {_interval(gap)} of "
                f"{found.measure}).",
                f"Have the fusion use it: train with {_others(found, name)} dropped now and then (modality_dropout), or "
                "with a head of its own for each modality (mmpareto, gblending).",
            )


def brittle(found: Diagnosis) -> Iterator[Advice]:
    """Without one modality the model only guesses (chance + 0.05 at most), though another could tell (chance + 0.2)."""
    for name, mine in found.modalities.items():
        at_most = found.accuracy.value - mine.missing_accuracy.low
        able = [n for n, other in found.modalities.items() if n != name and _reach(other) > found.chance + KNOWING]
        if able and at_most < found.chance + MARGIN:
            yield Advice(
                "brittle",
                name,
                f"Without {name} the model only guesses ({found.measure} {100 * at_most:.0f} % at most), though "
                f"{', '.join(able)} could tell.",
                f"If {name} may be missing, train with modality_dropout.",
            )


def harmful(found: Diagnosis) -> Iterator[Advice]:
    """The model is better without a modality: its absence costs less than -0.025 of accuracy, and of likelihood below 0."""
    for name, mine in found.modalities.items():
        if mine.missing_accuracy.high < -MARGIN / 2 and mine.missing_likelihood.high < 0:
            yield Advice(
                "harmful",
                name,
                f"The model is better without {name}: {found.measure} rises by {_interval(mine.missing_accuracy, -1)}.",
                f"Look at the data of {name} on these samples (are they prepared as in training?), regularise its encoder, "
                "or leave it out.",
            )


def empty(found: Diagnosis) -> Iterator[Advice]:
    """A modality tells nothing: probe and encoder by itself are at chance (+ 0.05), and its absence costs nothing (0.025).

    Needs probes, and room above chance: where a guess has more than 0.8, what a modality tells can be too little to show.
    """
    for name, mine in found.modalities.items() if found.chance + KNOWING <= 1 else ():
        reach = [e.high for e in (mine.probe, mine.unimodal) if e is not None]
        cost = max(abs(mine.missing_accuracy.low), abs(mine.missing_accuracy.high))
        if reach and max(reach) < found.chance + MARGIN and cost < MARGIN / 2:
            yield Advice(
                "empty",
                name,
                f"Neither the model nor a probe finds anything in {name} ({found.measure} of a probe "
                f"{_percent(mine.probe)}, of a guess {100 * found.chance:.0f} %).",
                f"Look at its data: is it aligned with the samples, scaled, not constant? If so, {name} may be left out.",
            )


def misled(found: Diagnosis) -> Iterator[Advice]:
    """A disturbed modality does more harm than a missing one, by 0.05 in accuracy."""
    for name, mine in found.modalities.items():
        if mine.noisy_accuracy.low - max(mine.missing_accuracy.high, 0.0) > MARGIN:
            yield Advice(
                "misled",
                name,
                f"A disturbed {name} is worse than none: it costs {_interval(mine.noisy_accuracy)} of {found.measure}, "
                f"its absence {_interval(mine.missing_accuracy)}.",
                f"Train with such noise on {name}, and where it can be told that it is bad, pass it as absent.",
            )


def together(found: Diagnosis) -> Iterator[Advice]:
    """Two modalities tell more together than apart: their interaction above 0.05, both in accuracy and in nats.

    Of a regression without `offset`, whose nats are half of it.
    """
    for pair in found.pairs:
        a, b = pair.modalities
        low, high = pair.accuracy.low - pair.offset, pair.accuracy.high - pair.offset
        if low - 2 * pair.accuracy.error > MARGIN and pair.likelihood.low - pair.offset / 2 > LIKELIHOOD:
            yield Advice(
                "together",
                None,
                f"{a} and {b} tell more together than apart (interaction {_points(low, high)} of {found.measure}).",
                f"A low {found.measure} of one alone is no fault here: do not balance or drop modalities by what each does "
                "alone, and expect much to be lost where either is missing.",
            )


RULES: Mapping[str, Rule] = {
    rule.__name__: rule for rule in (under_trained, unused, brittle, harmful, empty, misled, together)
}
"""Rules by name, in the order in which they speak."""


def advised(found: Diagnosis) -> Diagnosis:
    """Return the diagnosis with what all rules say."""
    return replace(found, advice=tuple(advice for rule in RULES.values() for advice in rule(found)))


def _lagging(found: Diagnosis, part: str, margin: float, beyond: float) -> Iterator[tuple[str, Estimate]]:
    """Yield the modalities whose gap is beyond a margin, and its lag beyond a margin of its own."""
    for name, one in found.modalities.items():
        gap, lag = getattr(one, f"{part}_gap"), getattr(one, f"{part}_lag")
        if gap is not None and lag is not None and gap.low > margin and lag.low > beyond:
            yield name, gap


def _reach(one: Modality) -> float:
    """Return the lower end of what a modality surely could tell."""
    return max(e.low for e in (one.unimodal, one.probe, one.in_model) if e is not None)


def _others(found: Diagnosis, name: str) -> str:
    others = [other for other in found.modalities if other != name]
    return " or ".join(others) if others else "inputs"


def _percent(estimate: Estimate | None) -> str:
    return "unknown" if estimate is None else f"{100 * estimate.value:.0f} %"


def _interval(estimate: Estimate, sign: int = 1) -> str:
    return _points(*sorted((sign * estimate.low, sign * estimate.high)))


def _points(low: float, high: float) -> str:
    return f"{100 * low:.0f} to {100 * high:.0f} points"
