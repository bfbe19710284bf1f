"""Modality dropout: what a sample keeps, what a step then is, and that it ends with training."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import nn

from msam import SumFusion, methods
from msam.methods.joint import Joint
from msam.methods.modality_dropout import ModalityDropout, kept
from msam.train import load_model
from tests.methods._toys import EARLY, FOUR, LATE, batch, built, close, gradients, steps
from tests.train._runs import WORLD, trained

every_fusion = pytest.mark.parametrize("fusion", [*LATE, *EARLY])
every_count = pytest.mark.parametrize("count", [2, 3, 4])


@some.composite
def draws(draw):
    """Return who is present, numbers in [0, 1), and a probability."""
    size, count = draw(some.integers(1, 6)), draw(some.integers(1, 4))
    seed = draw(some.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(size, count, generator=generator) < draw(some.floats(0, 1))
    chance = torch.rand(size, count, generator=generator, dtype=torch.float64)
    return present, chance, draw(some.floats(0, 1))


def kept_by_hand(present: list[bool], chance: list[float], p: float) -> list[bool]:
    """Return what one sample keeps, as one would say it: drop, and if nothing is left put one back."""
    left = [has and u >= p for has, u in zip(present, chance, strict=True)]
    if any(present) and not any(left):
        owned = [m for m, has in enumerate(present) if has]
        left[max(owned, key=lambda m: chance[m])] = True
    return left


@given(draws())
def test_it_drops_and_if_nothing_is_left_puts_one_back(drawn):
    present, chance, p = drawn
    by_hand = [kept_by_hand(*sample, p) for sample in zip(present.tolist(), chance.tolist(), strict=True)]
    assert kept(present, chance, p).tolist() == by_hand


@given(draws())
def test_a_sample_with_something_keeps_something_and_nothing_it_lacks(drawn):
    present, chance, p = drawn
    keep = kept(present, chance, p)
    assert torch.equal(keep.any(1), present.any(1))
    assert not (keep & ~present).any()


@given(draws())
def test_a_sample_of_a_single_modality_keeps_it(drawn):
    _, chance, p = drawn
    alone = nn.functional.one_hot(chance.argmin(1), chance.shape[1]).bool()
    assert torch.equal(kept(alone, chance, p), alone)


@given(draws())
def test_at_zero_nothing_is_dropped_and_at_one_a_single_modality_stays(drawn):
    present, chance, _ = drawn
    assert torch.equal(kept(present, chance, 0.0), present)
    assert torch.equal(kept(present, chance, 1.0).sum(1), present.any(1).long())


@every_count
@pytest.mark.parametrize("p", [0.3, 0.7, 1.0])
def test_a_modality_is_away_as_often_as_the_docstring_says_whichever_it_is(count, p):
    size = 100_000
    chance = torch.rand(size, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    away = 1 - kept(torch.ones(size, count, dtype=torch.bool), chance, p).double().mean(0)
    close(away, torch.full((count,), p - p**count / count, dtype=torch.float64), 5 * 0.5 / size**0.5)


def test_the_one_that_is_put_back_is_drawn_uniformly_from_those_the_sample_has():
    size = 90_000
    chance = torch.rand(size, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    present = torch.tensor([True, False, True, True]).expand(size, 4)
    lost = (chance < 0.8).all(1)
    shares = kept(present, chance, 0.8)[lost].double().mean(0)
    close(shares, torch.tensor([1 / 3, 0, 1 / 3, 1 / 3], dtype=torch.float64), 0.015)


def drawn_by_hand(seed: int, size: int, count: int, p: float) -> list[list[bool]]:
    chance = torch.rand(size, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return [kept_by_hand([True] * count, sample, p) for sample in chance.tolist()]


@every_fusion
@every_count
def test_a_step_is_cross_entropy_of_features_multiplied_by_what_is_kept(fusion, count):
    names, method = FOUR[:count], ModalityDropout(p=0.5)
    run, by_hand, x = (
        built(method, fusion, names=names),
        built(Joint(), fusion, names=names).network,
        batch(names=names),
    )
    torch.manual_seed(1)
    output = method.gradients(run, x)
    keep = torch.tensor(drawn_by_hand(0, 8, count, 0.5), dtype=torch.float64)
    assert not keep.bool().all(), "it visibly acts"
    assert keep.bool().any(1).all()
    torch.manual_seed(1)
    features = {n: by_hand.encoders[n](x.inputs[n]) * keep[:, m : m + 1] for m, n in enumerate(names)}
    nn.functional.cross_entropy(by_hand.fusion(features), x.target).backward()
    for name, p in by_hand.named_parameters():
        close(gradients(run)[name], p.grad)
    for name in names:
        close(output.features[name], features[name])


def test_an_encoder_gets_no_gradient_from_samples_that_lost_it():
    run = built(ModalityDropout(p=1.0))
    x = batch()
    inputs = {name: value.clone().requires_grad_() for name, value in x.inputs.items()}
    ModalityDropout(p=1.0).gradients(run, x._replace(inputs=inputs))
    keep = torch.tensor(drawn_by_hand(0, 8, 3, 1.0))
    for m, value in enumerate(inputs.values()):
        assert torch.equal(value.grad.abs().sum(1) > 0, keep[:, m])


def test_what_a_sample_lacks_stays_away_and_what_it_alone_has_stays():
    given = torch.tensor([[True, False, False], [False, True, True], [False, False, False], [True, True, True]] * 2)
    run = built(ModalityDropout(p=0.6))
    for seed in range(20):
        run.begin_step(seed)
        output = ModalityDropout(p=0.6).gradients(run, batch(seed)._replace(present=given))
        left = torch.stack([feature.detach().abs().sum(1) > 0 for feature in output.features.values()], 1)
        assert not (left & ~given).any()
        assert torch.equal(left.any(1), given.any(1))
        assert left[[0, 4], 0].all()


def test_every_step_draws_anew_and_the_same_seed_draws_the_same():
    first, second = built(ModalityDropout(p=0.5)), built(ModalityDropout(p=0.5))
    drawn = []
    for run in (first, second):
        for number in range(3):
            run.begin_step(number)
            features = ModalityDropout(p=0.5).gradients(run, batch()).features
            drawn.append([[bool(v) for v in h.detach().abs().sum(1)] for h in features.values()])
    assert drawn[:3] == drawn[3:]
    assert drawn[0] != drawn[1] != drawn[2]


@pytest.mark.parametrize("wrong", [torch.ones(8, 2, dtype=torch.bool), torch.ones(8, 3, dtype=torch.int64)])
def test_a_mask_that_does_not_fit_is_refused_as_ever(wrong):
    with pytest.raises(ValueError, match=r"`present` must be \(8, 3\) of bool"):
        ModalityDropout().gradients(built(ModalityDropout()), batch()._replace(present=wrong))


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), True])
def test_a_probability_outside_its_range_is_refused(p):
    with pytest.raises(ValueError, match="`p` must be >= 0 and <= 1"):
        ModalityDropout(p=p)


def test_with_one_modality_it_is_joint_training():
    one = FOUR[:1]
    runs = [built(method, names=one) for method in (ModalityDropout(p=0.9), Joint())]
    for method, run in zip((ModalityDropout(p=0.9), Joint()), runs, strict=True):
        steps(method, run, 3, one)
    for mine, other in zip(*(run.network.parameters() for run in runs), strict=True):
        assert torch.equal(mine, other)


def test_a_run_of_it_is_joint_training_at_zero_and_another_above(tmp_path):
    ends = {
        p: trained(tmp_path / str(p), method={"name": "modality_dropout", "p": p}).end["weights"] for p in (0.0, 0.5)
    }
    assert trained(tmp_path / "joint", method="joint").end["weights"] == ends[0.0] != ends[0.5]


def test_samples_that_lack_a_modality_train_in_a_whole_run(tmp_path):
    record = trained(tmp_path, method={"name": "modality_dropout", "p": 0.5}, data=WORLD | {"flaw": "present"})
    assert record.end["status"] == "finished"


def evaluation_has_all_modalities() -> None:
    """Law: before, between and after steps of training, the model answers from all features of every sample."""
    method = ModalityDropout(p=0.9)
    run = built(method)
    for number in range(3):
        run.network.eval()
        x = batch(number)
        features = {name: run.network.encoders[name](x.inputs[name]) for name in run.modalities}
        assert torch.equal(run.network(x.inputs).logits, SumFusion.forward(run.network.fusion, features))
        run.network.train()
        run.begin_step(number)
        method.gradients(run, x)


def both_passes_keep_the_same() -> None:
    """Law: the second pass of a sharpness rule keeps what the first kept, and leaves the generator alone."""
    run, seen = built(ModalityDropout(p=0.5)), []
    for perturbed in (False, True):
        run.perturbed = perturbed
        state = run.generator.get_state()
        features = ModalityDropout(p=0.5).gradients(run, batch()).features
        seen.append([(h.detach() != 0).any(1).tolist() for h in features.values()])
    assert seen[0] == seen[1]
    assert torch.equal(run.generator.get_state(), state)


def test_evaluation_has_all_modalities():
    evaluation_has_all_modalities()


def test_both_passes_of_a_rule_keep_the_same():
    both_passes_keep_the_same()


def test_the_planted_fault_of_dropping_in_evaluation_too_is_caught(monkeypatch):
    def build(self, model, num_classes):
        plain, generator = model.fusion.forward, torch.Generator().manual_seed(0)

        def forward(features):
            size = (len(next(iter(features.values()))), len(features))
            keep = kept(torch.ones(size).bool(), torch.rand(size, generator=generator), self.p)
            return plain({name: h * keep[:, m : m + 1] for m, (name, h) in enumerate(features.items())})

        model.fusion.forward = forward
        return model

    monkeypatch.setattr(ModalityDropout, "build", build)
    with pytest.raises(AssertionError):
        evaluation_has_all_modalities()


def test_the_planted_fault_of_drawing_again_in_the_second_pass_is_caught(monkeypatch):
    def gradients(self, run, batch):
        return methods.Method.gradients(self, run, batch._replace(present=self._drawn(run, batch)))

    monkeypatch.setattr(ModalityDropout, "gradients", gradients)
    with pytest.raises(AssertionError):
        both_passes_keep_the_same()


def test_its_only_setting_is_p_and_it_costs_a_plain_step():
    assert [field.name for field in dataclasses.fields(ModalityDropout)] == ["p"]
    assert ModalityDropout().passes(3) == Joint().passes(3)


def test_the_model_of_a_run_is_a_plain_one(tmp_path):
    trained(tmp_path, method={"name": "modality_dropout", "p": 0.5})
    network = load_model(tmp_path)
    assert not network.heads
