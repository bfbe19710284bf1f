"""Which coalitions are asked for, and what follows from their values: worths of modalities, interactions of pairs.

All are linear in the values, so that they hold for every sample, every class and every resample alike.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from msam import checks, shapley
from msam.shapley._values import orders

Array = np.ndarray
Coalition = tuple[int, ...]
EXACT = 6
"""Modalities up to which all coalitions are asked for."""


@dataclass(frozen=True)
class Game:
    """A set of coalitions, the empty one first and the full one last, and the maps from their values.

    Attributes:
        modalities: M.
        coalitions: K of them, as positions of modalities.
        worths: `(M, K)`; `worths @ values` are the Shapley values of `v(S) - v(empty)`.
        pairs: the pairs of modalities.
        interactions: `(P, K)`; of each pair the mean of `v(S + ij) - v(S + i) - v(S + j) + v(S)` over the coalitions S of
            the others, as Shapley weighs them (Grabisch and Roubens 1999).
        permutations: orders that were drawn, 0 where all coalitions are there.
        seed: of the orders.
        walked: for each pair its own rows, `(n, K)`, of which the interactions are the mean; empty where it is exact.
    """

    modalities: int
    coalitions: tuple[Coalition, ...]
    worths: Array
    pairs: tuple[tuple[int, int], ...]
    interactions: Array
    permutations: int = 0
    seed: int = 0
    walked: tuple[Array, ...] = ()

    @property
    def place(self) -> dict[Coalition, int]:
        """Coalition -> its place."""
        return {members: k for k, members in enumerate(self.coalitions)}

    def worth_error(self, values: Array) -> Array:
        """Return the standard errors `(M, ...)` of worths that come from drawing orders; zeros where it is exact.

        Arguments:
            values: `(K, ...)`, means over samples.
        """
        if not self.permutations:
            return np.zeros((self.modalities, *values.shape[1:]))
        place, known = self.place, torch.from_numpy(values - values[:1])
        drawn = shapley.sampled_shapley_values(
            lambda members: known[place[members]], self.modalities, permutations=self.permutations, seed=self.seed
        )
        return drawn.standard_error.numpy()

    def interaction_error(self, values: Array) -> Array:
        """Return the standard errors `(P, ...)` of interactions; zeros where it is exact, NaN where it was drawn once."""
        if not self.permutations:
            return np.zeros((len(self.pairs), *values.shape[1:]))
        return np.stack([_standard_error(rows @ values) for rows in self.walked])


def game(modalities: int, permutations: int = 32, seed: int = 0) -> Game:
    """Return all `2**M` coalitions for up to 6 modalities, else those that random orders of them meet.

    Raises:
        ValueError: if `permutations` is odd or below 4 and M above 6.

    >>> game(2).coalitions
    ((), (0,), (1,), (0, 1))
    >>> game(2).worths @ [0.1, 0.5, 0.3, 1.0]
    array([0.55, 0.35])
    >>> game(2).interactions @ [0.1, 0.5, 0.3, 1.0]
    array([0.3])
    """
    return _exact(modalities) if modalities <= EXACT else _sampled(modalities, permutations, seed)


def _exact(modalities: int) -> Game:
    coalitions = ((), *shapley.coalitions(modalities))
    place = {members: k for k, members in enumerate(coalitions)}
    own = shapley.shapley_values(torch.eye(len(coalitions) - 1, dtype=torch.float64)).numpy()
    pairs = tuple(combinations(range(modalities), 2))
    rows = np.zeros((len(pairs), len(coalitions)))
    for row, (i, j) in zip(rows, pairs, strict=True):
        for members in coalitions:
            if i not in members and j not in members:
                weight = 1 / ((modalities - 1) * math.comb(modalities - 2, len(members)))
                row += weight * _interaction(place, members, i, j)
    return Game(modalities, coalitions, np.hstack([-own.sum(1, keepdims=True), own]), pairs, rows)


def _sampled(modalities: int, permutations: int, seed: int) -> Game:
    checks.in_range("permutations", permutations, checks.Range(ge=4))
    if permutations % 2:
        raise ValueError(f"`permutations` must be even (each order is walked both ways), received {permutations}.")
    whole = tuple(range(modalities))
    walks = [walk for order in orders(modalities, permutations // 2, seed) for walk in (order, order[::-1])]
    met: dict[Coalition, None] = dict.fromkeys([(), *((m,) for m in whole)])
    met |= dict.fromkeys(tuple(m for m in whole if m != left) for left in whole)
    for walk in walks:
        for size in range(1, modalities):
            met[tuple(sorted(walk[:size]))] = None
            met[tuple(sorted([*walk[: size - 1], walk[size]]))] = None
    coalitions = (*sorted((s for s in met if s != whole), key=lambda s: (len(s), s)), whole)
    place = {members: k for k, members in enumerate(coalitions)}
    unit = torch.eye(len(coalitions), dtype=torch.float64)
    worths = shapley.sampled_shapley_values(
        lambda members: unit[place[members]] - unit[0], modalities, permutations=permutations, seed=seed
    )
    pairs = tuple(combinations(whole, 2))
    walked: dict[tuple[int, int], list[Array]] = {pair: [] for pair in pairs}
    for walk in walks:
        for at in range(modalities - 1):  # neighbours: what stands before them is a coalition drawn as it should be
            i, j = sorted(walk[at : at + 2])
            walked[i, j].append(_interaction(place, tuple(sorted(walk[:at])), i, j))
    rows = tuple(np.stack(found) if found else np.full((1, len(coalitions)), np.nan) for found in walked.values())
    means = np.stack([found.mean(0) for found in rows])
    return Game(modalities, coalitions, worths.values.numpy(), pairs, means, permutations, seed, rows)


def _interaction(place: dict[Coalition, int], members: Coalition, i: int, j: int) -> Array:
    """Return the row that takes `v(S + ij) - v(S + i) - v(S + j) + v(S)` from the values."""
    row = np.zeros(len(place))
    for more, sign in (((i, j), 1.0), ((i,), -1.0), ((j,), -1.0), ((), 1.0)):
        row[place[tuple(sorted((*members, *more)))]] += sign
    return row


def _standard_error(drawn: Array) -> Array:
    if len(drawn) < 2:
        return np.full(drawn.shape[1:], np.nan)
    error: Array = drawn.std(0, ddof=1) / math.sqrt(len(drawn))
    return error
