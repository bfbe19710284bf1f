"""The dial: what its knobs promise, and that its posterior is exact."""

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from torch import nn

from msam import data
from msam.data import _mixture
from msam.data.dial import bayes_accuracies, dial, posterior, world
from msam.models.encoders import encoder
from msam.shapley import coalitions

SMALL: dict[str, Any] = {"train_size": 40, "valid_size": 20, "test_size": 30, "bayes_samples": 100}
SETTINGS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "weak": {"signal": (1.5, 1.0), "modes": (1, 1)},
    "synergy": {"signal": (1.0, 2.0), "synergy": 1.5},
    "synergy, odd classes": {"classes": 3, "signal": (1.0, 0.5), "synergy": 2.0},
    "groups": {"redundancy": 0.0, "signal": (2.0, 2.0)},
    "mixed codes": {"redundancy": 0.4, "signal": (2.0, 2.0), "modes": (3, 2), "synergy": 1.0},
    "three": {"modalities": 3, "redundancy": 0.5, "signal": (2.0, 1.5, 1.0), "modes": (2, 1, 3), "synergy": 2.0},
    "four": {"modalities": 4, "redundancy": 0.2, "signal": (1.5, 1.5, 1.0, 1.0), "synergy": 2.5},
}

worlds = st.builds(
    lambda modalities, **knobs: world(modalities=modalities, informative=3, dimension=6, **knobs),
    modalities=st.integers(2, 4),
    seed=st.integers(0, 2**40),
    classes=st.integers(2, 7),
    redundancy=st.floats(0, 1),
    synergy=st.floats(0, 1000),
    nuisance=st.floats(0, 1000),
)


def samples(made, size, purpose="bayes"):
    return _mixture.draw(made, size, _mixture.streams(made.seed, purpose, len(made.modalities)))


def only(inputs, group):
    return {name: x for m, (name, x) in enumerate(inputs.items()) if m in group}


# The dataset


def test_it_is_found_by_its_name():
    assert "dial" in data.names()
    assert data.load("dial") is dial


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_it_has_the_form_of_a_dataset(modalities):
    made = dial(modalities=modalities, dimension=20, **SMALL)
    assert made.name == "dial"
    assert made.modalities == tuple(f"modality_{m}" for m in range(modalities))
    assert set(made.shapes.values()) == {(20,)}
    assert dict(made.encoders) == dict.fromkeys(made.modalities, "mlp")
    assert made.num_classes == 10
    for split, size in [(made.train, 40), (made.valid, 20), (made.test, 30)]:
        batch = split[range(size)]
        assert len(split) == size
        assert batch.target.dtype == torch.int64
        assert batch.target.min() >= 0
        assert batch.target.max() < 10
        for x in batch.inputs.values():
            assert x.shape == (size, 20)
            assert x.dtype == torch.float32


def test_by_default_it_is_four_slow_modes_beside_one_clear_code():
    assert dial(**SMALL).fingerprint == dial(signal=(4.0, 3.0), modes=(4, 1), **SMALL).fingerprint
    assert [p.shape for p in world().prototypes] == [(10, 4, 10), (10, 1, 10)]


def test_lists_are_as_good_as_tuples():
    lists, tuples = dial(signal=[2.0, 1.0], modes=[1, 2], **SMALL), dial(signal=(2, 1), modes=(1, 2), **SMALL)
    assert lists.fingerprint == tuples.fingerprint


def test_a_seed_is_a_world_whatever_the_global_generators_do():
    first = dial(seed=3, **SMALL)
    torch.manual_seed(1)
    torch.rand(5)
    assert dial(seed=3, **SMALL).fingerprint == first.fingerprint
    assert dial(seed=3, **SMALL).facts == first.facts
    assert dial(seed=4, **SMALL).fingerprint != first.fingerprint
    assert not np.allclose(world(seed=3).prototypes[0], world(seed=4).prototypes[0])


def test_global_generators_are_left_alone():
    before = torch.get_rng_state()
    dial(**SMALL)
    assert torch.equal(torch.get_rng_state(), before)


