"""What is reported is what one would reckon by hand, and nothing of the model is changed."""

import copy
import json
import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn

import msam
from msam import Batch, shapley
from msam.diagnosis._collect import disturbed
from msam.train.metrics import evaluate
from tests.diagnosis.worlds import loader, trained, world

QUICK = {"progress": False, "resamples": 100, "sharp": False}


def whole(case):
    return case.world.valid[range(len(case.world.valid))]


@pytest.fixture(scope="module")
def values(case):
    """Log-likelihood and hits of all eight coalitions, `(8, N)`."""
    batch = whole(case)
    sets = [(), *shapley.coalitions(3)]
    logits = shapley.coalition_logits(case.model, case.model.encode(batch.inputs), only=sets).double()
    own = logits.log_softmax(-1)[:, torch.arange(len(batch.target)), batch.target]
    return own, (logits.argmax(-1) == batch.target).double()


@pytest.mark.parametrize(("kind", "place"), [("likelihood", 0), ("accuracy", 1)])
def test_contributions_are_shapley_values_of_what_is_gained_over_nothing(case, values, kind, place):
    mean = values[place].mean(1)
    expected = shapley.shapley_values(mean[1:] - mean[0])
    found = torch.tensor([getattr(one, kind).value for one in case.found.modalities.values()], dtype=torch.double)
    assert torch.allclose(found, expected, atol=1e-6)
    shares = [getattr(one, f"{kind}_share").value for one in case.found.modalities.values()]
    assert torch.allclose(torch.tensor(shares).double(), shapley.normalised(expected), atol=1e-6)
    assert sum(shares) == pytest.approx(1)


def test_kinds_of_accuracy_are_those_of_the_protocol(case):
    theirs = evaluate(case.model, case.world.valid)
    assert case.found.accuracy.value == pytest.approx(theirs["accuracy"])
    assert case.found.likelihood.value == pytest.approx(-theirs["nll"], abs=1e-5)
    for name, one in case.found.modalities.items():
        for kind in ("head", "shapley", "zeroed"):
            assert getattr(one, kind).value == pytest.approx(theirs["modalities"][name][kind]), (name, kind)
        assert one.dominance.value == pytest.approx(theirs["modalities"][name]["dominance"], abs=0.01)
        assert one.in_model.value == max(one.head.value, one.shapley.value, one.zeroed.value)
        assert getattr(one, one.in_model_kind) == one.in_model


def test_what_is_lost_is_the_difference_to_the_whole(case, values):
    hits = values[1].mean(1)
    without = {"modality_0": 6, "modality_1": 5, "modality_2": 3}
    for name, one in case.found.modalities.items():
        assert one.missing_accuracy.value == pytest.approx(float(hits[7] - hits[without[name]]))
        assert one.noise == "gaussian"
    losses = {name: one.noisy_accuracy.value for name, one in case.found.modalities.items()}
    assert max(losses, key=losses.get) == "modality_1"


def test_gaps_are_differences_of_what_stands_beside_them(case):
    found = case.found
    for name, one in found.modalities.items():
        assert one.fusion_gap.value == pytest.approx(one.probe.value - one.in_model.value)
        assert one.encoder_gap.value == pytest.approx(one.unimodal.value - one.probe.value)
        for part in ("fusion", "encoder"):
            gaps = {other: getattr(found.modalities[other], f"{part}_gap").value for other in found.modalities}
            least = max(0.0, min(gap for other, gap in gaps.items() if other != name))
            assert getattr(one, f"{part}_lag").value == pytest.approx(gaps[name] - least)
        assert one.gap.value == pytest.approx(one.unimodal.value - one.in_model.value)
        assert one.gap.low < one.gap.value < one.gap.high


def test_interactions_of_the_pairs(case, values):
    mean = values[0].mean(1)
    v = {s: float(mean[sum(1 << m for m in s)]) for s in [(), *shapley.coalitions(3)]}
    alone = v[0, 1] - v[(0,)] - v[(1,)] + v[()]
    third = v[0, 1, 2] - v[0, 2] - v[1, 2] + v[(2,)]
    pair = case.found.pairs[0]
    assert pair.modalities == ("modality_0", "modality_1")
    assert pair.likelihood.value == pytest.approx((alone + third) / 2, abs=1e-6)


def test_classes_add_up_to_the_whole(case):
    found = case.found
    assert found.classes == tuple("abcdef")
    assert sum(found.counts) == 300
    for one in (found.accuracy, *(m.likelihood for m in found.modalities.values()), found.pairs[1].accuracy):
        parts = [c.value * n for c, n in zip(one.by_class, found.counts, strict=True)]
        assert sum(parts) / 300 == pytest.approx(one.value)
        assert all(c.low <= c.value <= c.high for c in one.by_class)


def test_dominance_is_shared_out(case):
    for key in ("dominance", "batch_dominance"):
        assert sum(getattr(one, key).value for one in case.found.modalities.values()) == pytest.approx(1)
    assert case.found.modalities["modality_1"].batch_dominance.value == 1


