"""AGM: its ratios and coefficients, the gradient split at the logits, modes and passes, the window, the running mean."""

import copy
import dataclasses
import math

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import nn

from msam.methods import Run, agm
from msam.methods.agm import AGM, coefficients, ratios, split
from msam.methods.joint import Joint
from msam.models import MultimodalModel, SumFusion, build
from msam.train import train
from msam.types import Batch
from tests.definitions import shapley as definition
from tests.methods._toys import CLASSES, EARLY, FOUR, LATE, NAMES, batch, built, close, gradients, model, run_of, steps
from tests.train._runs import StopAt, settings, trained

unhurried = hypothesis.settings(deadline=None)
PAIR = NAMES[:2]
every_fusion = pytest.mark.parametrize("fusion", [*LATE, *EARLY])
every_count = pytest.mark.parametrize("count", [2, 3, 4])
every_absent = pytest.mark.parametrize("absent", ["input", "feature"])
every_variant = pytest.mark.parametrize("variant", ["paper", "code"])
losses_ = some.floats(0.0, 5.0)
several = some.lists(losses_, min_size=2, max_size=5)


def double(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def relative(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def made(method, run: Run, x: Batch | None = None) -> dict:
    torch.manual_seed(0)
    method.gradients(run, x or batch(names=run.modalities))
    return gradients(run)


def pictures(fusion: str = "late", **options) -> MultimodalModel:
    """Return two convolutional encoders with BatchNorm whose statistics have seen something."""
    torch.manual_seed(0)
    network = build(dict.fromkeys(PAIR, "digit_cnn"), dict.fromkeys(PAIR, (1, 8, 8)), CLASSES, fusion, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.bias.data.normal_()
    return network.double()


def pictured(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = {name: torch.randn(6, 1, 8, 8, generator=generator, dtype=torch.float64) for name in PAIR}
    return Batch(inputs, torch.randint(CLASSES, (6,), generator=generator))


# Ratios and coefficients


def ratios_by_hand(losses: list[float]) -> list[float]:
    """Return them as the official code writes them, from the mean of all."""
    count = len(losses)
    return [math.exp(count / (count - 1) * (sum(losses) / count - loss)) for loss in losses]


def coefficients_by_hand(losses: list[float], before: list[float], alpha: float, cap: float) -> list[float]:
    now, then = ratios_by_hand(losses), ratios_by_hand(before)
    return [math.exp(alpha * min(tau - r, cap)) for r, tau in zip(now, then, strict=True)]


@unhurried
@given(several)
def test_ratios_compare_with_the_mean_of_the_others(losses):
    relative(ratios(double(losses)), double(ratios_by_hand(losses)))
    others = [sum(losses[:m] + losses[m + 1 :]) / (len(losses) - 1) for m in range(len(losses))]
    relative(ratios(double(losses)), (double(others) - double(losses)).exp())


@unhurried
@given(losses_, losses_)
def test_two_ratios_are_inverse(first, second):
    r = ratios(double([first, second]))
    relative(r[0], double([second - first]).exp()[0])
    relative(r[0] * r[1], torch.ones_like(r[0]))


@unhurried
@given(losses_, some.integers(2, 6))
def test_equal_losses_have_ratios_of_exactly_one(loss, count):
    assert (ratios(double([loss] * count)) == 1).all()


@unhurried
@given(several, some.data(), some.floats(0.0, 3.0), some.floats(0.0, 12.0))
def test_coefficients_are_the_formula(losses, data, alpha, cap):
    before = data.draw(some.lists(losses_, min_size=len(losses), max_size=len(losses)))
    expected = double(coefficients_by_hand(losses, before, alpha, cap))
    relative(coefficients(double(losses), double(before), alpha, cap), expected, 1e-8)
    uncapped = coefficients(double(losses), double(before), 0.01, None)
    relative(uncapped, double(coefficients_by_hand(losses, before, 0.01, math.inf)), 1e-8)


@unhurried
@given(several, some.data(), some.floats(0.0, 3.0), some.floats(0.0, 12.0))
def test_coefficients_are_positive_and_below_their_cap(losses, data, alpha, cap):
    before = data.draw(some.lists(losses_, min_size=len(losses), max_size=len(losses)))
    kappa = coefficients(double(losses), double(before), alpha, cap)
    assert ((kappa >= 0) & (kappa <= math.exp(alpha * cap) * (1 + 1e-12))).all()


@unhurried
@given(several, some.data())
def test_at_alpha_zero_every_coefficient_is_exactly_one(losses, data):
    before = data.draw(some.lists(losses_, min_size=len(losses), max_size=len(losses)))
    assert (coefficients(double(losses), double(before), 0.0, 10.0) == 1).all()


@unhurried
@given(several, some.floats(0.1, 2.0))
def test_a_step_like_the_mean_so_far_changes_nothing(losses, alpha):
    assert (coefficients(double(losses), double(losses), alpha, 10.0) == 1).all()


def law_at_the_first_step_whoever_is_ahead_is_damped(losses: list[float]) -> None:
    kappa = coefficients(double(losses), torch.zeros(len(losses)).double(), 1.0, 10.0)
    mean = [sum(losses[:m] + losses[m + 1 :]) / (len(losses) - 1) for m in range(len(losses))]
    for m, loss in enumerate(losses):
        if loss < mean[m] - 1e-6:
            assert kappa[m] < 1
        if loss > mean[m] + 1e-6:
            assert kappa[m] > 1


@unhurried
@given(several)
def test_at_the_first_step_whoever_is_ahead_is_damped(losses):
    law_at_the_first_step_whoever_is_ahead_is_damped(losses)


def test_the_planted_fault_a_flipped_sign_is_caught(monkeypatch):
    law_at_the_first_step_whoever_is_ahead_is_damped([0.5, 1.5])
    law_a_worked_step_damps_the_part_of_the_modality_that_sees_more()
    plain = ratios
    monkeypatch.setattr(agm, "ratios", lambda losses: plain(-losses))
    with pytest.raises(AssertionError):
        law_at_the_first_step_whoever_is_ahead_is_damped([0.5, 1.5])
    with pytest.raises(AssertionError):
        law_a_worked_step_damps_the_part_of_the_modality_that_sees_more()


def law_a_worked_step_damps_the_part_of_the_modality_that_sees_more() -> None:
    """Identities throughout, no bias: inputs of zeros give zeros, so each encoder gets exactly its kappa."""
    eye = torch.eye(CLASSES, dtype=torch.float64)
    encoders = {name: nn.Linear(CLASSES, CLASSES, bias=False) for name in PAIR}
    network = MultimodalModel(encoders, SumFusion(dict.fromkeys(PAIR, CLASSES), CLASSES)).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(eye if p.dim() == 2 else torch.zeros(CLASSES))
    x = Batch({"audio": 2 * eye, "image": eye}, torch.arange(CLASSES))
    plain, run = run_of(copy.deepcopy(network)), run_of(network)
    before, after = made(Joint(), plain, x), made(AGM(alpha=1.0), run, x)
    p_a, p_v = math.e**2 / (math.e**2 + 4), math.e / (math.e + 4)
    kappa_a, kappa_v = math.exp(1 - p_a / p_v), math.exp(1 - p_v / p_a)
    assert kappa_a < 0.6
    assert kappa_v > 1.4
    close(after["encoders.audio.weight"], kappa_a * before["encoders.audio.weight"])
    close(after["encoders.image.weight"], kappa_v * before["encoders.image.weight"])
    assert run.notes["coefficients"] == [round(kappa_a, 6), round(kappa_v, 6)]


def test_a_worked_step_damps_the_part_of_the_modality_that_sees_more():
    law_a_worked_step_damps_the_part_of_the_modality_that_sees_more()


# The split


@unhurried
@given(some.integers(0, 1000), some.integers(2, 4))
def test_a_split_scales_gradients_and_never_values(seed, count):
    generator = torch.Generator().manual_seed(seed)
    responses = torch.randn(count, 3, 4, generator=generator, dtype=torch.float32).requires_grad_()
    scales = torch.rand(count, generator=generator).double() * math.exp(28)
    logits = responses.detach().sum(0) * (1 + 1e-6)  # the sum of responses is rounded, the value is not
    weights = torch.randn(3, 4, generator=generator)
    found = split(logits, responses, scales)
    assert torch.equal(found, logits)
    (found * weights).sum().backward()
    relative(responses.grad, scales.float()[:, None, None] * weights, 1e-6)


def test_a_split_leaves_the_responses_of_others_alone():
    responses = torch.ones(2, 1, 1, requires_grad=True)
    once = responses * 1
    (split(once.sum(0), once, torch.tensor([5.0, 5.0])).sum() + once.sum()).backward()
    assert responses.grad.flatten().tolist() == [6.0, 6.0]


# The gradient, against the official algorithm written out: a full pass of the network for every coalition


def zeroed(x: Batch, members: frozenset[int], names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return {n: x.inputs[n] if m in members else torch.zeros_like(x.inputs[n]) for m, n in enumerate(names)}


def responses_by_hand(network: MultimodalModel, x: Batch, absent: str, variant: str) -> list[torch.Tensor]:
    names = network.modalities
    everything = frozenset(range(len(names)))
    sets = [s for s in map(frozenset, definition.by_set(torch.zeros(2 ** len(names) - 1, 1))) if s != everything]
    full = network(x.inputs)
    modes = {module: module.training for module in network.modules()}
    network.eval()
    worth = {everything: full.logits}
    for members in sets:
        if variant == "code" and absent == "input":
            worth[members] = network(zeroed(x, members, names)).logits
            continue
        there = full.features if variant == "paper" else network.encode(x.inputs)
        nothing = network.encode(zeroed(x, frozenset(), names))
        away = nothing if absent == "input" else {n: torch.zeros_like(h) for n, h in there.items()}
        worth[members] = network.fuse({n: there[n] if m in members else away[n] for m, n in enumerate(names)})
    for module, mode in modes.items():
        module.training = mode
    if len(names) == 2:
        a, v, both = (worth[frozenset(s)] for s in ({0}, {1}, {0, 1}))
        return [0.5 * (both - v + a), 0.5 * (both - a + v)]
    if len(names) == 3:
        found = []
        for m in range(3):
            j, k = (other for other in range(3) if other != m)
            alone, rest = worth[frozenset({m})], worth[frozenset({j, k})]
            pairs = worth[frozenset({m, j})] - worth[frozenset({j})] + worth[frozenset({m, k})] - worth[frozenset({k})]
            found.append((full.logits - rest + alone) / 3 + pairs / 6)
        return found
    return list(definition.values(worth, len(names)))


def gradients_by_hand(
    network: MultimodalModel, x: Batch, absent: str, variant: str, scales: list[float] | None, before: list[float]
) -> tuple[dict, list[float], list[float]]:
    """Return gradients, losses and scales; the scales are made from the losses where none are given."""
    torch.manual_seed(0)
    responses = responses_by_hand(network, x, absent, variant)
    losses = []
    for phi in responses:
        rows = [-math.log(max(float(z.softmax(0)[y]), 1e-8)) for z, y in zip(phi.detach(), x.target, strict=True)]
        losses.append(sum(rows) / len(rows))
    scales = scales or coefficients_by_hand(losses, before, 1.5, 10.0)
    out = sum(responses).detach().requires_grad_()
    (g,) = torch.autograd.grad(nn.functional.cross_entropy(out, x.target), out)
    parameters = dict(network.named_parameters())
    total = {key: torch.zeros_like(p) for key, p in parameters.items()}
    for phi, scale in zip(responses, scales, strict=True):
        parts = torch.autograd.grad(phi, list(parameters.values()), scale * g, retain_graph=True, allow_unused=True)
        for key, part in zip(parameters, parts, strict=True):
            if part is not None:
                total[key] = total[key] + part
    return total, losses, scales


def law_steps_are_the_algorithm_written_out(
    network: MultimodalModel, batches: list[Batch], absent: str = "input", variant: str = "paper"
) -> None:
    method, slow = AGM(absent=absent, variant=variant), copy.deepcopy(network)
    run, history = run_of(network, torch.optim.SGD(network.parameters(), lr=0.05)), []
    for number, x in enumerate(batches, start=1):
        run.begin_step(number)
        run.optimizer.zero_grad()
        fast = made(method, run, x)
        means = [sum(column) / len(history) for column in zip(*history, strict=True)] or [0.0] * len(run.modalities)
        expected, losses, scales = gradients_by_hand(slow, x, absent, variant, None, means)
        history.append(losses)
        assert run.notes["coefficients"] == [round(k, 6) for k in scales]
        assert max(abs(k - 1) for k in scales) > 1e-4
        for key, p in slow.named_parameters():
            relative(fast[key], expected[key])
            with torch.no_grad():
                p.sub_(0.05 * expected[key])
        run.optimizer.step()


@every_variant
@every_absent
@every_fusion
@every_count
def test_steps_are_the_algorithm_written_out(fusion, count, absent, variant):
    names = FOUR[:count]
    batches = [batch(seed, names=names) for seed in range(3)]
    law_steps_are_the_algorithm_written_out(model(fusion, names=names), batches, absent, variant)


@every_variant
@every_absent
@pytest.mark.parametrize("fusion", ["late", "maxout"])
def test_with_batchnorm_in_the_encoders_too(fusion, absent, variant):
    network = pictures(fusion, **({"hidden": (8,)} if fusion == "maxout" else {}))
    law_steps_are_the_algorithm_written_out(network, [pictured(seed) for seed in range(2)], absent, variant)


def test_with_batchnorm_the_two_variants_are_not_the_same():
    first, second = (made(AGM(variant=v), run_of(pictures()), pictured()) for v in ("paper", "code"))
    assert max((first[key] - second[key]).abs().max() for key in first) > 1e-4


def test_inputs_of_zeros_are_not_features_of_zeros():
    first, second = (made(AGM(absent=a), run_of(model(names=PAIR))) for a in ("input", "feature"))
    assert max((first[key] - second[key]).abs().max() for key in first) > 1e-4


def with_scales(monkeypatch, scales: list[float]) -> None:
    monkeypatch.setattr(agm, "coefficients", lambda *_: double(scales))


def law_gradient_identity(fusion: str, scales: tuple[float, float], monkeypatch) -> None:
    """`(a + v) / 2 dT/dw + (a - v) / 2 (dF(a, 0)/dw - dF(0, v)/dw)`, for a network without modes, of every parameter."""
    run, x = run_of(model(fusion, names=PAIR).eval()), batch(names=PAIR)
    with_scales(monkeypatch, list(scales))
    found = made(AGM(), run, x)
    network = copy.deepcopy(run.network)
    weights = list(network.parameters())
    full, first, second = (network(zeroed(x, frozenset(s), PAIR)).logits for s in ({0, 1}, {0}, {1}))
    out = full.detach().requires_grad_()
    (g,) = torch.autograd.grad(nn.functional.cross_entropy(out, x.target), out)
    of_full, of_first, of_second = (
        torch.autograd.grad(f, weights, g, retain_graph=True) for f in (full, first, second)
    )
    mean, half = sum(scales) / 2, (scales[0] - scales[1]) / 2
    for (key, _), t, a, v in zip(network.named_parameters(), of_full, of_first, of_second, strict=True):
        relative(found[key], mean * t + half * (a - v), 1e-11)


@every_fusion
@pytest.mark.parametrize("scales", [(0.3, 2.0), (1.7, 0.2), (0.0, 1.0), (5.0, 5.0)])
def test_the_gradient_identity(fusion, scales, monkeypatch):
    law_gradient_identity(fusion, scales, monkeypatch)


def test_the_planted_fault_encoder_gradients_multiplied_instead_of_logits_split_is_caught(monkeypatch):
    law_gradient_identity("late", (0.3, 2.0), monkeypatch)

    def multiplied(self, run, x):
        output = Joint().gradients(run, x)
        for name, factor in zip(run.modalities, (0.3, 2.0), strict=True):
            for p in run.network.encoders[name].parameters():
                p.grad.mul_(factor)
        return output

    monkeypatch.setattr(AGM, "gradients", multiplied)
    with pytest.raises(AssertionError):
        law_gradient_identity("late", (0.3, 2.0), monkeypatch)


def test_of_a_late_fusion_each_encoder_gets_its_scale_and_half_the_difference_through_what_it_makes_of_zeros(
    monkeypatch,
):
    with_scales(monkeypatch, [0.3, 2.0])
    run, x = run_of(model(names=PAIR)), batch(names=PAIR)
    found = made(AGM(), run, x)
    network = copy.deepcopy(run.network)
    out = network(x.inputs).logits.detach().requires_grad_()
    (g,) = torch.autograd.grad(nn.functional.cross_entropy(out, x.target), out)
    for name, own, other in (("audio", 0.3, 2.0), ("image", 2.0, 0.3)):
        encoder, head = network.encoders[name], network.fusion.linear[name]
        weights = list(encoder.parameters())
        usual = torch.autograd.grad(head(encoder(x.inputs[name])), weights, g)
        nothing = torch.autograd.grad(head(encoder(torch.zeros_like(x.inputs[name]))), weights, g)
        for (key, _), u, n in zip(encoder.named_parameters(), usual, nothing, strict=True):
            relative(found[f"encoders.{name}.{key}"], own * u + (other - own) / 2 * n)


@every_fusion
@every_absent
@every_variant
def test_scales_of_one_are_joint_training(fusion, absent, variant):
    plain, run = built(Joint(), fusion), built(Joint(), fusion)
    expected, found = made(Joint(), plain), made(AGM(alpha=0.0, absent=absent, variant=variant), run)
    for key, grad in found.items():
        close(grad, expected[key])


@every_fusion
def test_logits_and_loss_are_those_of_joint_training_bit_for_bit_however_large_the_scales(fusion, monkeypatch):
    with_scales(monkeypatch, [math.exp(28)] * 3)
    outcomes = []
    for method in (Joint(), AGM()):
        run, losses = run_of(model(fusion, dtype=torch.float32)), []
        plain = run.backward
        run.backward = lambda loss, retain_graph=False, plain=plain, losses=losses: (
            losses.append(loss.detach()),
            plain(loss, retain_graph=retain_graph),
        )
        torch.manual_seed(0)
        output = method.gradients(run, batch(dtype=torch.float32))
        outcomes.append((output.logits, torch.stack(losses)))
    assert torch.equal(outcomes[0][0], outcomes[1][0])
    assert torch.equal(outcomes[0][1], outcomes[1][1])


def test_of_a_concatenation_with_features_of_zeros_the_responses_are_the_split_logits():
    run, x = run_of(model("concat")), batch()
    made(AGM(absent="feature"), run, x)
    with torch.no_grad():
        logits = run.network.fusion.modality_logits(run.network(x.inputs).features).values()
        losses = [float(nn.functional.cross_entropy(z, x.target)) for z in logits]
    expected = coefficients_by_hand(losses, [0.0] * 3, 1.5, 10.0)
    assert run.notes["coefficients"] == [round(k, 6) for k in expected]


# Modes, passes and what is left alone


@pytest.mark.parametrize("fusion", ["late", "maxout"])
@every_absent
@every_variant
def test_batchnorm_statistics_are_updated_once_by_the_full_pass(fusion, absent, variant):
    options = {"hidden": (8,)} if fusion == "maxout" else {}
    plain, run = run_of(pictures(fusion, **options)), run_of(pictures(fusion, **options))
    made(Joint(), plain, pictured())
    made(AGM(absent=absent, variant=variant), run, pictured())
    expected = dict(plain.network.named_buffers())
    assert expected
    for key, buffer in run.network.named_buffers():
        assert torch.equal(buffer, expected[key])


@every_variant
def test_every_module_is_left_in_its_mode(variant):
    run = run_of(pictures("maxout", hidden=(8,)))
    run.network.encoders["audio"].eval()
    before = {key: module.training for key, module in run.network.named_modules()}
    assert set(before.values()) == {True, False}
    made(AGM(variant=variant), run, pictured())
    assert {key: module.training for key, module in run.network.named_modules()} == before


def test_modes_come_back_when_the_fusion_fails(monkeypatch):
    run = run_of(model())
    monkeypatch.setattr(run.network, "fuse", lambda _: 1 / 0)
    run.model = model()
    with pytest.raises(ZeroDivisionError):
        AGM().gradients(run, batch())
    assert all(module.training for module in run.network.modules())


@every_variant
def test_it_draws_what_joint_training_draws(variant):
    states = []
    for method in (Joint(), AGM(variant=variant)):
        run = run_of(model("maxout"))
        made(method, run)
        states.append((torch.get_rng_state(), run.generator.get_state()))
    assert torch.equal(states[0][0], states[1][0])
    assert torch.equal(states[0][1], states[1][1])


@pytest.mark.parametrize("fusion", ["late", "concat", "maxout"])
@pytest.mark.parametrize(
    ("absent", "variant", "samples"),
    [("feature", "paper", [8]), ("input", "paper", [8, 1]), ("feature", "code", [8, 8]), ("input", "code", [8, 8, 1])],
)
@every_count
def test_the_samples_that_pass_through_encoders_and_fusion(fusion, absent, variant, samples, count):
    names = FOUR[:count]
    run, seen = (
        run_of(model(fusion, names=names)),
        {key: [] for key in (*names, "fusion", *(f"{n} back" for n in names))},
    )

    def listening(key):
        def hook(_module, _inputs, out):
            seen[key].append(len(out))
            if key != "fusion":
                out.register_hook(lambda grad: seen[f"{key} back"].append(len(grad)))

        return hook

    for name in names:
        run.network.encoders[name].register_forward_hook(listening(name))
    run.network.fusion.register_forward_hook(listening("fusion"))
    method = AGM(absent=absent, variant=variant)
    made(method, run)
    for name in names:
        assert seen[name] == samples
        assert sorted(seen[f"{name} back"]) == sorted(samples)
    assert seen["fusion"] == [8, 8 * (2**count - 2)]
    declared = method.passes(count)
    assert declared.forward == declared.backward == sum(samples) // 8


def test_what_a_model_adds_to_the_loss_is_added_and_not_scaled(monkeypatch):
    with_scales(monkeypatch, [0.3, 2.0, 1.5])
    run, x = run_of(model()), batch()
    expected = made(AGM(), run, x)
    run.network.zero_grad()
    plain = run.model
    run.model = lambda *given: plain(*given)._replace(extra_loss=3.0 * plain.encoders["text"].layers[1].bias.sum())
    for key, grad in made(AGM(), run, x).items():
        close(grad, expected[key] + 3.0 * (key == "encoders.text.layers.1.bias"))


@every_absent
@every_variant
def test_what_stands_for_an_absent_modality_of_a_sample_means_nothing(absent, variant):
    present = torch.rand(8, 3, generator=torch.Generator().manual_seed(0)) < 0.6
    found = []
    for filler in (0.0, 7.0):
        x = batch()
        inputs = {
            name: torch.where(present[:, m, None], x.inputs[name], torch.full((), filler).double())
            for m, name in enumerate(NAMES)
        }
        run = run_of(model())
        found.append(made(AGM(absent=absent, variant=variant), run, Batch(inputs, x.target, present)))
    for key, grad in found[0].items():
        assert grad.any()
        close(grad, found[1][key])


@every_absent
@every_variant
def test_a_sample_that_lacks_a_modality_has_zeros_for_it_in_every_coalition_and_counts_not_in_its_score(
    absent, variant
):
    run, x = run_of(model(names=PAIR)), batch(names=PAIR)
    present = torch.tensor([[True, True]] * 4 + [[True, False]] * 4)
    made(AGM(absent=absent, variant=variant), run, x._replace(present=present))
    network = run.network
    with torch.no_grad():
        seen = {n: network.encoders[n](x.inputs[n]) for n in PAIR}
        unseen = {n: network.encoders[n](torch.zeros_like(x.inputs[n])) for n in PAIR}
        gone = unseen if absent == "input" else {n: torch.zeros_like(h) for n, h in seen.items()}
        for features in (seen, gone):
            features["image"] = features["image"] * present[:, 1:]
        there, away = ({n: network.fusion.linear[n](h) for n, h in f.items()} for f in (seen, gone))
        both, first, second = (a["audio"] + b["image"] for a, b in ((there, there), (there, away), (away, there)))
        responses = ((both - second + first) / 2, (both - first + second) / 2)
        losses = [
            float(nn.functional.cross_entropy(phi[has], x.target[has]))
            for phi, has in zip(responses, present.T, strict=True)
        ]
    expected = coefficients_by_hand(losses, [0.0, 0.0], 1.5, 10.0)
    assert run.notes["coefficients"] == [round(k, 6) for k in expected]


# From step to step


def test_the_mean_is_over_all_steps_and_zeros_before_the_first():
    run, losses = built(AGM()), []
    plain = agm.cross_entropy

    def listening(*given):
        losses.append(plain(*given))
        return losses[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agm, "cross_entropy", listening)
        steps(AGM(), run, 5)
    assert len(losses) == run.state["seen"] == 5
    close(run.state["losses"], torch.stack(losses).mean(0))


@every_variant
def test_the_second_pass_reuses_the_scales_and_leaves_the_mean(variant):
    method = AGM(variant=variant)
    run, x = built(method, names=PAIR), batch(names=PAIR)
    made(method, run, x)
    scales, seen, mean = run.state["scales"], run.state["seen"], run.state["losses"].clone()
    with torch.no_grad():
        for p in run.network.parameters():
            p.add_(0.2)
    run.network.zero_grad()
    run.perturbed = True
    found = made(method, run, x)
    expected, losses, _ = gradients_by_hand(
        copy.deepcopy(run.network), x, "input", variant, scales.tolist(), [0.0, 0.0]
    )
    assert max(abs(a - b) for a, b in zip(losses, mean.tolist(), strict=True)) > 1e-3
    assert run.state["seen"] == seen
    assert torch.equal(run.state["losses"], mean)
    assert torch.equal(run.state["scales"], scales)
    for key, grad in found.items():
        relative(grad, expected[key])


# The window


def after_some_steps(method: AGM, epoch: int) -> Run:
    run = built(method, names=PAIR)
    run.epoch = method.first_epoch
    steps(method, run, 3, PAIR)
    run.epoch = epoch
    run.begin_step(4)
    run.optimizer.zero_grad()
    return run


def law_after_the_window_it_is_joint_training() -> None:
    method = AGM(first_epoch=2, last_epoch=3)
    run = after_some_steps(method, 4)
    plain = run_of(copy.deepcopy(run.network))
    found, expected = made(method, run), made(Joint(), plain)
    assert not run.notes
    assert run.state["seen"] == 3
    assert all(torch.equal(grad, expected[key]) for key, grad in found.items())


def test_after_the_window_it_is_joint_training():
    law_after_the_window_it_is_joint_training()


def test_the_planted_fault_stale_scales_after_the_window_is_caught(monkeypatch):
    law_after_the_window_it_is_joint_training()
    plain = AGM._modulated
    monkeypatch.setattr(
        AGM, "_modulated", lambda self, *given: plain(dataclasses.replace(self, variant="code"), *given)
    )
    with pytest.raises(AssertionError):
        law_after_the_window_it_is_joint_training()


def test_after_the_window_the_code_goes_on_with_its_last_scales():
    method = AGM(variant="code", last_epoch=3)
    run, x = after_some_steps(method, 4), batch(names=PAIR)
    scales, mean = run.state["scales"].tolist(), run.state["losses"].clone()
    assert max(abs(k - 1) for k in scales) > 1e-3
    slow = copy.deepcopy(run.network)
    found = made(method, run, x)
    expected, _, _ = gradients_by_hand(slow, x, "input", "code", scales, [0.0, 0.0])
    assert run.notes["coefficients"] == [round(k, 6) for k in scales]
    assert torch.equal(run.state["losses"], mean)
    for key, grad in found.items():
        relative(grad, expected[key])


@every_variant
def test_before_the_window_it_is_joint_training_and_no_loss_enters_the_mean(variant):
    method = AGM(variant=variant, first_epoch=2)
    run, plain = built(method), built(Joint())
    found, expected = made(method, run), made(Joint(), plain)
    assert all(torch.equal(grad, expected[key]) for key, grad in found.items())
    assert not run.state
    assert not run.notes


@pytest.mark.parametrize("epoch", [2, 3])
def test_inside_the_window_it_acts_both_ends_included(epoch):
    run = built(AGM(first_epoch=2, last_epoch=3))
    run.epoch = epoch
    made(AGM(first_epoch=2, last_epoch=3), run)
    assert len(run.notes["coefficients"]) == 3


def test_stale_scales_survive_a_checkpoint(tmp_path):
    wanted = settings(method={"name": "agm", "variant": "code", "last_epoch": 1}, epochs=3, checkpoint_every=1)
    expected = train(wanted, tmp_path / "undisturbed")
    with pytest.raises(KeyboardInterrupt):
        train(wanted, tmp_path / "stopped", watcher=StopAt(expected.end["steps"] - 2))
    resumed = train(wanted, tmp_path / "stopped", resume=True)
    assert resumed.end["weights"] == expected.end["weights"]


def test_the_record_holds_one_coefficient_per_modality_and_the_loss_of_joint_training(tmp_path):
    record = trained(tmp_path / "agm", method={"name": "agm"}, epochs=1, record_every=1)
    joint = trained(tmp_path / "joint", method="joint", epochs=1, record_every=1)
    assert all(len(line["method"]["coefficients"]) == 2 for line in record.steps)
    assert record.steps[0]["loss"] == joint.steps[0]["loss"]


# Where it is not defined


def test_one_modality_and_more_than_twelve_are_refused():
    with pytest.raises(ValueError, match=r"AGM .* needs at least two, found \['audio'\]"):
        AGM().build(model(names=NAMES[:1]), CLASSES)
    with pytest.raises(ValueError, match="1 to 12 modalities, received 13"):
        AGM().build(model(names=[f"m{i}" for i in range(13)]), CLASSES)


@pytest.mark.parametrize(("field", "word", "meant"), [("variant", "papr", "paper"), ("absent", "features", "feature")])
def test_unknown_words_are_refused(field, word, meant):
    with pytest.raises(ValueError, match=rf"Unknown {field} '{word}'\. Did you mean '{meant}'\?"):
        AGM(**{field: word})


def test_the_targets_of_a_regression_are_refused():
    x = batch()._replace(target=torch.rand(8, CLASSES, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"labels \(N, K\), received a target \(8, 5\)"):
        AGM().gradients(built(AGM()), x)