def test_splits_share_no_sample():
    made = dial(**SMALL)
    rows = torch.cat([split.inputs["modality_0"] for split in (made.train, made.valid, made.test)])
    assert len(rows.unique(dim=0)) == len(rows) == 90


def test_a_size_moves_its_own_split_alone():
    one, other = dial(**SMALL), dial(**{**SMALL, "train_size": 60})
    assert torch.equal(one.valid.target, other.valid.target)
    assert torch.equal(one.test.inputs["modality_1"], other.test.inputs["modality_1"])


def test_a_knob_moves_what_it_names_alone():
    def latent(**knobs):
        made = world(modalities=3, **knobs)
        inputs, target = samples(made, 50)
        return np.stack([x @ q for x, q in zip(inputs.values(), made.rotations, strict=True)]), target

    plain, target = latent()
    columns = {"synergy": slice(10, 11), "nuisance": slice(11, None), "signal": slice(0, 10)}
    for knobs in ({"synergy": 3.0}, {"nuisance": 2.0}, {"signal": (1.0, 2.0, 3.5)}):
        moved, same = latent(**knobs)
        (name,) = knobs
        changed = np.abs(moved - plain).max((0, 1)) > 1e-9
        assert changed[columns[name]].all()
        assert changed.sum() == len(changed[columns[name]])
        assert np.array_equal(same, target)


def test_shuffled_worlds_deal_the_same_signals_and_modes_out_to_other_modalities():
    drawn = [world(modalities=3, seed=seed, shuffle=True, signal=(4, 3, 2), modes=(4, 1, 2)) for seed in range(60)]
    assert len({made.dealt for made in drawn}) == 6
    for made in drawn[:6]:
        assert sorted(made.dealt) == [0, 1, 2]
        norms = [float(np.linalg.norm(p, axis=-1).mean()) for p in made.prototypes]
        assert norms == pytest.approx([(4, 3, 2)[place] for place in made.dealt])
        assert [p.shape[1] for p in made.prototypes] == [(4, 1, 2)[place] for place in made.dealt]
    facts = dial(seed=3, shuffle=True, modalities=3, **SMALL).facts
    assert [facts[f"dealt/modality_{m}"] for m in range(3)] == [float(place) for place in drawn[3].dealt]


def test_what_is_dealt_alone_makes_the_world():
    """A shuffled world is the plain one that was given its signals and modes in the order in which they were dealt."""
    made = world(seed=5, shuffle=True)
    given = {"signal": tuple((4.0, 3.0)[m] for m in made.dealt), "modes": tuple((4, 1)[m] for m in made.dealt)}
    for mine, other in zip(made.prototypes, world(seed=5, **given).prototypes, strict=True):
        assert np.array_equal(mine, other)


def test_classes_come_equally_often():
    counts = dial(train_size=10000, bayes_samples=1).train.target.bincount()
    assert (counts.sub(1000).abs() < 4 * (10000 * 0.1 * 0.9) ** 0.5).all()


def test_facts_hold_a_bayes_accuracy_and_its_error_for_every_coalition():
    facts = dial(modalities=3, **SMALL).facts
    names = {"modality_0", "modality_1", "modality_2", "all"}
    names |= {"modality_0+modality_1", "modality_0+modality_2", "modality_1+modality_2"}
    dealt = {f"dealt/modality_{m}" for m in range(3)}
    assert set(facts) == {f"{kind}/{name}" for kind in ("bayes", "bayes_se") for name in names} | dealt
    for name in names:
        accuracy = facts[f"bayes/{name}"]
        assert facts[f"bayes_se/{name}"] == pytest.approx((accuracy * (1 - accuracy) / 100) ** 0.5)


# The world


@given(made=worlds)
@settings(deadline=None, max_examples=30)
def test_rotations_keep_norms_and_handedness(made):
    for q in made.rotations:
        assert np.allclose(q.T @ q, np.eye(6), atol=1e-12)
        assert np.linalg.det(q) == pytest.approx(1)