def test_sharpness_is_the_rise_after_one_step_within_the_encoder(case):
    model = copy.deepcopy(case.model).double()
    batches = loader(case.world.train, 64)[:8]
    x = {n: torch.cat([b.inputs[n] for b in batches]).double() for n in model.modalities}
    y = torch.cat([b.target for b in batches])

    def loss():
        return nn.functional.cross_entropy(model(x).logits, y)

    weights = list(model.encoders["modality_1"].parameters())
    gradient = torch.autograd.grad(loss(), weights)
    length = torch.cat([g.flatten() for g in gradient]).norm()
    before = loss().item()
    with torch.no_grad():
        torch._foreach_add_(weights, [0.05 * g / length for g in gradient])
    found = case.found.modalities["modality_1"].sharpness
    assert found.value == pytest.approx(loss().item() - before, rel=1e-6)
    assert found.low < found.value < found.high
    assert case.found.modalities["modality_1"].eigenvalue > 0


def test_an_encoder_that_cannot_be_differentiated_twice_has_no_eigenvalue_and_says_so():
    torch.manual_seed(0)
    model = msam.MultimodalModel(
        {"words": nn.EmbeddingBag(9, 4), "raw": nn.Identity(), "seen": nn.Linear(3, 4)},
        msam.SumFusion({"words": 4, "raw": 2, "seen": 4}, 3),
    )
    x = {"words": torch.randint(9, (30, 5)), "raw": torch.randn(30, 2), "seen": torch.randn(30, 3)}
    found = msam.diagnose(model, [Batch(x, torch.randint(3, (30,)))], progress=False, resamples=100)
    words, raw, seen = found.modalities.values()
    assert words.eigenvalue is None
    assert words.sharpness is not None
    assert raw.sharpness is None
    assert seen.eigenvalue is not None
    assert any("of words: no eigenvalue, the derivative for" in note for note in found.notes)
    assert any("of raw: it has no parameters" in note for note in found.notes)
    assert (words.noise, seen.noise) == ("swapped", "gaussian")


def test_a_modality_that_the_model_does_not_see_contributes_nothing():
    made = world(3, (3.0, 3.0), valid_size=150)
    model = trained(made, epochs=3)
    with torch.no_grad():
        model.fusion.linear["modality_1"].weight.zero_()
    one = msam.diagnose(model, loader(made.valid), **QUICK).modalities["modality_1"]
    for key in ("accuracy", "likelihood", "missing_accuracy", "noisy_accuracy", "accuracy_share"):
        estimate = getattr(one, key)
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0, 0, 0), abs=1e-9), key
    assert one.dominance.value < 0.5


def test_model_and_random_numbers_are_left_as_they_were(case):
    model = case.model
    model.train()
    model.zero_grad()
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    train = loader(case.world.train, 64)[:2]
    again = [
        msam.diagnose(model, loader(case.world.valid)[:1], train=train, unimodal=1, progress=False, resamples=100)
        for _ in range(2)
    ]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    model.eval()
    assert again[0].to_dict() == again[1].to_dict(), "the same seed finds the same"


def test_it_is_plain_frozen_data(case, tmp_path):
    with pytest.raises(FrozenInstanceError):
        case.found.samples = 3
    told = json.loads(case.found.to_json(tmp_path / "new" / "found.json").read_text())
    assert told == json.loads(json.dumps(case.found.to_dict()))
    assert told["modalities"]["modality_1"]["probe"]["value"] == case.found.modalities["modality_1"].probe.value
    assert "modality_1: share" in str(case.found)


def test_what_could_not_be_measured_is_none_and_said():
    made = world(3, (3.0, 3.0), valid_size=60)
    found = msam.diagnose(trained(made, epochs=1, fusion="early"), loader(made.valid), **QUICK)
    one = found.modalities["modality_0"]
    assert (one.probe, one.unimodal, one.gap, one.head, one.sharpness, one.eigenvalue) == (None,) * 6
    assert any("diagnose(..., train=loader)" in note for note in found.notes)
    assert "Sharpness was not asked for." in found.notes
    json.dumps(found.to_dict(), allow_nan=False)


def test_one_class_and_one_sample_are_not_too_few(case):
    batch = case.world.valid[[0]]
    found = msam.diagnose(case.model, [batch], **QUICK)
    assert found.samples == 1
    assert math.isnan(found.accuracy.low)
    assert math.isnan(found.accuracy.by_class[(int(batch.target) + 1) % 6].value)
    assert found.to_dict()["accuracy"]["low"] is None


def test_inputs_may_be_absent_in_place_of_features(case):
    found = msam.diagnose(case.model, loader(case.world.valid), absent="input", **QUICK)
    theirs = evaluate(case.model, case.world.valid, absent="input")
    assert found.settings["absent"] == "input"
    for name, one in found.modalities.items():
        assert one.zeroed.value == pytest.approx(theirs["modalities"][name]["zeroed"])


