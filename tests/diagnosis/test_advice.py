"""Every rule speaks where its fault was planted, of whom it was planted in, and is silent elsewhere."""

import dataclasses
from pathlib import Path

import pytest
import torch

import msam
from msam.data import Dataset
from msam.diagnosis import RULES, Diagnosis, Estimate
from msam.diagnosis.advice import advised
from msam.models import MultimodalModel
from tests.diagnosis.worlds import loader, trained, world


def found(made: Dataset, model: MultimodalModel, valid=None, **options) -> Diagnosis:
    train = loader(made.train, 64)
    quick = {"train": train, "resamples": 300, "sharp": False, "progress": False, **options}
    return msam.diagnose(model, loader(made.valid) if valid is None else valid, **quick)


def rules(of: Diagnosis) -> set[tuple[str, str | None]]:
    return {(advice.rule, advice.modality) for advice in of.advice}


@pytest.fixture(scope="module")
def sound() -> tuple[Dataset, MultimodalModel]:
    made = world(40, (3.5, 3.5))
    return made, trained(made)


@pytest.fixture(scope="module")
def healthy(sound) -> Diagnosis:
    return found(*sound)


def deaf(model: MultimodalModel, name: str) -> MultimodalModel:
    """Return the model with a fusion that does not listen to a modality."""
    other = MultimodalModel(
        dict(model.encoders.items()), type(model.fusion)(model.fusion.dims, model.fusion.num_classes)
    )
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.fusion.linear[name].weight.zero_()
    return other


def test_nothing_is_said_of_a_healthy_model(healthy):
    assert healthy.advice == ()


def test_an_encoder_that_has_not_learned_is_under_trained(sound):
    """It looks along one direction only, and can learn to look along others."""
    made, _ = sound
    lazy = trained(made, lazy="modality_0", epochs=1)
    first = next(layer for layer in lazy.encoders["modality_0"].modules() if isinstance(layer, torch.nn.Linear))
    first.weight.data[:] = first.weight.data[:1]
    told = found(made, lazy, unimodal=30)
    assert ("under_trained", "modality_0") in rules(told)
    assert "unused" not in {rule for rule, _ in rules(told)}
    assert "by itself it reaches" in told.advice[0].finding
    assert "mslr" in told.advice[0].remedy
    without = found(made, lazy)
    assert "under_trained" not in {rule for rule, _ in rules(without)}, "only training it by itself can tell"


def test_a_fusion_that_does_not_listen_leaves_features_unused(sound):
    made, model = sound
    told = found(made, deaf(model, "modality_1"), unimodal=4)
    assert ("unused", "modality_1") in rules(told)
    assert "under_trained" not in {rule for rule, _ in rules(told)}
    assert ("brittle", "modality_0") in rules(told), "it can only guess without the one it listens to"


def test_without_probes_nobody_is_called_unused_or_empty(sound):
    made, model = sound
    told = found(made, deaf(model, "modality_1"), train=None)
    assert {rule for rule, _ in rules(told)} <= {"brittle"}


def test_a_modality_that_tells_nothing_is_empty():
    made = world(41, (3.5, 0.0))
    assert rules(found(made, trained(made), unimodal=2)) == {("empty", "modality_1")}


def test_a_modality_whose_samples_are_in_disorder_is_harmful(sound):
    made, model = sound
    batches = [
        b._replace(inputs={**b.inputs, "modality_1": b.inputs["modality_1"].roll(1, 0)}) for b in loader(made.valid)
    ]
    assert ("harmful", "modality_1") in rules(found(made, model, batches))


def test_a_model_that_trusts_a_disturbed_modality_blindly_is_misled(sound):
    made, model = sound
    told = found(made, model, noise=6.0)
    assert {rule for rule, _ in rules(told)} == {"misled"}
    assert found(made, model, noise=0.1).advice == ()


def test_modalities_that_name_the_class_only_together_are_kept_together():
    made = world(42, (4.0, 4.0), redundancy=0.0, classes=9, train_size=1000)
    told = found(made, trained(made, epochs=15))
    assert {rule for rule, _ in rules(told)} == {"together"}
    assert told.pairs[0].accuracy.low > 0.05


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_silent_where_its_numbers_are_unknown(healthy, rule):
    """As with one sample, where no interval is known, and without probes."""

    def unknown(value):
        if isinstance(value, Estimate):
            return Estimate(value.value)
        return value

    blank = {
        name: dataclasses.replace(one, **{f.name: unknown(getattr(one, f.name)) for f in dataclasses.fields(one)})
        for name, one in healthy.modalities.items()
    }
    pairs = tuple(
        dataclasses.replace(p, accuracy=unknown(p.accuracy), likelihood=unknown(p.likelihood)) for p in healthy.pairs
    )
    assert list(RULES[rule](dataclasses.replace(healthy, modalities=blank, pairs=pairs))) == []


def widened(healthy: Diagnosis, name: str, **estimates: tuple[float, float]) -> Diagnosis:
    """Return a diagnosis with other intervals of one modality."""
    changed = {key: Estimate((low + high) / 2, low, high) for key, (low, high) in estimates.items()}
    one = dataclasses.replace(healthy.modalities[name], **changed)
    return dataclasses.replace(healthy, modalities={**healthy.modalities, name: one})