@given(redundancy=st.floats(0, 1), signal=st.tuples(st.floats(0, 9), st.floats(0, 9)))
@settings(deadline=None, max_examples=30)
def test_prototypes_have_the_norm_of_the_signal(redundancy, signal):
    for prototypes, norm in zip(world(redundancy=redundancy, signal=signal).prototypes, signal, strict=True):
        assert np.allclose(np.linalg.norm(prototypes, axis=-1), norm)


@given(classes=st.integers(2, 200), modalities=st.integers(2, 4))
@settings(deadline=None, max_examples=50)
def test_groups_are_even_and_name_the_class_together(classes, modalities):
    groups = _mixture.partitions(classes, modalities)
    assert len(set(map(tuple, groups.T))) == classes
    for row in groups:
        assert np.ptp(np.bincount(row)) <= 1
        assert len(set(row)) > 1


def test_without_redundancy_classes_of_a_group_look_the_same():
    for prototypes in world(redundancy=0.0).prototypes:
        assert len(np.unique(prototypes[:, 0], axis=0)) == 4
    for prototypes in world(redundancy=0.1).prototypes:
        assert len(np.unique(prototypes[:, 0], axis=0)) == 10


def test_samples_are_prototype_cue_and_nuisance_turned():
    made = world(synergy=500.0, nuisance=0.0, signal=(100.0, 100.0))
    inputs, target = samples(made, 2000)
    bits = []
    for m, x in enumerate(inputs.values()):
        latent = x @ made.rotations[m]
        distance = np.linalg.norm(latent[:, None, :10] - made.prototypes[m][target], axis=-1).min(1)
        assert (distance**2).mean() == pytest.approx(10, abs=0.5)
        assert np.abs(np.abs(latent[:, 10]) - 500).max() < 6
        assert np.abs(latent[:, 11:]).max() < 1e-9
        bits.append(latent[:, 10] > 0)
        assert bits[m].mean() == pytest.approx(0.5, abs=0.05)
    assert np.array_equal(bits[0] ^ bits[1], target % 2 == 1)


def test_nuisance_is_a_standard_deviation():
    made = world(nuisance=5.0)
    inputs, _ = samples(made, 2000)
    assert (inputs["modality_0"] @ made.rotations[0])[:, 11:].std() == pytest.approx(5, rel=0.02)


# The posterior


