"""Shapley values the slow way: averages over every order in which the modalities can join, in float64."""

from itertools import permutations
from math import exp, log

import torch
from torch import Tensor


def values(worth: dict[frozenset[int], Tensor], num_modalities: int) -> Tensor:
    """Return `(M, *S)` from the worth of every non-empty set; the empty set is worth 0."""
    orders = list(permutations(range(num_modalities)))
    example = next(iter(worth.values()))
    total = torch.zeros(num_modalities, *example.shape, dtype=torch.float64)
    for order in orders:
        so_far: frozenset[int] = frozenset()
        before = torch.zeros_like(example)
        for m in order:
            so_far = so_far | {m}
            total[m] += worth[so_far] - before
            before = worth[so_far]
    return total / len(orders)


def by_set(rows: Tensor) -> dict[frozenset[int], Tensor]:
    """Read rows in bitmask order 1 .. 2**M - 1 as a dictionary of sets."""
    return {
        frozenset(i for i in range(12) if mask >> i & 1): rows[mask - 1].double() for mask in range(1, len(rows) + 1)
    }


def contributions(logits: Tensor, target: Tensor, value: str) -> Tensor:
    """Return the share of every modality for one batch, each value function written out."""
    num_modalities = (len(logits) + 1).bit_length() - 1
    logits = logits.double()

    def p(row: Tensor, b: int) -> float:
        return float(torch.softmax(row[b], 0)[target[b]])

    samples = range(len(target))
    if value in ("probability", "accuracy"):

        def score(row: Tensor) -> float:
            if value == "probability":
                return sum(p(row, b) for b in samples) / len(target)
            return sum(int(row[b].argmax()) == int(target[b]) for b in samples) / len(target)

        game = {s: torch.tensor(score(row), dtype=torch.float64) for s, row in by_set(logits).items()}
        worth = values(game, num_modalities)
    else:
        phi = values(by_set(logits), num_modalities)
        scores = {
            "response": lambda row: sum(p(row, b) for b in samples) / len(target),
            "likelihood": lambda row: exp(sum(log(p(row, b)) for b in samples) / len(target)),
            "logit": lambda row: sum(float(row[b][target[b]]) for b in samples) / len(target),
        }
        worth = torch.tensor([scores[value](row) for row in phi], dtype=torch.float64)
    worth = worth.clamp_min(0)
    return worth / worth.sum() if worth.sum() > 0 else torch.full((num_modalities,), 1 / num_modalities).double()