@pytest.mark.parametrize(
    ("rule", "silent", "speaks"),
    [
        (
            "unused",
            {"fusion_gap": (0.2, 0.3), "fusion_lag": (0.07, 0.3)},
            {"fusion_gap": (0.2, 0.3), "fusion_lag": (0.08, 0.3)},
        ),
        (
            "unused",
            {"fusion_gap": (0.04, 0.3), "fusion_lag": (0.2, 0.3)},
            {"fusion_gap": (0.06, 0.3), "fusion_lag": (0.2, 0.3)},
        ),
        (
            "under_trained",
            {"encoder_gap": (0.2, 0.3), "encoder_lag": (0.02, 0.3)},
            {"encoder_gap": (0.2, 0.3), "encoder_lag": (0.03, 0.3)},
        ),
        ("harmful", {"missing_accuracy": (-0.2, -0.02)}, {"missing_accuracy": (-0.2, -0.03)}),
        ("misled", {"noisy_accuracy": (0.3, 0.5)}, {"noisy_accuracy": (0.5, 0.6)}),
    ],
)
def test_the_whole_interval_must_lie_beyond_the_threshold(healthy, rule, silent, speaks):
    base = {
        "missing_accuracy": (0.28, 0.3),
        "missing_likelihood": (-0.2, -0.1),
        "probe": (0.8, 0.9),
        "unimodal": (0.8, 0.9),
        "encoder_gap": (-0.01, 0.01),
        "encoder_lag": (-0.01, 0.01),
    }
    even = healthy
    for name in healthy.modalities:
        even = widened(even, name, **base, fusion_gap=(-0.01, 0.01), fusion_lag=(-0.01, 0.01))
    for said, change in ((0, silent), (1, speaks)):
        told = list(RULES[rule](widened(even, "modality_1", **{**base, **change})))
        assert [advice.modality for advice in told] == ["modality_1"] * said


FAULTS = {
    "under_trained": {"encoder_gap": (0.2, 0.3), "encoder_lag": (0.2, 0.3), "unimodal": (0.8, 0.9)},
    "unused": {"fusion_gap": (0.2, 0.3), "fusion_lag": (0.2, 0.3), "encoder_gap": (0, 0)},
    "brittle": {"missing_accuracy": (0.9, 0.95)},
    "harmful": {"missing_accuracy": (-0.2, -0.1), "missing_likelihood": (-0.2, -0.1)},
    "empty": {"probe": (0, 0.04), "unimodal": (0, 0.04), "missing_accuracy": (-0.01, 0.01)},
    "misled": {"missing_accuracy": (0.1, 0.2), "noisy_accuracy": (0.5, 0.6)},
}


@pytest.mark.parametrize("rule", RULES)
def test_texts_speak_of_the_measure_of_the_task(healthy, rule):
    made = widened(healthy, "modality_1", **FAULTS.get(rule, {}))
    pairs = tuple(
        dataclasses.replace(p, accuracy=Estimate(0.3, 0.2, 0.4), likelihood=Estimate(0.3, 0.2, 0.4)) for p in made.pairs
    )
    for task, measure in (("single-label", "accuracy"), ("multi-label", "label accuracy"), ("regression", "R²")):
        told = dataclasses.replace(made, task=task, measure=measure, pairs=pairs)
        [one] = RULES[rule](told)
        assert measure in one.finding
        rest = str(one).replace(measure, "")
        assert "accuracy" not in rest
        assert "R²" not in rest
        assert task != "regression" or not any(word in str(one) for word in ("ogm_ge", "agm", "class"))


def test_of_what_two_tell_together_the_constants_that_cancel_do_not_count(healthy):
    [pair] = healthy.pairs
    pair = dataclasses.replace(pair, accuracy=Estimate(0.6, 0.5, 0.7), likelihood=Estimate(0.3, 0.25, 0.35))
    for offset, said in ((0.0, "50 to 70 points"), (0.3, "20 to 40 points"), (0.45, None), (-0.2, "70 to 90 points")):
        made = dataclasses.replace(healthy, measure="R²", pairs=(dataclasses.replace(pair, offset=offset),))
        findings = [advice.finding for advice in RULES["together"](made)]
        assert len(findings) == (said is not None)
        assert all(said in finding for finding in findings)


def test_where_a_guess_is_nearly_always_right_nobody_is_called_empty(healthy):
    """As with labels that hardly any sample has: what a modality tells is too little to show."""
    for chance, said in ((0.75, 1), (0.85, 0)):
        reach = (chance - 0.05, chance + 0.01)
        made = widened(healthy, "modality_1", probe=reach, unimodal=reach, missing_accuracy=(0, 0.01))
        told = list(RULES["empty"](dataclasses.replace(made, chance=chance)))
        assert [advice.modality for advice in told] == ["modality_1"] * said


def test_what_all_lack_alike_is_not_said_of_one(healthy):
    alike = healthy
    for name in healthy.modalities:
        alike = widened(
            alike, name, fusion_gap=(0.2, 0.3), encoder_gap=(0.2, 0.3), fusion_lag=(-0.1, 0.1), encoder_lag=(0, 0)
        )
    assert "unused" not in {advice.rule for advice in advised(alike).advice}
    assert "under_trained" not in {advice.rule for advice in advised(alike).advice}


def test_every_rule_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text()
    for name, rule in RULES.items():
        assert f"`{name}`" in page
        assert rule.__doc__