@given(made=worlds, keep=st.integers(1, 15))
@settings(deadline=None, max_examples=60)
def test_the_posterior_is_a_distribution(made, keep):
    inputs, _ = samples(made, 5)
    group = [m for m in range(len(made.modalities)) if keep >> m & 1] or [0]
    p = posterior(made, only(inputs, group))
    assert p.shape == (5, made.classes)
    assert p.dtype == np.float64
    assert (p >= 0).all()
    assert np.allclose(p.sum(1), 1, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("modalities", [2, 3])
def test_the_posterior_is_bayes_rule_summed_over_all_that_is_hidden(classes, modalities):
    modes = (2, 1, 2)[:modalities]
    knobs: dict[str, Any] = {"classes": classes, "modalities": modalities, "modes": modes}
    made = world(
        informative=2, dimension=4, synergy=1.2, nuisance=0.7, redundancy=0.5, signal=(1.0,) * modalities, **knobs
    )
    inputs, _ = samples(made, 6)
    deviations = np.diag([1, 1, 1, 0.7**2])
    for group in coalitions(modalities):
        joint = np.zeros((6, classes))
        for y, bits in product(range(classes), product((0, 1), repeat=modalities)):
            if sum(bits) % 2 != y % 2:
                continue
            for k in product(*(range(modes[m]) for m in group)):
                density = np.ones(6)
                for m, mode in zip(group, k, strict=True):
                    q, x = made.rotations[m], inputs[f"modality_{m}"]
                    mean = q @ [*made.prototypes[m][y, mode], 1.2 * (2 * bits[m] - 1), 0]
                    density *= multivariate_normal(mean, q @ deviations @ q.T).pdf(x) / modes[m]
                joint[:, y] += density
        expected = joint / joint.sum(1, keepdims=True)
        assert np.allclose(posterior(made, only(inputs, group)), expected, atol=1e-10)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_posterior_is_as_often_right_as_it_says(name):
    made = world(seed=7, **SETTINGS[name])
    inputs, target = samples(made, 4000)
    for group in coalitions(len(made.modalities)):
        p = posterior(made, only(inputs, group))
        surprise = p.max(1) - (p.argmax(1) == target)
        assert abs(surprise.mean()) < 4 * surprise.std() / 4000**0.5, group


@pytest.mark.parametrize("name", SETTINGS)
def test_among_cases_of_one_confidence_that_share_is_right(name):
    made = world(seed=8, **SETTINGS[name])
    inputs, target = samples(made, 4000)
    for group in coalitions(len(made.modalities)):
        p = posterior(made, only(inputs, group)).ravel()
        happened = np.eye(made.classes)[target].ravel()
        for part in np.array_split(p.argsort(), 5):
            spread = (p * (1 - p))[part].sum() ** 0.5
            assert abs(happened[part].sum() - p[part].sum()) < 4 * spread + 4, group


def test_bayes_accuracies_are_those_of_the_posterior():
    made = world(seed=2, signal=(2.0, 1.0))
    inputs, target = samples(made, 700)
    p = posterior(made, only(inputs, (1,)))
    accuracies = bayes_accuracies(made, 700)
    assert accuracies["modality_1",] == (p.argmax(1) == target).mean()
    assert list(accuracies) == [("modality_0",), ("modality_1",), ("modality_0", "modality_1")]


def test_bayes_accuracies_do_not_depend_on_how_they_are_cut(monkeypatch):
    made = world(signal=(2.0, 1.0))
    whole = bayes_accuracies(made, 3000)
    monkeypatch.setattr(_mixture, "CHUNK", 700)
    for group, accuracy in bayes_accuracies(made, 3000).items():
        assert accuracy == pytest.approx(whole[group], abs=5 * (0.5 / 3000) ** 0.5)


def test_it_takes_the_inputs_of_a_split():
    made = dial(**SMALL)
    p = posterior(world(), made.test.inputs)
    assert (p.argmax(1) == made.test.target.numpy()).mean() > 0.8


# The knobs


def test_no_signal_is_chance():
    made = world(signal=(0.0, 0.0))
    p = posterior(made, samples(made, 100)[0])
    assert np.allclose(p, 0.1, atol=1e-12)
    for accuracy in bayes_accuracies(made, 10000).values():
        assert accuracy == pytest.approx(0.1, abs=4 * 0.003)


@given(seed=st.integers(0, 1000), synergy=st.floats(0, 100), modalities=st.integers(2, 4))
@settings(deadline=None, max_examples=30)
def test_no_proper_subset_knows_the_parity(seed, synergy, modalities):
    made = world(seed=seed, modalities=modalities, synergy=synergy, signal=(0.0,) * modalities)
    inputs, _ = samples(made, 20)
    for group in coalitions(modalities)[:-1]:
        p = posterior(made, only(inputs, group))
        assert np.allclose(p[:, 1::2].sum(1), 0.5, atol=1e-12)


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_all_together_know_the_parity_and_no_more(modalities):
    made = world(modalities=modalities, synergy=8.0, signal=(0.0,) * modalities)
    inputs, target = samples(made, 500)
    assert np.allclose(posterior(made, inputs)[np.arange(500), target], 0.2, atol=1e-9)


def test_synergy_adds_to_all_together_and_to_nothing_else():
    knobs: dict[str, Any] = {"modalities": 3, "signal": (1.0, 1.0, 1.0)}
    without, little, much = (bayes_accuracies(world(synergy=a, **knobs), 5000) for a in (0.0, 1.0, 3.0))
    (*some, everything) = without
    assert all(without[group] == much[group] for group in some)
    assert without[everything] + 0.02 < little[everything] < much[everything] - 0.02


def test_more_signal_is_more_accuracy():
    found = [bayes_accuracies(world(signal=(s, 2 * s)), 5000) for s in (0.5, 1.0, 2.0, 4.0)]
    for weak, strong in pairwise(found):
        assert all(weak[group] + 0.02 < strong[group] for group in weak)


@pytest.mark.parametrize("redundancy", [0.0, 0.5, 1.0])
def test_more_modalities_are_more_accuracy(redundancy):
    accuracies = bayes_accuracies(world(modalities=4, redundancy=redundancy, signal=(1.5,) * 4), 10000)
    for small, large in product(accuracies, repeat=2):
        if set(small) < set(large):
            assert accuracies[small] < accuracies[large] + 0.01
    everything = ("modality_0", "modality_1", "modality_2", "modality_3")
    assert all(accuracies[everything] > accuracies[group] + 0.02 for group in accuracies if group != everything)


def test_less_redundancy_needs_more_modalities():
    alone, together = ("modality_0",), ("modality_0", "modality_1")
    full, none = (bayes_accuracies(world(redundancy=r, signal=(9.0, 9.0)), 5000) for r in (1.0, 0.0))
    assert full[alone] > 0.98
    assert none[alone] == pytest.approx(0.4, abs=0.03)
    assert none[together] > 0.98


def test_it_comes_close_to_the_accuracies_of_the_card():
    found = [dial(seed=seed, bayes_samples=5000).facts for seed in range(10)]
    for name, expected in {"modality_0": 0.870, "modality_1": 0.855, "all": 0.984}.items():
        assert np.mean([facts[f"bayes/{name}"] for facts in found]) == pytest.approx(expected, abs=0.01)


def test_what_does_not_matter_does_not_matter():
    inputs, _ = samples(made := world(), 50)
    turned = replace(made, rotations=(np.eye(64), np.eye(64)))
    plain = {name: x @ q for (name, x), q in zip(inputs.items(), made.rotations, strict=True)}
    assert np.allclose(posterior(turned, plain), posterior(made, inputs), atol=1e-12)
    for x in plain.values():
        x[:, 11:] = 1e6
    assert np.allclose(posterior(turned, plain), posterior(made, inputs), atol=1e-12)


def test_a_network_learns_it_and_stays_below_bayes():
    made = dial(modes=(1, 1))
    torch.manual_seed(0)
    model = nn.Sequential(encoder("mlp", (64,)), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(5):
        for rows in torch.randperm(1500).split(64):
            batch = made.train[rows]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.inputs["modality_0"]), batch.target).backward()
            optimizer.step()
    accuracy = (model(made.test.inputs["modality_0"]).argmax(1) == made.test.target).float().mean()
    assert 0.7 < accuracy < made.facts["bayes/modality_0"]


