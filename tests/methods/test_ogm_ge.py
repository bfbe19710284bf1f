"""OGM-GE: its coefficients, what a step changes and what it leaves, the noise, the window, and where it is not defined."""

import copy
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as some
from torch import nn

from msam.methods import Run, ogm_ge
from msam.methods.joint import Joint
from msam.methods.ogm_ge import OGMGE, coefficients
from msam.models import MultimodalModel, SumFusion, build
from msam.types import Batch
from tests.methods._toys import CLASSES, EARLY, FOUR, LATE, NAMES, batch, built, close, gradients, model, run_of, steps
from tests.train._runs import trained

unhurried = settings(deadline=None)
PAIR = NAMES[:2]
every_late = pytest.mark.parametrize("fusion", LATE)
every_early = pytest.mark.parametrize("fusion", EARLY)
probabilities = some.floats(1e-6, 1.0)
alphas = some.floats(0.01, 2.0)


def pair_of(fusion: str = "late", seed: int = 0, names=PAIR) -> Run:
    run = run_of(model(fusion, seed, names=names))
    run.begin_step(1)
    return run


def made(method, run, x=None) -> dict:
    torch.manual_seed(0)
    method.gradients(run, x or batch(names=run.modalities))
    return gradients(run)


def double(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def modality_of(key: str) -> str | None:
    parts = key.split(".")
    return parts[1] if parts[0] == "encoders" else None


# The coefficients


@unhurried
@given(probabilities, probabilities, alphas)
def test_with_two_modalities_it_is_the_branch_of_the_official_code(first, second, alpha):
    ratio_v = second / first
    expected = [1.0, 1 - math.tanh(alpha * ratio_v)] if ratio_v > 1 else [1 - math.tanh(alpha / ratio_v), 1.0]
    close(coefficients(double([first, second]), alpha).tolist(), expected, 1e-12)


@unhurried
@given(probabilities, probabilities, alphas)
def test_with_two_modalities_exactly_one_is_damped(first, second, alpha):
    scores = double([first, second])
    damped = (coefficients(scores, alpha) < 1).tolist()
    assert damped == [first >= second, second > first]


@unhurried
@given(some.lists(probabilities, min_size=2, max_size=5), alphas)
def test_it_damps_whoever_is_above_the_mean_of_the_others(scores, alpha):
    ratios = [p / (sum(scores[:m] + scores[m + 1 :]) / (len(scores) - 1)) for m, p in enumerate(scores)]
    assume(all(abs(ratio - 1) > 1e-9 for ratio in ratios))
    expected = [1 - math.tanh(alpha * ratio) if ratio > 1 else 1.0 for ratio in ratios]
    close(coefficients(double(scores), alpha).tolist(), expected, 1e-9)


@unhurried
@given(probabilities, some.integers(2, 5), alphas)
def test_a_tie_of_all_damps_the_first(score, count, alpha):
    k = coefficients(double([score] * count), alpha)
    close(k[0].item(), 1 - math.tanh(alpha), 1e-12)
    assert (k[1:] == 1).all()


@unhurried
@given(some.lists(probabilities, min_size=2, max_size=5))
def test_a_vanishing_alpha_lets_all_through(scores):
    assert (coefficients(double(scores), 0.0) == 1).all()


@unhurried
@given(some.lists(some.floats(0.0, 1.0), min_size=2, max_size=5), some.floats(0.0, 100.0))
def test_coefficients_are_between_zero_and_one_whatever_the_scores(scores, alpha):
    for dtype in (torch.float32, torch.float64):
        k = coefficients(torch.tensor(scores, dtype=dtype), alpha)
        assert k.dtype == dtype
        assert ((k >= 0) & (k <= 1)).all()


@unhurried
@given(some.lists(probabilities, min_size=2, max_size=5, unique=True), alphas, some.randoms())
def test_who_is_who_means_nothing_without_a_tie(scores, alpha, random):
    order = list(range(len(scores)))
    random.shuffle(order)
    values = double(scores)
    assume(((values - values.mean()).abs() > 1e-9).all())
    close(coefficients(values[order], alpha), coefficients(values, alpha)[order], 1e-9)


# A step, written out


def probability_by_hand(logits: torch.Tensor, target: torch.Tensor) -> float:
    return sum(float(torch.softmax(z, 0)[y]) for z, y in zip(logits, target, strict=True))


def split_by_hand(network: MultimodalModel, x: Batch) -> list[torch.Tensor]:
    """Return each modality's logits: its own head of a sum; its columns and half the bias of a concatenation."""
    features = network(x.inputs).features
    linear = network.fusion.linear
    if isinstance(linear, nn.ModuleDict):
        return [linear[name](features[name]) for name in network.modalities]
    start, found = 0, []
    for name in network.modalities:
        stop = start + features[name].shape[1]
        found.append(features[name] @ linear.weight[:, start:stop].T + linear.bias / 2)
        start = stop
    return found


@every_late
@pytest.mark.parametrize("seed", range(4))
def test_steps_without_noise_are_those_written_out_by_hand(fusion, seed):
    run = built(OGMGE(noise=False), fusion, seed, PAIR)
    slow = copy.deepcopy(run.network)
    optimizer = torch.optim.SGD(slow.parameters(), lr=0.1)
    steps(OGMGE(noise=False), run, 3, PAIR)
    for number in range(3):
        x = batch(number, names=PAIR)
        optimizer.zero_grad()
        nn.functional.cross_entropy(slow(x.inputs).logits, x.target).backward()
        with torch.no_grad():
            p_a, p_v = (probability_by_hand(z, x.target) for z in split_by_hand(slow, x))
        stronger = "audio" if p_a >= p_v else "image"
        factor = 1 - math.tanh(0.8 * max(p_a / p_v, p_v / p_a))
        for p in slow.encoders[stronger].parameters():
            p.grad *= factor
        optimizer.step()
    for mine, other in zip(run.network.parameters(), slow.parameters(), strict=True):
        close(mine, other, 1e-10)


def seeing_pair() -> tuple[Run, Batch]:
    """Return two linear encoders and a sum, all identities: the first modality sees the target twice as large."""
    encoders = {name: nn.Linear(CLASSES, CLASSES, bias=False) for name in PAIR}
    network = MultimodalModel(encoders, SumFusion(dict.fromkeys(PAIR, CLASSES), CLASSES)).double()
    with torch.no_grad():
        for name in PAIR:
            encoders[name].weight.copy_(torch.eye(CLASSES))
            network.fusion.linear[name].weight.copy_(torch.eye(CLASSES))
            network.fusion.linear[name].bias.zero_()
    target = torch.arange(CLASSES)
    seen = torch.eye(CLASSES, dtype=torch.float64)
    run = run_of(network)
    run.begin_step(1)
    return run, Batch({"audio": 2 * seen, "image": seen}, target)


def test_a_worked_step_damps_the_modality_that_sees_more():
    run, x = seeing_pair()
    p_a, p_v = math.e**2 / (math.e**2 + 4), math.e / (math.e + 4)
    k = 1 - math.tanh(0.8 * p_a / p_v)
    assert 0.14 < k < 0.15
    plain = made(Joint(), run, x)
    run.network.zero_grad()
    modulated = made(OGMGE(noise=False), run, x)
    close(modulated["encoders.audio.weight"], k * plain["encoders.audio.weight"])
    assert torch.equal(modulated["encoders.image.weight"], plain["encoders.image.weight"])
    assert run.notes["coefficients"] == [round(k, 6), 1.0]


@pytest.mark.parametrize("names", [FOUR[:3], FOUR])
@every_late
def test_the_extension_to_more_modalities_damps_those_above_the_mean_of_the_others(fusion, names):
    plain, run = pair_of(fusion, names=names), pair_of(fusion, names=names)
    before = made(Joint(), plain)
    after = made(OGMGE(noise=False, extend=True), run)
    x = batch(names=names)
    with torch.no_grad():
        logits = run.network.fusion.modality_logits(run.network(x.inputs).features).values()
        scores = [probability_by_hand(z, x.target) for z in logits]
    expected = []
    for m, score in enumerate(scores):
        ratio = score / (sum(scores[:m] + scores[m + 1 :]) / (len(names) - 1))
        expected.append(1 - math.tanh(0.8 * ratio) if ratio > 1 else 1.0)
    assert min(expected) < max(expected)
    for key, grad in after.items():
        modality = modality_of(key)
        close(grad, before[key] * (1.0 if modality is None else expected[names.index(modality)]))


@every_early
def test_the_extension_to_early_fusion_scores_shapley_logits(fusion):
    plain, run = pair_of(fusion), pair_of(fusion)
    before = made(Joint(), plain)
    x = batch(names=PAIR)
    rested = copy.deepcopy(pair_of(fusion).network).eval()
    after = made(OGMGE(noise=False, extend=True), run, x)
    with torch.no_grad():
        for name, buffer in run.network.named_buffers():  # scores are taken after the full pass
            rested.get_buffer(name).copy_(buffer)
        features = rested(x.inputs).features
        none = {name: torch.zeros_like(feature) for name, feature in features.items()}
        both = rested.fuse(features)
        first, second = (rested.fuse(none | {name: features[name]}) for name in PAIR)
        p_a, p_v = (
            probability_by_hand(phi, x.target) for phi in ((both + first - second) / 2, (both - first + second) / 2)
        )
    factor = 1 - math.tanh(0.8 * max(p_a / p_v, p_v / p_a))
    for key, grad in after.items():
        damped = modality_of(key) == ("audio" if p_a >= p_v else "image")
        close(grad, before[key] * (factor if damped else 1.0), 1e-10)


@every_late
def test_where_the_paper_is_defined_the_extension_changes_nothing(fusion):
    plain, extended = made(OGMGE(), pair_of(fusion)), made(OGMGE(extend=True), pair_of(fusion))
    assert all(torch.equal(grad, extended[key]) for key, grad in plain.items())


# Which parameters


def pictures() -> tuple[Run, Batch]:
    """Return two convolutional encoders with BatchNorm and a linear layer, and a batch."""
    torch.manual_seed(0)
    network = build(dict.fromkeys(PAIR, "digit_cnn"), dict.fromkeys(PAIR, (1, 8, 8)), CLASSES, "late").double()
    run = run_of(network)
    run.begin_step(1)
    inputs = {name: torch.randn(6, 1, 8, 8, dtype=torch.float64) for name in PAIR}
    return run, Batch(inputs, torch.randint(CLASSES, (6,)))


def touched(method: OGMGE) -> tuple[set[str], MultimodalModel]:
    (run, x), (plain, same) = pictures(), pictures()
    after, before = made(method, run, x), made(Joint(), plain, same)
    return {key for key in after if not torch.equal(after[key], before[key])}, run.network


def test_the_paper_touches_every_parameter_of_the_encoders_and_nothing_else():
    found, network = touched(OGMGE())
    assert found == {key for key, _ in network.named_parameters() if key.startswith("encoders.")}


def test_the_code_touches_convolution_weights_alone_noise_included():
    found, network = touched(OGMGE(variant="code"))
    convolutions = {key for key, p in network.named_parameters() if p.dim() == 4}
    assert len(convolutions) == 4
    assert found == convolutions


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_without_noise_only_the_encoder_that_leads_is_touched(variant):
    found, network = touched(OGMGE(variant=variant, noise=False))
    assert len({modality_of(key) for key in found}) == 1
    kinds = {key.split(".", 2)[2] for key, p in network.named_parameters() if key.startswith("encoders.")}
    if variant == "code":
        kinds = {key for key in kinds if network.encoders["audio"].get_parameter(key).dim() == 4}
    assert {key.split(".", 2)[2] for key in found} == kinds


def test_features_and_losses_are_those_of_joint_training():
    plain, run, x = pair_of(), pair_of(), batch(names=PAIR)
    first, second = Joint().gradients(plain, x), OGMGE().gradients(run, x)
    assert torch.equal(first.logits, second.logits)


# The noise


def noise_of(run: Run, x: Batch | None = None, method: OGMGE | None = None) -> dict[str, torch.Tensor]:
    """Return what was added to the damped gradients, in units of the standard deviation of the plain ones."""
    method = method or OGMGE()
    plain = copy.deepcopy(run.network)
    plain.zero_grad()
    x = x or batch(names=PAIR)
    made(Joint(), run_of(plain), x)
    after = made(method, run, x)
    factors = dict(zip(run.modalities, run.notes["coefficients"], strict=True))
    found = {}
    for key, p in plain.named_parameters():
        if modality_of(key):
            found[key] = (after[key] - factors[modality_of(key)] * p.grad) / (p.grad.std() + 1e-8)
    return found


def test_noise_is_standard_normal_in_units_of_the_plain_gradients_spread_in_both_modalities():
    noise = noise_of(pair_of())
    for name in PAIR:
        drawn = torch.cat([n.flatten() for key, n in noise.items() if modality_of(key) == name])
        count = len(drawn)
        assert count > 4000
        assert abs(drawn.mean()) < 4 / math.sqrt(count)
        assert abs(drawn.var() - 1) < 4 * math.sqrt(2 / count)
        assert abs((drawn.abs() < 1).double().mean() - 0.6827) < 4 * math.sqrt(0.22 / count)
    first, second = (torch.cat([n.flatten() for k, n in noise.items() if modality_of(k) == name]) for name in PAIR)
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 4 / math.sqrt(len(first))


def test_noise_is_drawn_anew_at_every_step_and_is_the_same_from_the_same_generator():
    runs = [pair_of(), pair_of()]
    first, again = (noise_of(run) for run in runs)
    runs[0].begin_step(2)
    runs[0].network.zero_grad()
    later = noise_of(runs[0])
    for key, noise in first.items():
        assert torch.equal(noise, again[key])
        assert (noise - later[key]).abs().max() > 0.1


def test_a_generator_of_another_seed_gives_other_noise():
    run, other = pair_of(), pair_of()
    other.generator.manual_seed(1)
    first, second = noise_of(run), noise_of(other)
    assert all((noise - second[key]).abs().max() > 0.1 for key, noise in first.items())


def test_noise_does_not_touch_the_global_generator():
    run = pair_of()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    OGMGE().gradients(run, batch(names=PAIR))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_tensor_of_one_entry_has_no_spread_and_stays_finite():
    encoders = {name: nn.Sequential(nn.Linear(6, 1), nn.Tanh()) for name in PAIR}
    network = MultimodalModel(encoders, SumFusion(dict.fromkeys(PAIR, 1), CLASSES)).double()
    run, plain = run_of(network), run_of(copy.deepcopy(network))
    before, after = made(Joint(), plain), made(OGMGE(alpha=0.0), run)
    for name in PAIR:
        bias, weight = f"encoders.{name}.0.bias", f"encoders.{name}.0.weight"
        assert 0 < (after[bias] - before[bias]).abs() < 1e-7
        assert (after[weight] - before[weight]).abs().max() > 1e-4


def law_second_pass_adds_the_very_same_noise() -> None:
    run, x = pair_of(), batch(names=PAIR)
    plain = copy.deepcopy(run.network)
    first_plain = made(Joint(), run_of(plain), x)
    first = made(OGMGE(), run, x)
    factors = dict(zip(PAIR, run.notes["coefficients"], strict=True))
    run.network.zero_grad()
    run.perturbed = True
    assert all(torch.equal(grad, first[key]) for key, grad in made(OGMGE(), run, x).items())
    with torch.no_grad():
        for p in run.network.parameters():
            p.add_(0.3)
    run.network.zero_grad()
    moved = made(Joint(), run_of(copy.deepcopy(run.network)), x)
    second = made(OGMGE(), run, x)
    for key, grad in second.items():
        factor = factors.get(modality_of(key), 1.0)
        assert (moved[key] - first_plain[key]).abs().max() > 1e-4
        close(grad - factor * moved[key], first[key] - factor * first_plain[key], 1e-5)  # k is rounded in the notes


def test_the_second_pass_reuses_coefficients_and_noise():
    law_second_pass_adds_the_very_same_noise()


def test_the_planted_fault_noise_redrawn_in_the_second_pass_is_caught(monkeypatch):
    law_second_pass_adds_the_very_same_noise()
    plain, draws = ogm_ge._add_noise, iter(range(100))
    monkeypatch.setattr(ogm_ge, "_add_noise", lambda sizes, seed: plain(sizes, seed + next(draws)))
    with pytest.raises(AssertionError):
        law_second_pass_adds_the_very_same_noise()


# When it does nothing


def law_outside_the_window_it_is_joint_training(epoch: int) -> None:
    method = OGMGE(first_epoch=3, last_epoch=5)
    run, plain = pair_of(), pair_of()
    run.epoch = plain.epoch = epoch
    before = run.generator.get_state()
    after, expected = made(method, run), made(Joint(), plain)
    assert all(torch.equal(grad, expected[key]) for key, grad in after.items())
    assert not run.notes
    assert torch.equal(run.generator.get_state(), before)


@pytest.mark.parametrize("epoch", [1, 2, 6, 7])
def test_outside_the_window_it_is_joint_training(epoch):
    law_outside_the_window_it_is_joint_training(epoch)


@pytest.mark.parametrize("epoch", [3, 4, 5])
def test_inside_the_window_it_acts_both_ends_included(epoch):
    with pytest.raises(AssertionError):
        law_outside_the_window_it_is_joint_training(epoch)


def test_without_an_end_the_window_lasts():
    run = pair_of()
    run.epoch = 1000
    made(OGMGE(), run)
    assert "coefficients" in run.notes


@every_late
def test_with_alpha_zero_and_without_noise_it_is_joint_training(fusion):
    law_it_is_joint_training_when_switched_off(fusion)


def law_it_is_joint_training_when_switched_off(fusion: str) -> None:
    after, expected = made(OGMGE(alpha=0.0, noise=False), pair_of(fusion)), made(Joint(), pair_of(fusion))
    assert all(torch.equal(grad, expected[key]) for key, grad in after.items())


def test_the_planted_fault_noise_outside_the_window_is_caught(monkeypatch):
    plain = OGMGE.modulate

    def noisy_for_ever(self, run, output, x):
        plain(self, run, output, x)
        if not run.notes:
            ogm_ge._add_noise({p: p.grad.std() for p in run.network.encoders.parameters()}, 0)

    monkeypatch.setattr(OGMGE, "modulate", noisy_for_ever)
    with pytest.raises(AssertionError):
        law_outside_the_window_it_is_joint_training(6)


def test_the_planted_fault_noise_that_no_flag_switches_off_is_caught(monkeypatch):
    plain = OGMGE.modulate

    def noisy(self, run, output, x):
        plain(self, run, output, x)
        if not self.noise:
            ogm_ge._add_noise({p: p.grad.std() for p in run.network.encoders.parameters()}, 0)

    monkeypatch.setattr(OGMGE, "modulate", noisy)
    with pytest.raises(AssertionError):
        law_it_is_joint_training_when_switched_off("late")


def law_exactly_one_encoder_is_damped() -> None:
    run, plain = pair_of(), pair_of()
    after, before = made(OGMGE(noise=False), run), made(Joint(), plain)
    ratios = {
        name: {
            round(float((after[k] * before[k]).sum() / (before[k] ** 2).sum()), 9)
            for k in after
            if modality_of(k) == name
        }
        for name in PAIR
    }
    assert sorted(len(found) for found in ratios.values()) == [1, 1]
    factors = sorted(found.pop() for found in ratios.values())
    assert factors[0] < 0.5
    assert factors[1] == 1


def test_exactly_one_encoder_is_damped_by_one_factor():
    law_exactly_one_encoder_is_damped()


def test_the_planted_fault_parameters_by_a_name_that_never_matches_is_caught(monkeypatch):
    def by_name(self, network, name):
        return [p for key, p in network.named_parameters() if key.split(".")[1] == f"{name}_net"]

    monkeypatch.setattr(OGMGE, "_modulated", by_name)
    with pytest.raises(AssertionError):
        law_exactly_one_encoder_is_damped()


# Where it is not defined


def test_convolutions_are_asked_for_by_the_code_where_there_are_none():
    with pytest.raises(ValueError, match=r"encoder of 'audio' has none.*`method\.variant paper`"):
        OGMGE(variant="code").build(model(names=PAIR), CLASSES)
    network = pictures()[0].network
    assert OGMGE(variant="code").build(network, CLASSES) is network


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_an_encoder_without_parameters_is_refused(variant):
    bare = MultimodalModel({name: nn.Flatten() for name in PAIR}, SumFusion(dict.fromkeys(PAIR, 6), CLASSES))
    with pytest.raises(ValueError, match=r"that of 'audio' has no parameters: nothing would happen"):
        OGMGE(variant=variant).build(bare, CLASSES)


@pytest.mark.parametrize(("fusion", "names"), [("late", NAMES), ("maxout", PAIR), ("early", FOUR)])
def test_what_the_paper_leaves_undefined_is_refused_with_the_way_out(fusion, names):
    found = rf"found {len(names)} modalities and {'Sum' if fusion == 'late' else 'Maxout'}Fusion"
    with pytest.raises(ValueError, match=rf"{found}.*`method\.extend true` \(an extension of ours\)"):
        OGMGE().build(model(fusion, names=names), CLASSES)
    OGMGE(extend=True).build(model(fusion, names=names), CLASSES)


@pytest.mark.parametrize("extend", [False, True])
def test_a_single_modality_is_refused(extend):
    with pytest.raises(ValueError, match=r"needs at least two, found \['audio'\]"):
        OGMGE(extend=extend).build(model(names=NAMES[:1]), CLASSES)


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"Unknown variant 'papr'\. Did you mean 'paper'\?"):
        OGMGE(variant="papr")


def test_the_targets_of_a_regression_are_refused():
    with pytest.raises(ValueError, match=r"labels \(N, K\), received a target \(8, 5\) of torch\."):
        OGMGE().gradients(pair_of(), batch(names=PAIR)._replace(target=torch.rand(8, CLASSES).double()))


# Whole runs


def test_the_record_holds_one_coefficient_per_modality_of_which_one_is_damped(tmp_path):
    record = trained(tmp_path, method={"name": "ogm_ge", "last_epoch": 2}, epochs=3, record_every=1)
    for line in record.steps:
        if line["epoch"] == 3:
            assert "method" not in line
        else:
            damped, plain = sorted(line["method"]["coefficients"])
            assert damped < 1
            assert plain == 1
