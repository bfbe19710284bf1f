"""Worths and interactions are what their definitions say; drawn ones are unbiased, with an honest standard error."""

from itertools import combinations
from math import factorial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msam import shapley
from msam.diagnosis._game import _exact, game


def values_of(sets, modalities, seed=0):
    table = np.random.default_rng(seed).normal(size=2**modalities)
    return np.array([table[sum(1 << m for m in members)] for members in sets])


@given(st.integers(1, 5), st.integers(0, 99))
def test_worths_are_shapley_values_of_what_is_gained_over_nothing(modalities, seed):
    played = game(modalities)
    values = values_of(played.coalitions, modalities, seed)
    expected = shapley.shapley_values(torch.from_numpy(values[1:] - values[0]))
    assert np.allclose(played.worths @ values, expected)
    assert np.isclose((played.worths @ values).sum(), values[-1] - values[0])


@given(st.integers(2, 5), st.integers(0, 99))
def test_interactions_are_those_of_grabisch_and_roubens(modalities, seed):
    played = game(modalities)
    values = values_of(played.coalitions, modalities, seed)
    v = dict(zip(played.coalitions, values, strict=True))

    def of(members):
        return v[tuple(sorted(members))]

    for (i, j), found in zip(played.pairs, played.interactions @ values, strict=True):
        others = [m for m in range(modalities) if m not in (i, j)]
        total = 0.0
        for size in range(len(others) + 1):
            weight = factorial(size) * factorial(modalities - size - 2) / factorial(modalities - 1)
            for s in combinations(others, size):
                total += weight * (of((*s, i, j)) - of((*s, i)) - of((*s, j)) + of(s))
        assert np.isclose(found, total)


def test_who_tells_nothing_has_nothing():
    """The second of three modalities changes no value: worth and interactions are 0, whatever nothing itself is worth."""
    played = game(3)
    rng = np.random.default_rng(0)
    table = {s: rng.normal() for s in ((), (0,), (2,), (0, 2))}
    values = np.array([table[tuple(m for m in s if m != 1)] for s in played.coalitions])
    assert abs((played.worths @ values)[1]) < 1e-12
    interactions = dict(zip(played.pairs, played.interactions @ values, strict=True))
    assert abs(interactions[0, 1]) < 1e-12
    assert abs(interactions[1, 2]) < 1e-12


def test_of_exact_ones_no_error_comes_from_drawing():
    played = game(4)
    values = values_of(played.coalitions, 4)
    assert not played.worth_error(values).any()
    assert not played.interaction_error(values).any()


def test_above_six_modalities_orders_are_drawn():
    assert len(game(6).coalitions) == 2**6
    assert game(6).permutations == 0
    drawn = game(8, permutations=8)
    assert drawn.permutations == 8
    assert len(drawn.coalitions) < 2**8
    assert drawn.coalitions[0] == ()
    assert drawn.coalitions[-1] == tuple(range(8))
    with pytest.raises(ValueError, match="even"):
        game(8, permutations=5)


def test_drawn_worths_add_up_and_lie_within_their_error():
    whole, seeds = _exact(7), range(25)
    true = values_of(whole.coalitions, 7)
    off, errors = {"worths": [], "interactions": []}, {"worths": [], "interactions": []}
    for seed in seeds:
        drawn = game(7, permutations=100, seed=seed)
        values = values_of(drawn.coalitions, 7)
        assert np.isclose((drawn.worths @ values).sum(), values[-1] - values[0])
        off["worths"].append(drawn.worths @ values - whole.worths @ true)
        errors["worths"].append(drawn.worth_error(values))
        off["interactions"].append(drawn.interactions @ values - whole.interactions @ true)
        errors["interactions"].append(drawn.interaction_error(values))
    for kind in off:
        misses, error = np.stack(off[kind]), np.stack(errors[kind])
        bias = misses.mean(0) / (np.sqrt((error**2).mean(0)) / len(seeds) ** 0.5)
        assert (np.abs(bias) < 3.5).all(), "unbiased"
        assert 0.9 < (np.abs(misses) < 2 * error).mean() < 0.99, "about 95 % lie within two errors"
