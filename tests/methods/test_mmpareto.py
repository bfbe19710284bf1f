"""MMPareto against M + 1 backward passes by hand, a search over the segment, and another library's solver."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy
from torchjd.aggregation import MGDA

from msam.methods import mmpareto
from msam.methods.mmpareto import MMPareto, lengthening, min_norm_weights
from msam.methods.uniform import Uniform
from tests.methods._toys import FOUR, batch, built, close, gradients, steps

every_fusion = pytest.mark.parametrize("fusion", ["late", "concat", "early", "maxout"])
every_count = pytest.mark.parametrize("count", [2, 3, 4])
every_variant = pytest.mark.parametrize("variant", ["paper", "code"])
numbers = st.integers(-1000, 1000).map(lambda n: n / 100)
pairs_of_vectors = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64).T
)
never_zero = pairs_of_vectors.filter(lambda pair: bool(pair.norm(dim=1).min() > 0))
conflicting = never_zero.map(lambda pair: pair if pair[0] @ pair[1] <= 0 else pair * torch.tensor([[1.0], [-1.0]]))


def one_by_one(net, x):
    """Return name -> gradient of the fused loss, and of the sum of own losses, by a backward pass for every loss."""
    net = copy.deepcopy(net)
    torch.manual_seed(1)
    output = net(x.inputs)
    losses = [cross_entropy(output.logits, x.target)]
    losses += [cross_entropy(net.heads[n](output.features[n]), x.target) for n in net.modalities]
    made = []
    for loss in losses:
        net.zero_grad()
        loss.backward(retain_graph=True)
        made.append({n: p.grad if p.grad is not None else torch.zeros_like(p) for n, p in net.named_parameters()})
    return made[0], {n: sum(own[n] for own in made[1:]) for n in made[0]}


def names_of(run, modality):
    return [f"encoders.{modality}.{n}" for n, _ in run.network.encoders[modality].named_parameters()]


def cosine(run, fused, own, modality):
    a, b = (torch.cat([g[n].flatten() for n in names_of(run, modality)]) for g in (fused, own))
    return cosine_similarity(a, b, dim=0)


def with_signs(run, x, *, conflict):
    """Draw heads until the gradients of every encoder conflict, or until none do."""
    generator = torch.Generator().manual_seed(0)
    for modality in run.modalities:
        weight = run.network.heads[modality].weight
        for _ in range(100):
            found = float(cosine(run, *one_by_one(run.network, x), modality))
            if found < -0.05 if conflict else found > 0:
                break
            with torch.no_grad():
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
        assert found < -0.05 if conflict else found > 0


def nearest(a, b):
    """Return the weight of `a` at the point of the segment nearest to 0, by halving where the way there turns."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        rising = (a - b) @ (middle * a + (1 - middle) * b) > 0
        low, high = (low, middle) if rising else (middle, high)
    return (low + high) / 2


def expected(run, x, variant, gamma):
    """Return the gradients of one step, from the definition."""
    fused, own = one_by_one(run.network, x)
    wanted = {n: fused[n] + own[n] for n in fused}
    for modality in run.modalities:
        tensors = names_of(run, modality)
        a, b = (torch.cat([g[n].flatten() for n in tensors]) for g in (fused, own))
        w = 0.5 if a @ b > 0 else nearest(a, b)
        new = {n: 2 * w * fused[n] + 2 * (1 - w) * own[n] for n in tensors}
        whole = max(1.0, float((a + b).norm() / (2 * w * a + 2 * (1 - w) * b).norm()))
        for n in tensors:
            own_length = max(1.0, float((fused[n] + own[n]).norm() / new[n].norm()))
            wanted[n] = gamma * (whole if variant == "paper" else own_length) * new[n]
    return wanted


def follows_the_definition(fusion, count, variant, conflict):
    method = MMPareto(variant=variant)
    run, x = built(method, fusion, names=FOUR[:count]), batch(names=FOUR[:count])
    with_signs(run, x, conflict=conflict)
    wanted = expected(run, x, variant, 1.5)
    torch.manual_seed(1)
    method.gradients(run, x)
    assert all((w != 0.5) == conflict for w in run.notes["coefficients"])
    for name, grad in gradients(run).items():
        close(grad, wanted[name], 1e-10 if conflict else 1e-12)