# Errors


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"seed": -1}, "`seed` must be >= 0, received -1."),
        ({"modalities": 1}, "`modalities` must be >= 2 and <= 4, received 1."),
        ({"modalities": 5}, "`modalities` must be >= 2 and <= 4, received 5."),
        ({"classes": 1}, "`classes` must be >= 2 and <= 1000, received 1."),
        ({"classes": 2.5}, "`classes` must be a whole number, received 2.5."),
        ({"classes": None}, "`classes` must be a whole number, received None."),
        ({"redundancy": 1.1}, "`redundancy` must be >= 0 and <= 1, received 1.1."),
        ({"redundancy": None}, "`redundancy` must be a number, received None."),
        ({"synergy": -0.1}, "`synergy` must be >= 0 and <= 1000, received -0.1."),
        ({"synergy": float("nan")}, "`synergy` must be >= 0 and <= 1000, received nan."),
        ({"nuisance": float("inf")}, "`nuisance` must be >= 0 and <= 1000, received inf."),
        ({"informative": 0}, "`informative` must be >= 1, received 0."),
        ({"dimension": 1}, "`dimension` must be >= 2, received 1."),
        ({"dimension": 10}, "`dimension` must be > `informative` to leave room for the cue, received 10 and 10."),
        ({"train_size": 0}, "`train_size` must be >= 1, received 0."),
        ({"valid_size": 0}, "`valid_size` must be >= 1, received 0."),
        ({"test_size": 1.5}, "`test_size` must be a whole number, received 1.5."),
        ({"bayes_samples": 0}, "`bayes_samples` must be >= 1, received 0."),
        ({"signal": (4.0,)}, "`signal` must hold 2 numbers, one for each modality, received (4.0,)."),
        ({"modes": (1, 1, 1)}, "`modes` must hold 2 numbers, one for each modality, received (1, 1, 1)."),
        ({"signal": 4.0}, "`signal` must hold 2 numbers, one for each modality, received 4.0."),
        ({"signal": "43"}, "`signal` must hold 2 numbers, one for each modality, received '43'."),
        (
            {"modalities": 3, "signal": (4.0, 3.0)},
            "`signal` must hold 3 numbers, one for each modality, received (4.0, 3.0).",
        ),
        ({"signal": (4.0, -3.0)}, "`signal[1]` must be >= 0 and <= 1000, received -3.0."),
        ({"modes": (0, 1)}, "`modes[0]` must be >= 1, received 0."),
        ({"modes": (4, 1.5)}, "`modes[1]` must be a whole number, received 1.5."),
    ],
)
def test_errors_say_the_rule_and_what_was_received(knobs, message):
    with pytest.raises(ValueError, match="must") as error:
        dial(**knobs)
    assert str(error.value) == message


