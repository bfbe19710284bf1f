"""Held-out parts as a specification: exact by class, whole groups, the same everywhere."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from msam.data._splits import order, stratified

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=80)
FRACTIONS = st.floats(0.05, 0.95)
SEEDS = st.integers(0, 2**31)


def held_out(labels, fraction, seed, groups=None):
    try:
        return stratified(labels, fraction, seed, groups)
    except ValueError as error:
        assume("must leave some on both sides" not in str(error))
        raise


@given(LABELS, FRACTIONS, SEEDS)
def test_the_size_is_exact_and_every_class_has_its_share_rounded(labels, fraction, seed):
    held = held_out(labels, fraction, seed)
    assert abs(len(held) - fraction * len(labels)) <= 0.5 + 1e-6
    assert held == sorted(set(held))
    counts = Counter(labels)
    for label, count in Counter(labels[sample] for sample in held).items():
        assert abs(count - fraction * counts[label]) < 1 + 1e-6


@given(LABELS, FRACTIONS, SEEDS)
def test_it_is_a_function_of_its_arguments_whatever_their_types(labels, fraction, seed):
    held = held_out(labels, fraction, seed)
    assert stratified(np.array(labels), np.float64(fraction), np.int64(seed)) == held


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=2, max_size=80), FRACTIONS, SEEDS)
def test_no_group_crosses(pairs, fraction, seed):
    labels, groups = [label for label, _ in pairs], [group for _, group in pairs]
    assume(len(set(groups)) > 1)
    held = set(held_out(labels, fraction, seed, groups))
    inside = {groups[sample] for sample in held}
    outside = {groups[sample] for sample in range(len(labels)) if sample not in held}
    assert inside
    assert outside
    assert not inside & outside


def test_with_groups_of_one_size_the_number_of_groups_is_the_nearest():
    groups = [number // 6 for number in range(91 * 6)]
    held = stratified([number % 6 for number in range(91 * 6)], 0.2, 0, groups)
    assert len({groups[sample] for sample in held}) == 18


def test_with_groups_classes_stay_near_their_shares():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 2000).tolist()
    labels = [int((group + rng.integers(3)) % 5) for group in groups]
    for seed in range(5):
        held = stratified(labels, 0.25, seed, groups)
        counts, there = Counter(labels), Counter(labels[sample] for sample in held)
        assert all(abs(there[label] / counts[label] - 0.25) < 0.08 for label in counts)


def test_seeds_draw_others():
    labels = [0, 1] * 100
    draws = {tuple(stratified(labels, 0.1, seed)) for seed in range(20)}
    assert len(draws) == 20
    groups = [number // 10 for number in range(200)]
    assert len({tuple(stratified(labels, 0.2, seed, groups)) for seed in range(20)}) > 15


def test_every_sample_of_a_class_has_the_same_chance():
    counts = Counter(sample for seed in range(2000) for sample in stratified([0] * 10, 0.3, seed))
    assert all(abs(count - 600) < 6 * (2000 * 0.3 * 0.7) ** 0.5 for count in counts.values())


def test_golden_draws_that_no_version_may_change():
    assert order(10, 0) == [3, 2, 6, 5, 0, 9, 1, 8, 7, 4]
    assert stratified([0] * 20 + [1] * 10, 0.2, 7) == [10, 11, 16, 19, 20, 27]
    assert stratified([0, 1, 2] * 8, 0.25, 7, [f"actor {n // 3}" for n in range(24)]) == [0, 1, 2, 18, 19, 20]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_fractions_out_of_range_are_refused(fraction):
    with pytest.raises(ValueError, match="`fraction` must be > 0 and < 1"):
        stratified([0, 1, 0, 1], fraction, 0)


def test_nothing_on_one_side_is_refused():
    with pytest.raises(ValueError, match="must leave some on both sides, found 0 held out"):
        stratified([0, 1, 2], 0.1, 0)
    with pytest.raises(ValueError, match="1 groups of 3 samples"):
        stratified([0, 1, 2], 0.5, 0, ["a", "a", "a"])


def test_groups_of_another_length_are_refused():
    with pytest.raises(ValueError, match="of each of 3 samples, received 2"):
        stratified([0, 1, 2], 0.5, 0, ["a", "b"])