@settings(deadline=None)
@given(conflicting)
def test_in_conflict_the_weights_are_the_point_of_the_segment_nearest_to_zero(pair):
    w_mm, w_u = min_norm_weights(*pair)
    point = w_mm * pair[0] + w_u * pair[1]
    grid = torch.linspace(0, 1, 10001, dtype=torch.float64)[:, None]
    brute = (grid * pair[0] + (1 - grid) * pair[1]).norm(dim=1).min()
    assert 0 <= w_mm <= 1
    close(w_mm + w_u, torch.ones_like(w_mm))
    assert point.norm() <= brute + 1e-12
    assert brute - point.norm() <= 1e-4 * (pair[0] - pair[1]).norm()


@settings(deadline=None)
@given(conflicting)
def test_in_conflict_what_is_joined_lowers_both_losses_alike(pair):
    w_mm, w_u = min_norm_weights(*pair)
    gains = pair @ (w_mm * pair[0] + w_u * pair[1])
    close(gains[0], gains[1], 1e-9)
    assert gains.min() >= -1e-9


@settings(deadline=None)
@given(never_zero)
def test_without_conflict_half_each(pair):
    w = min_norm_weights(*pair)
    if pair[0] @ pair[1] > 0:
        assert tuple(map(float, w)) == (0.5, 0.5)
    else:
        assert float(w[0]) == pytest.approx(nearest(*pair), abs=1e-6)


def test_orthogonal_gradients_meet_at_the_nearest_point():
    w_mm, w_u = min_norm_weights(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0]))
    assert float(w_mm) == pytest.approx(0.1)
    assert float(w_u) == pytest.approx(0.9)


@settings(deadline=None)
@given(pairs_of_vectors)
def test_a_gradient_of_zero_conflicts_with_none(pair):
    for a, b in ((pair[0], 0 * pair[1]), (0 * pair[0], pair[1]), (0 * pair[0], 0 * pair[1])):
        assert tuple(map(float, min_norm_weights(a, b))) == (0.5, 0.5)


@settings(deadline=None)
@given(conflicting, st.sampled_from([torch.float64, torch.float32]))
def test_the_weights_are_those_of_another_librarys_solver(pair, dtype):
    pair = pair.to(dtype)
    w_mm, w_u = min_norm_weights(*pair)
    close(w_mm * pair[0] + w_u * pair[1], MGDA()(pair), 1e-6 if dtype == torch.float64 else 1e-4)


@settings(deadline=None)
@given(never_zero)
def test_the_joined_gradient_is_as_long_as_the_plain_sum(pair):
    w_mm, w_u = min_norm_weights(*pair)
    n = 2 * w_mm * pair[0] + 2 * w_u * pair[1]
    length = lengthening(w_mm, *pair)
    assert length >= 1
    if n.norm() > 1e-9:
        close((length * n).norm(), pair.sum(0).norm(), 1e-9)


@every_fusion
@every_variant
@pytest.mark.parametrize("conflict", [True, False])
def test_a_step_is_that_of_the_definition(fusion, variant, conflict):
    for count in (2, 3, 4):
        follows_the_definition(fusion, count, variant, conflict)


@every_fusion
@every_count
@every_variant
def test_without_conflict_encoders_take_gamma_times_uniforms_gradient_and_the_rest_just_that(fusion, count, variant):
    method, x = MMPareto(gamma=1.25, variant=variant), batch(names=FOUR[:count])
    run, uniform = (built(m, fusion, names=FOUR[:count]) for m in (method, Uniform()))
    with_signs(run, x, conflict=False)
    uniform.network.load_state_dict(run.network.state_dict())
    for m, r in ((method, run), (Uniform(), uniform)):
        torch.manual_seed(1)
        m.gradients(r, x)
    plain = gradients(uniform)
    for name, grad in gradients(run).items():
        close(grad, plain[name] * (1.25 if name.startswith("encoders.") else 1.0))


@every_variant
def test_where_nothing_ever_conflicts_gamma_one_is_uniform_training(variant, monkeypatch):
    monkeypatch.setattr(mmpareto, "min_norm_weights", lambda a, b: (torch.tensor(0.5).double(),) * 2)
    weights = []
    for method in (MMPareto(gamma=1.0, variant=variant), Uniform()):
        run = built(method)
        steps(method, run, 4)
        weights.append(run.network.state_dict())
    for name, value in weights[0].items():
        close(value, weights[1][name])


@every_fusion
def test_in_conflict_fusion_and_heads_keep_the_plain_gradient_of_the_summed_loss(fusion):
    run, x = built(MMPareto(), fusion), batch()
    with_signs(run, x, conflict=True)
    fused, own = one_by_one(run.network, x)
    torch.manual_seed(1)
    MMPareto().gradients(run, x)
    rest = {n: g for n, g in gradients(run).items() if not n.startswith("encoders.")}
    assert rest
    for name, grad in rest.items():
        close(grad, fused[name] + own[name])
        assert bool(fused[name].any()) != name.startswith("heads.")


