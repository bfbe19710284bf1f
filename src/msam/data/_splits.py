"""Samples held out of others: by class, by groups, the same on every machine."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence
from fractions import Fraction

from msam import checks

DRAWS = 64
"""Random draws of whole groups, of which the one with the best balance of classes is taken."""


def stratified(
    labels: Sequence[int], fraction: float, seed: int, groups: Sequence[Hashable] | None = None
) -> list[int]:
    """Return the numbers of the samples to hold out, ascending; the others stay.

    Without groups, `round(fraction * n)` samples are held out, and of every class its share, rounded up or down so that the
    sum is right (largest remainders first). With groups, whole groups are: of 64 random draws that come as near to
    `fraction * n` samples as that draw can, the one whose classes are nearest to their shares.

    Which ones is decided by sha256 of seed and place alone: no random number generator, no platform, no version.

    Arguments:
        labels: class of every sample.
        fraction: how much to hold out, in (0, 1).
        seed: of the draw.
        groups: what must not be torn (the actor of every sample, say).

    Raises:
        ValueError: if the fraction is out of range, or nothing would be held out or stay.

    >>> stratified([0, 0, 0, 0, 1, 1, 1, 1], 0.25, seed=0)
    [0, 6]
    >>> stratified([0, 1, 0, 1, 0, 1], 1 / 3, seed=0, groups="aabbcc")
    [2, 3]
    """
    checks.in_range("fraction", fraction, checks.Range(gt=0, lt=1))
    if groups is not None and len(groups) != len(labels):
        raise ValueError(f"`groups` must name the group of each of {len(labels)} samples, received {len(groups)}.")
    labels = [int(label) for label in labels]
    held = _by_class(labels, fraction, seed) if groups is None else _by_group(labels, fraction, seed, list(groups))
    if not held or len(held) == len(labels):
        what = f"{len(labels)} samples" if groups is None else f"{len(set(groups))} groups of {len(labels)} samples"
        raise ValueError(f"A part of {fraction:g} of {what} must leave some on both sides, found {len(held)} held out.")
    return held


def order(size: int, seed: int, *stream: object) -> list[int]:
    """Return the numbers below `size` in an order that looks random: by sha256 of seed, stream and number.

    >>> order(4, seed=0)
    [3, 2, 0, 1]
    """
    return sorted(range(size), key=lambda n: hashlib.sha256(repr((int(seed), *stream, n)).encode()).digest())


def _by_class(labels: Sequence[int], fraction: float, seed: int) -> list[int]:
    quotas = _quotas(Counter(labels), fraction)
    held = []
    for label, quota in quotas.items():
        members = [sample for sample, of in enumerate(labels) if of == label]
        held += [members[place] for place in order(len(members), seed, "class", label)[:quota]]
    return sorted(held)


def _quotas(counts: Counter[int], fraction: float) -> dict[int, int]:
    """Return how many of each class: whole numbers next to their shares, with the right sum.

    >>> _quotas(Counter({0: 5, 1: 5, 2: 5}), 0.3)
    {0: 2, 1: 1, 2: 1}
    """
    exact = Fraction(fraction).limit_denominator(10**9)
    shares = {label: exact * counts[label] for label in sorted(counts)}
    quotas = {label: int(share) for label, share in shares.items()}
    lacking = round(exact * counts.total()) - sum(quotas.values())
    for label in sorted(shares, key=lambda one: (quotas[one] - shares[one], one))[:lacking]:
        quotas[label] += 1
    return quotas


def _by_group(labels: Sequence[int], fraction: float, seed: int, groups: Sequence[Hashable]) -> list[int]:
    names = list(dict.fromkeys(groups))
    content = {name: Counter[int]() for name in names}
    for label, name in zip(labels, groups, strict=True):
        content[name][label] += 1
    draws = [_draw(names, content, fraction * len(labels), seed, number) for number in range(DRAWS)]
    whole = Counter(labels)

    def distance(chosen: set[Hashable]) -> float:
        there = sum((content[name] for name in chosen), Counter[int]())
        return sum((there[label] - fraction * count) ** 2 for label, count in whole.items())

    chosen = min(draws, key=distance)
    return [sample for sample, name in enumerate(groups) if name in chosen]


def _draw(
    names: Sequence[Hashable], content: dict[Hashable, Counter[int]], wanted: float, seed: int, number: int
) -> set[Hashable]:
    """Return groups in random order as long as each brings the number of samples nearer to what is wanted."""
    chosen: set[Hashable] = set()
    size = 0
    for place in order(len(names), seed, "draw", number)[:-1]:
        more = content[names[place]].total()
        if chosen and abs(size + more - wanted) >= abs(size - wanted):
            break
        chosen.add(names[place])
        size += more
    return chosen