def test_samples_that_lack_a_modality_count_for_the_others_alone(case):
    batch = whole(case)
    present = torch.ones(len(batch.target), 3, dtype=torch.bool)
    present[::2, 0] = False
    found = msam.diagnose(case.model, [batch._replace(present=present)], **QUICK)
    there = Batch({n: x[1::2] for n, x in batch.inputs.items()}, batch.target[1::2])
    alone = msam.diagnose(case.model, [there], **QUICK)
    assert found.modalities["modality_0"].zeroed.value == pytest.approx(alone.modalities["modality_0"].zeroed.value)
    assert found.modalities["modality_0"].likelihood.value == pytest.approx(
        alone.modalities["modality_0"].likelihood.value / 2
    )


class Segments(nn.Module):
    """Two segments of every sample, folded into the rows of its features."""

    def forward(self, x):
        return x.flatten(0, 1)


def test_segments_of_a_sample_are_resampled_together():
    torch.manual_seed(0)
    model = msam.MultimodalModel({"a": Segments(), "b": Segments()}, msam.SumFusion({"a": 3, "b": 3}, 3))
    x = torch.randn(40, 3)
    y = torch.randint(3, (40,))
    once = {name: x.unsqueeze(1) for name in "ab"}
    twice = {name: x.unsqueeze(1).repeat(1, 2, 1) for name in "ab"}
    rows = msam.diagnose(model, [Batch(once, y)], **QUICK)
    both = msam.diagnose(model, [Batch(twice, y.repeat_interleave(2))], **QUICK)
    assert both.samples == rows.samples == 40
    assert sum(both.counts) == 80
    assert both.accuracy.value == pytest.approx(rows.accuracy.value)
    assert both.accuracy.low == pytest.approx(rows.accuracy.low), "copies are no information"


def test_seven_modalities_are_drawn_with_an_error():
    torch.manual_seed(0)
    names = [f"m{k}" for k in range(7)]
    model = msam.MultimodalModel(
        {n: nn.Linear(2, 4) for n in names}, msam.MaxoutFusion(dict.fromkeys(names, 4), 3, (8,))
    )
    batch = Batch({n: torch.randn(50, 2) for n in names}, torch.randint(3, (50,)))
    found = msam.diagnose(model, [batch], permutations=32, **QUICK)
    assert found.settings["exact"] is False
    assert found.settings["permutations"] == 32
    worths = [one.likelihood for one in found.modalities.values()]
    assert all(worth.error > 0 for worth in worths)
    logits = shapley.coalition_logits(model, model.encode(batch.inputs), only=[(), tuple(range(7))]).double()
    own = logits.log_softmax(-1)[:, torch.arange(50), batch.target].mean(1)
    assert sum(worth.value for worth in worths) == pytest.approx(float(own[1] - own[0]))
    exact = shapley.coalition_logits(model, model.encode(batch.inputs)).double()
    means = exact.log_softmax(-1)[:, torch.arange(50), batch.target].mean(1)
    for worth, true in zip(worths, shapley.shapley_values(means - own[0]), strict=True):
        assert abs(worth.value - float(true)) < 5 * worth.error
    assert "drawn by random orders" in found.cost


def test_one_modality_alone_is_a_case():
    model = msam.MultimodalModel({"a": nn.Linear(2, 4)}, msam.SumFusion({"a": 4}, 3))
    found = msam.diagnose(model, [Batch({"a": torch.randn(20, 2)}, torch.randint(3, (20,)))], **QUICK)
    assert found.pairs == ()
    assert found.modalities["a"].dominance.value == 1


def test_disturbing_is_by_the_inputs_own_spread():
    x = {"a": 5 * torch.randn(2000, 3), "ids": torch.arange(4)}
    generator = torch.Generator().manual_seed(0)
    changed, how = disturbed(x, ("a",), 0.5, generator)
    assert how == "gaussian"
    assert (changed["a"] - x["a"]).std() == pytest.approx(2.5, rel=0.05)
    assert changed["ids"] is x["ids"]


def test_its_cost_is_said_before_it_begins(case, capsys):
    seen = []

    def watched():
        seen.append(capsys.readouterr().err)
        yield from loader(case.world.valid)

    msam.diagnose(case.model, watched(), resamples=100)
    assert (
        "8 coalitions, all there are; 2 forward passes of the model and 11 of its fusion over every sample" in seen[0]
    )


def test_cost_is_what_it_takes(case):
    count = {"encoders": 0}
    hooks = [
        e.register_forward_hook(lambda *_: count.update(encoders=count["encoders"] + 1))
        for e in case.model.encoders.values()
    ]
    msam.diagnose(case.model, loader(case.world.valid, 300), **QUICK)
    for hook in hooks:
        hook.remove()
    assert count["encoders"] == 2 * 3, "two passes of the model, of three encoders"


def test_the_front_door_stays_shut_until_it_is_asked():
    assert "diagnose" in dir(msam)
    assert msam.diagnose.__module__ == "msam.diagnosis._diagnose"
    with pytest.raises(AttributeError, match="no attribute 'diagnosee'"):
        msam.diagnosee  # noqa: B018