def in_conflict_both_losses_fall():
    """The plain sum would raise the own loss of `audio`; the new gradient, as long as that sum, lowers both."""
    run, x = built(MMPareto()), batch()
    with torch.no_grad():
        run.network.heads["audio"].weight.copy_(-0.3 * run.network.fusion.linear["audio"].weight)
    fused, own = one_by_one(run.network, x)
    a, b = (torch.cat([g[n].flatten() for n in names_of(run, "audio")]) for g in (fused, own))
    assert (a + b) @ b < 0 < a @ a
    MMPareto().gradients(run, x)
    new = torch.cat([gradients(run)[n].flatten() for n in names_of(run, "audio")])
    assert run.notes["coefficients"][0] > 0.5
    assert new @ a > 0
    assert new @ b > 0
    close(new.norm(), 1.5 * (a + b).norm())


def test_a_worked_step():
    in_conflict_both_losses_fall()


def test_one_length_per_encoder_keeps_the_direction_one_per_tensor_turns_it():
    spread = {}
    for variant in ("paper", "code"):
        run, x = built(MMPareto(variant=variant)), batch()
        with_signs(run, x, conflict=True)
        fused, own = one_by_one(run.network, x)
        MMPareto(variant=variant).gradients(run, x)
        w = 1 - run.notes["coefficients"][0]
        lengths = []
        for n in names_of(run, "audio"):
            made, new = gradients(run)[n], 2 * w * fused[n] + 2 * (1 - w) * own[n]
            lengths.append(float(made.norm() / new.norm()))
            close(made, lengths[-1] * new, 1e-5)  # the noted weight is rounded
            if variant == "code":
                close(made.norm(), 1.5 * max((fused[n] + own[n]).norm(), new.norm()), 1e-5)
        spread[variant] = max(lengths) - min(lengths)
    assert spread["paper"] < 1e-5 < 1e-3 < spread["code"]


@every_variant
def test_in_the_second_pass_weights_and_lengths_are_those_of_the_first(variant):
    method = MMPareto(variant=variant)
    run, x = built(method), batch()
    with_signs(run, x, conflict=True)
    method.gradients(run, x)
    noted = dict(run.notes)
    ratios = {}
    fused, own = one_by_one(run.network, x)
    for place, modality in enumerate(run.modalities):
        w = 1 - noted["coefficients"][place]
        for n in names_of(run, modality):
            ratios[n] = gradients(run)[n].norm() / (2 * w * fused[n] + 2 * (1 - w) * own[n]).norm()
    with torch.no_grad():
        for p in run.network.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3), dtype=p.dtype))
    run.optimizer.zero_grad()
    run.perturbed = True
    method.gradients(run, x)
    assert run.notes == noted
    fused, own = one_by_one(run.network, x)
    for place, modality in enumerate(run.modalities):
        w = 1 - noted["coefficients"][place]
        for n in names_of(run, modality):
            close(gradients(run)[n], ratios[n] * (2 * w * fused[n] + 2 * (1 - w) * own[n]), 1e-4)
    other = built(method)
    other.network.load_state_dict(run.network.state_dict())
    method.gradients(other, x)
    assert other.notes["coefficients"] != noted["coefficients"]


def no_norm_of_zero_divides(variant):
    """Zero gradients leave gamma times the other one; exactly opposite ones leave nothing; no number is not finite."""
    method, x = MMPareto(variant=variant), batch()
    for silent in ("heads", "fusion", "both"):
        run = built(method)
        with torch.no_grad():
            for modules in (run.network.heads, run.network.fusion.linear):
                if silent == "both" or modules is (
                    run.network.heads if silent == "heads" else run.network.fusion.linear
                ):
                    modules["audio"].weight.zero_()
        fused, own = one_by_one(run.network, x)
        method.gradients(run, x)
        for n in names_of(run, "audio"):
            close(gradients(run)[n], 1.5 * (fused[n] + own[n]))
    run = built(method)
    opposite(run)
    fused, own = one_by_one(run.network, x)
    method.gradients(run, x)
    for n in names_of(run, "audio"):
        close(own[n], -2 * fused[n], 1e-15)
        close(gradients(run)[n], torch.zeros_like(fused[n]), 1e-14)
    assert any(fused[n].any() for n in names_of(run, "audio"))