def test_a_posterior_needs_modalities_of_its_world():
    made, x = world(), np.zeros((3, 64))
    with pytest.raises(ValueError, match=r"`inputs` must hold at least one modality of \['modality_0', 'modality_1'\]"):
        posterior(made, {})
    with pytest.raises(ValueError, match=r"Unknown modality 'modality_2'\. Did you mean 'modality_1'"):
        posterior(made, {"modality_2": x})
    with pytest.raises(ValueError, match=r"Modality 'modality_0' must have shape \(n, 64\), received \(3, 63\)\."):
        posterior(made, {"modality_0": x[:, 1:]})


# Other tasks


def test_labels_are_the_binary_digits_of_the_class_and_inputs_are_the_same():
    plain, labels = data.load("dial")(**SMALL), data.load("dial")(**SMALL, task="multi-label")
    assert labels.task == "multi-label"
    assert labels.num_classes == 4
    powers = torch.tensor([1, 2, 4, 8])
    for mine, other in ((labels.train, plain.train), (labels.test, plain.test)):
        assert mine.target.dtype == torch.bool
        assert torch.equal((mine.target * powers).sum(1), other.target)
        for name in plain.modalities:
            assert torch.equal(mine.inputs[name], other.inputs[name])


def test_numbers_are_the_classes_standardised():
    plain, numbers = data.load("dial")(**SMALL), data.load("dial")(**SMALL, task="regression")
    assert numbers.num_classes == 1
    slope = float(numbers.train.target[plain.train.target == 9][0] - numbers.train.target[plain.train.target == 8][0])
    torch.testing.assert_close(numbers.train.target, slope * (plain.train.target - 4.5))
    levels = torch.stack([numbers.train.target[plain.train.target == c][0] for c in range(10)])
    assert float(levels.mean()) == pytest.approx(0, abs=1e-6)
    assert float(levels.std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_best_answers_to_labels_and_numbers_are_those_of_the_posterior():
    made = world()
    inputs, classes = _mixture.draw(made, 4000, _mixture.streams(0, "bayes", 2))
    for keep, key in ((inputs, "all"), ({"modality_1": inputs["modality_1"]}, "modality_1")):
        known = posterior(made, keep)
        labels = data.load("dial")(**{**SMALL, "bayes_samples": 4000}, task="multi-label").facts
        there = sum(known[:, c, None] * np.array([c >> k & 1 for k in range(4)]) for c in range(10))
        right = (there > 0.5) == np.array([[c >> k & 1 for k in range(4)] for c in classes])
        assert labels[f"bayes/{key}"] == pytest.approx(right.mean(), abs=1e-9)
        numbers = data.load("dial")(**{**SMALL, "bayes_samples": 4000}, task="regression").facts
        levels = (np.arange(10) - 4.5) / np.sqrt(8.25)
        error = (known @ levels - levels[classes]) ** 2
        assert numbers[f"bayes/{key}"] == pytest.approx(1 - error.mean(), abs=1e-5)
        assert numbers[f"bayes_se/{key}"] == pytest.approx(error.std() / np.sqrt(4000), abs=1e-5)


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'regression'"):
        data.load("dial")(task="regresion")
