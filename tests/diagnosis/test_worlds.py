"""On worlds whose truth is known by construction, none of which set a threshold: ranks, cover, who sleeps, silence."""

from typing import NamedTuple

import numpy as np
import pytest

import msam
from msam.diagnosis import Diagnosis, Estimate
from tests.diagnosis.worlds import loader, trained, world

SEEDS = range(1000, 1020)
STRENGTHS = (4.0, 3.0, 2.0)
MEASURED = ("likelihood_share", "accuracy_share", "likelihood", "zeroed", "shapley", "dominance", "missing_accuracy")


class Ranked(NamedTuple):
    """A world of three strengths in random places: where, its Bayes accuracies, found on few samples and on many."""

    strength: tuple[float, ...]
    bayes: list[float]
    few: Diagnosis
    many: Diagnosis


@pytest.fixture(scope="module")
def ranked() -> list[Ranked]:
    found = []
    for seed in SEEDS:
        strength = tuple(np.random.default_rng(seed).permutation(STRENGTHS).tolist())
        made = world(seed, strength, valid_size=400, test_size=12000, bayes_samples=4000)
        model = trained(made, epochs=8, seed=seed)
        few, many = (
            msam.diagnose(model, loader(split, 2000), resamples=n, sharp=False, progress=False, seed=seed)
            for split, n in ((made.valid, 500), (made.test, 100))
        )
        bayes = [made.facts[f"bayes/modality_{m}"] for m in range(3)]
        found.append(Ranked(strength, bayes, few, many))
    return found


class Pair(NamedTuple):
    """A world of two equal modalities: who is lazy where one is, the diagnosis with that, and with none."""

    lazy: str
    planted: Diagnosis
    balanced: Diagnosis


@pytest.fixture(scope="module")
def equal() -> list[Pair]:
    found = []
    for seed in SEEDS:
        made = world(seed, (3.5, 3.5), valid_size=400, train_size=512)
        lazy = f"modality_{np.random.default_rng(seed).integers(2)}"
        options = {"train": loader(made.train, 64), "unimodal": 10, "resamples": 300, "sharp": False, "progress": False}
        planted, balanced = (
            msam.diagnose(trained(made, lazy=who, seed=seed, epochs=12), loader(made.valid), seed=seed, **options)
            for who in (lazy, None)
        )
        found.append(Pair(lazy, planted, balanced))
    return found


def test_the_strong_one_is_somewhere_else_every_time(ranked, equal):
    assert {one.strength.index(max(STRENGTHS)) for one in ranked} == {0, 1, 2}
    assert {one.lazy for one in equal} == {"modality_0", "modality_1"}


def test_contributions_rank_the_modalities_as_the_construction_does(ranked):
    for one in ranked:
        order = np.argsort(one.strength)
        assert np.array_equal(np.argsort(one.bayes), order), "the construction itself"
        for kind in ("likelihood_share", "accuracy_share"):
            shares = [getattr(m, kind).value for m in one.few.modalities.values()]
            assert np.array_equal(np.argsort(shares), order), kind


def test_intervals_cover_what_many_samples_show_at_the_stated_rate(ranked):
    def estimates(found: Diagnosis) -> list[Estimate]:
        own = [getattr(m, key) for m in found.modalities.values() for key in MEASURED]
        return [found.accuracy, found.likelihood, *own, *(p.likelihood for p in found.pairs)]

    covered = [
        few.low <= many.value <= few.high
        for one in ranked
        for few, many in zip(estimates(one.few), estimates(one.many), strict=True)
    ]
    assert 0.92 <= np.mean(covered) <= 0.985


def test_intervals_of_classes_cover_too(ranked):
    covered = [
        few.low <= many.value <= few.high
        for one in ranked
        for name in one.few.modalities
        for few, many in zip(
            one.few.modalities[name].likelihood.by_class, one.many.modalities[name].likelihood.by_class, strict=True
        )
    ]
    assert 0.90 <= np.mean(covered) <= 0.985


def test_the_gap_finds_the_lazy_one_and_the_advice_names_it(equal):
    widest = [max(one.planted.modalities, key=lambda n: one.planted.modalities[n].gap.value) for one in equal]
    assert sum(name == one.lazy for name, one in zip(widest, equal, strict=True)) >= 19
    spoke = [{a.modality for a in one.planted.advice if a.rule in ("under_trained", "unused")} for one in equal]
    assert sum(names == {one.lazy} for names, one in zip(spoke, equal, strict=True)) >= 19
    gaps = [{name: m.encoder_gap.value for name, m in one.planted.modalities.items()} for one in equal]
    assert sum(max(gap, key=gap.get) == one.lazy for gap, one in zip(gaps, equal, strict=True)) >= 19


def test_nothing_is_advised_where_nothing_is_wrong(equal):
    assert sum(bool(one.balanced.advice) for one in equal) <= 1