def opposite(run):
    """Give encoder `audio` a constant feature of ones, on which fusion and head answer zero with opposite slopes."""
    fusion, head, last = run.network.fusion, run.network.heads["audio"], run.network.encoders["audio"].layers[3]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(1.0)
        for linear in fusion.linear.values():
            linear.bias.zero_()
            if linear is not fusion.linear["audio"]:
                linear.weight.zero_()
        weight = fusion.linear["audio"].weight
        head.weight.copy_(-2 * weight)
        ones = torch.ones(1, weight.shape[1], dtype=weight.dtype)
        fusion.linear["audio"].bias.copy_(-nn.functional.linear(ones, weight)[0])
        head.bias.copy_(-nn.functional.linear(ones, head.weight)[0])


@every_variant
def test_no_norm_of_zero_divides(variant):
    no_norm_of_zero_divides(variant)


@every_variant
def test_the_planted_fault_of_a_division_by_a_zero_norm_is_caught(variant, monkeypatch):
    def unguarded(w, a, b):
        return ((a + b).norm() / (2 * w * a + 2 * (1 - w) * b).norm()).clamp_min(1)

    monkeypatch.setattr(mmpareto, "lengthening", unguarded)
    with pytest.raises(AssertionError):
        no_norm_of_zero_divides(variant)


def test_the_planted_fault_of_gradients_that_accumulate_is_caught(monkeypatch):
    def left_lying(chosen):
        return {p: p.grad for p in chosen if p.grad is not None}

    monkeypatch.setattr(mmpareto, "taken", left_lying)
    with pytest.raises(AssertionError):
        in_conflict_both_losses_fall()
    for conflict in (True, False):
        with pytest.raises(AssertionError):
            follows_the_definition("late", 2, "paper", conflict)


def test_a_gradient_that_is_not_finite_stays_so_for_the_scaler_to_see():
    for bad in (torch.nan, torch.inf):
        run, x = built(MMPareto()), batch()
        plain = run.backward

        def spoilt(loss, retain_graph=False, plain=plain, run=run, bad=bad):
            plain(loss, retain_graph=retain_graph)
            run.network.encoders["audio"].layers[1].bias.grad[0] = bad

        run.backward = spoilt
        MMPareto().gradients(run, x)
        assert not run.network.encoders["audio"].layers[1].bias.grad.isfinite().all()
        assert run.network.encoders["image"].layers[1].bias.grad.isfinite().all()


def test_a_modality_that_no_sample_has_gets_no_gradient():
    run, x = built(MMPareto()), batch()
    present = torch.ones(8, 3, dtype=torch.bool)
    present[:, 1] = False
    MMPareto().gradients(run, x._replace(present=present))
    lacking = ("encoders.image.", "heads.image.", "fusion.linear.image.weight")
    for name, grad in gradients(run).items():
        assert grad.isfinite().all()
        assert bool(grad.any()) != name.startswith(lacking)
    assert run.notes["coefficients"][1] == 0.5


def test_an_encoder_without_parameters_and_one_with_an_idle_parameter_are_let_be():
    run, x = built(MMPareto()), batch()
    idle = nn.Parameter(torch.ones(3, dtype=torch.float64))
    run.network.encoders["audio"].register_parameter("idle", idle)
    run.network.encoders["image"] = nn.Sequential(nn.ZeroPad1d((0, 58)))
    MMPareto().gradients(run, x)
    assert idle.grad is None
    assert run.network.encoders["audio"].layers[1].weight.grad.any()
    assert run.notes["coefficients"][1] == 0.5


def test_the_models_extra_loss_belongs_to_the_fused_one():
    run, x = built(MMPareto()), batch()
    with_signs(run, x, conflict=False)
    MMPareto().gradients(run, x)
    bias, plain = run.network.encoders["text"].layers[3].bias, run.model
    before = bias.grad.clone()
    run.optimizer.zero_grad()
    run.model = lambda *given: plain(*given)._replace(extra_loss=-1e-3 * bias.sum())
    MMPareto().gradients(run, x)
    assert run.notes["coefficients"] == [0.5] * 3
    close(bias.grad, before - 1.5e-3)


@every_count
def test_it_goes_back_twice_whatever_the_number_of_modalities(count):
    run, kept = built(MMPareto(), names=FOUR[:count]), []
    plain = run.backward

    def counting(loss, retain_graph=False):
        kept.append(retain_graph)
        plain(loss, retain_graph=retain_graph)

    run.backward = counting
    MMPareto().gradients(run, batch(names=FOUR[:count]))
    assert kept == [True, False]
    assert MMPareto().passes(count) == (1, 2)


def test_an_unknown_variant_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown variant 'papr'\. Did you mean 'paper'\?"):
        MMPareto(variant="papr")
