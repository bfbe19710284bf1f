"""CGGM against the paper's step with second derivatives, and the official code's with graphs kept from batch to batch."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from msam import sharpness
from msam.methods import cggm, per_sample_loss
from msam.methods.cggm import CGGM, balance, direction_loss, layer_gradient
from msam.methods.joint import Joint
from msam.record import without_volatile
from msam.train import train
from tests.methods._toys import CLASSES, FOUR, batch, built, close, gradients
from tests.train._runs import MSAM, StopAt, trained
from tests.train._runs import settings as run_settings

FUSIONS = ("late", "concat", "shared", "early", "maxout")
every_fusion = pytest.mark.parametrize("fusion", FUSIONS)
every_variant = pytest.mark.parametrize("variant", ["paper", "code"])
deltas = st.lists(st.integers(-64, 64), min_size=2, max_size=4).map(lambda n: torch.tensor(n).double() / 64)


def last(module):
    return module[-1] if isinstance(module, nn.Sequential) else module


def columns(net, name):
    weight, chosen = net.fusion.weight_of(name)
    return weight[:, chosen]


class ByHand:
    """Steps of one copy of the network, in the order of the paper (second derivatives) or of the official code."""

    def __init__(self, network, variant, rho=1.3, weight=0.1, most=2.0):
        self.net, self.variant, self.rho, self.weight, self.most = copy.deepcopy(network), variant, rho, weight, most
        self.accuracy = [0.0] * len(network.modalities)
        self.direction = self.before = self.b = None
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)

    def balanced(self, x, guesses):
        now = [float((z.argmax(1) == x.target).double().mean()) for z in guesses]
        delta = [a - b for a, b in zip(now, self.accuracy, strict=True)]
        self.accuracy = now
        total = sum(delta) + 1e-8
        b = [(total - d) / total for d in delta]
        return b if self.variant == "code" else [min(max(v, 0.0), self.most) for v in b]

    def gradients(self, x, *, again=False):
        """Make the gradients of a step and return B; `again`, those of the same step at other weights."""
        net, names = self.net, self.net.modalities
        self.optimizer.zero_grad()
        output = net(x.inputs)
        loss = cross_entropy(output.logits, x.target)
        guesses = [net.heads[n](output.features[n].detach()) for n in names]
        own = [cross_entropy(z, x.target) for z in guesses]
        if not again:
            self.b, self.before = self.balanced(x, guesses), self.direction
        b = self.b
        if self.variant == "paper":
            whole = {n: net.fusion.weight_of(n) for n in names}
            fused = [torch.autograd.grad(loss, whole[n][0], create_graph=True)[0][:, whole[n][1]] for n in names]
            alone = [
                torch.autograd.grad(loss_m, last(net.heads[n]).weight, retain_graph=True)[0]
                for n, loss_m in zip(names, own, strict=True)
            ]
            added = self.between(b, fused, alone)
        else:
            added = self.before
        total = loss if added is None else loss + self.weight * added
        total.backward(retain_graph=True)
        for loss_m in own:
            loss_m.backward()
        self.loss = float((total + sum(own)).detach())
        if self.variant == "code" and not again:
            weights = [columns(net, n).clone() for n in names]
            self.direction = self.between(b, weights, [last(net.heads[n]).weight.detach().clone() for n in names])
        for n, v in zip(names, b, strict=True):
            for p in net.encoders[n].parameters():
                p.grad *= self.rho * v
        return b

    def between(self, b, fused, alone):
        cosines = [cosine_similarity(f.reshape(1, -1), a.reshape(1, -1))[0] for f, a in zip(fused, alone, strict=True)]
        return sum(abs(v) - v * c for v, c in zip(b, cosines, strict=True)) / len(b)


def follows_the_definition(fusion, count, variant, most=2.0, **more):
    """Four steps, each compared in loss, gradients, B and weights."""
    names = FOUR[:count]
    method = CGGM(variant=variant, max_balance=most, **more)
    run = built(method, fusion, names=names)
    slow = ByHand(run.network, variant, most=1e9 if most is None else most)
    losses, plain = [], run.backward

    def listening(loss, retain_graph=False):
        losses.append(float(loss.detach()))
        plain(loss, retain_graph=retain_graph)

    run.backward = listening
    for number in range(4):
        x = batch(number, size=16, names=names)
        torch.manual_seed(number)
        b = slow.gradients(x)
        run.begin_step(number + 1)
        run.optimizer.zero_grad()
        torch.manual_seed(number)
        method.gradients(run, x)
        assert run.notes["coefficients"] == pytest.approx(b, rel=1e-6, abs=1e-6)
        size = max(1.0, *map(abs, b))
        assert losses[number:] == [pytest.approx(slow.loss, rel=1e-9)]
        for (name, p), other in zip(run.network.named_parameters(), slow.net.parameters(), strict=True):
            if p.grad is None or other.grad is None:
                assert name.startswith("fusion")
                assert p.grad is other.grad
            else:
                close(p.grad / size, other.grad / size, 1e-10)
        if size < 10:  # steps of an unclamped B throw the weights anywhere
            run.optimizer.step()
            slow.optimizer.step()
    return run


def improved(run, x, *delta):
    """Make the accuracies of the batch before such that on `x` they have improved by `delta`."""
    now = torch.tensor(accuracies(run.network, x), dtype=torch.float64)
    run.state["accuracy"] = now - torch.tensor(delta, dtype=now.dtype)


def acted(method, run, x, seed=0):
    torch.manual_seed(seed)
    run.optimizer.zero_grad()
    method.gradients(run, x)
    return gradients(run)


@settings(deadline=None)
@given(deltas)
def test_the_balances_sum_to_the_number_of_modalities_less_one(delta):
    total = float(delta.sum())
    expected = len(delta) - total / (total + 1e-8)
    assert float(balance(delta).sum()) == pytest.approx(
        expected, abs=1e-6 * max(1.0, float(balance(delta).abs().max()))
    )
    if total:
        assert expected == pytest.approx(len(delta) - 1, abs=1e-5)


@settings(deadline=None)
@given(deltas, st.randoms())
def test_the_balances_follow_the_order_of_the_modalities(delta, random):
    order = random.sample(range(len(delta)), len(delta))
    close(balance(delta[order]), balance(delta)[order], 1e-6)


@settings(deadline=None)
@given(deltas)
def test_what_improves_less_is_given_more_where_all_together_improve(delta):
    if delta.sum() > 0:
        b = balance(delta)
        for i in range(len(delta)):
            assert bool((b[i] >= b[delta >= delta[i]] - 1e-9).all())


def test_balances_one_can_check_with_a_pencil():
    def of(*delta):
        return balance(torch.tensor(delta, dtype=torch.float64)).tolist()

    assert of(0.0, 0.0, 0.0) == [1.0, 1.0, 1.0]
    assert of(0.25, 0.25) == pytest.approx([0.5, 0.5])
    assert of(0.03, -0.03) == pytest.approx([-3e6, 3e6], rel=1e-3)
    assert of(0.05, -0.02, -0.01) == pytest.approx([-1.5, 2.0, 1.5], rel=1e-5)


@settings(deadline=None)
@given(deltas, st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_the_direction_loss_is_never_negative_and_zero_where_all_point_as_they_should(b, similarity):
    similarity = torch.tensor(similarity[: len(b)]).double()
    assert direction_loss(b, similarity) >= 0
    assert direction_loss(b, b.sign()) == 0
    by_hand = sum(abs(x) - x * s for x, s in zip(b.tolist(), similarity.tolist(), strict=True)) / len(b)
    close(direction_loss(b, similarity), torch.tensor(by_hand, dtype=torch.float64))


@pytest.mark.parametrize("target", [torch.tensor([0, 3, 3]), torch.arange(3 * CLASSES).view(3, -1) % 2 == 0])
@pytest.mark.parametrize("calls", [1, 3])
def test_the_gradient_of_a_linear_layer_is_autograds_and_so_is_its_graph(calls, target):
    torch.manual_seed(0)
    layer = nn.Linear(4, CLASSES).double()
    inputs = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(calls)]
    logits = sum(layer(x) for x in inputs)
    loss = per_sample_loss(logits, target).mean()
    expected = torch.autograd.grad(loss, layer.weight, create_graph=True)[0]
    found = layer_gradient(logits, target, inputs)
    close(found, expected)
    slopes = [torch.autograd.grad((g**3).sum(), [*inputs, layer.weight], retain_graph=True) for g in (found, expected)]
    for mine, other in zip(*slopes, strict=True):
        close(mine, other)


@every_fusion
@every_variant
@pytest.mark.parametrize("count", [2, 3, 4])
def test_steps_are_those_of_the_definition(fusion, variant, count):
    follows_the_definition(fusion, count, variant)


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_without_an_upper_end_steps_are_those_of_the_paper_as_printed(fusion, monkeypatch):
    monkeypatch.setattr(ByHand, "balanced", unclamped(ByHand.balanced))
    follows_the_definition(fusion, 3, "paper", most=None)


def unclamped(plain):
    def balanced(self, x, guesses):
        variant, self.variant = self.variant, "code"
        try:
            return plain(self, x, guesses)
        finally:
            self.variant = variant

    return balanced


def test_the_planted_fault_of_weights_taken_for_gradients_is_caught(monkeypatch):
    def of_weights(network, logits, guesses, target, heard):
        pairs = [(last(network.heads[n]).weight.detach(), columns(network, n)) for n in network.modalities]
        return torch.stack([cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in pairs])

    monkeypatch.setattr(cggm, "_of_gradients", of_weights)
    for fusion in ("late", "concat", "early"):
        with pytest.raises(AssertionError):
            follows_the_definition(fusion, 2, "paper")


@every_fusion
@every_variant
def test_encoders_never_feel_the_classifiers_which_take_their_own_gradient(fusion, variant):
    method = CGGM(variant=variant, direction_weight=0.0, rho=1.0)
    run, joint, x = built(method, fusion), built(Joint(), fusion), batch(1, size=16)
    joint.network.load_state_dict(run.network.state_dict(), strict=False)
    improved(run, x, 0.0, 0.0, 0.0)
    found, plain = acted(method, run, x), acted(Joint(), joint, x)
    assert run.notes["coefficients"] == [1.0, 1.0, 1.0]
    for name, grad in plain.items():
        close(found[name], grad)
    net = copy.deepcopy(run.network)
    net.zero_grad()
    features = net.encode(x.inputs)
    sum(cross_entropy(net.heads[n](features[n].detach()), x.target) for n in net.modalities).backward()
    for name, p in net.heads.named_parameters():
        close(found[f"heads.{name}"], p.grad)


@every_variant
def test_a_worked_step(variant):
    """Audio improved by 0.3, image by 0.1: audio takes a quarter of its gradient, image three quarters, and rho."""
    method = CGGM(variant=variant, direction_weight=0.0)
    names = FOUR[:2]
    run, joint, x = built(method, names=names), built(Joint(), names=names), batch(1, names=names)
    joint.network.load_state_dict(run.network.state_dict(), strict=False)
    improved(run, x, 0.3, 0.1)
    found, plain = acted(method, run, x), acted(Joint(), joint, x)
    assert run.notes["coefficients"] == pytest.approx([0.25, 0.75])
    for name, grad in plain.items():
        factor = {"encoders.audio": 1.3 * 0.25, "encoders.image": 1.3 * 0.75}.get(name[:14], 1.0)
        close(found[name], factor * grad, 1e-7)


@every_fusion
def test_what_the_direction_term_of_gradients_touches(fusion):
    method, plain = CGGM(), CGGM(direction_weight=0.0)
    x = batch(1, size=16)
    first, second = built(method, fusion), built(plain, fusion)
    for run in (first, second):
        improved(run, x, 0.1, 0.2, 0.3)
    with_term, without = acted(method, first, x), acted(plain, second, x)
    changed = {name for name, grad in with_term.items() if grad is not None and not torch.equal(grad, without[name])}
    assert not any(name.startswith("heads.") for name in changed)
    for modality in first.modalities:
        assert any(name.startswith(f"encoders.{modality}.") for name in changed)
        weight = first.network.fusion.weight_of(modality)[0]
        assert {n for n, p in first.network.named_parameters() if p is weight} <= changed


@every_fusion
def test_what_the_codes_direction_term_touches_the_fusions_last_weight_from_the_second_batch_on(fusion):
    method, plain = CGGM(variant="code"), CGGM(variant="code", direction_weight=0.0)
    first, second = built(method, fusion), built(plain, fusion)
    for number in range(2):
        x = batch(number, size=16)
        for run in (first, second):
            improved(run, x, 0.1, 0.2, 0.3)
            run.begin_step(number + 1)
        with_term, without = acted(method, first, x), acted(plain, second, x)
        changed = {n for n, grad in with_term.items() if grad is not None and not torch.equal(grad, without[n])}
        weights = {id(first.network.fusion.weight_of(n)[0]) for n in first.modalities}
        last_ones = {n for n, p in first.network.named_parameters() if id(p) in weights}
        assert changed == (last_ones if number else set())


def test_the_codes_direction_pulls_the_fusions_weight_towards_the_classifiers():
    method = CGGM(variant="code", direction_weight=1e3)
    run, x = built(method), batch(size=16)

    def similarity():
        net = run.network
        pairs = [(net.heads[n].weight.detach(), columns(net, n).detach()) for n in net.modalities]
        return [float(cosine_similarity(a.flatten(), b.flatten(), dim=0)) for a, b in pairs]

    before = similarity()
    for number in range(2):
        improved(run, x, 0.1, 0.2, 0.3)
        run.begin_step(number + 1)
        acted(method, run, x)
    with torch.no_grad():
        for n in run.modalities:
            weight = run.network.fusion.weight_of(n)[0]
            weight -= 1e-4 * weight.grad
    assert all(after > b for after, b in zip(similarity(), before, strict=True))


def test_b_is_held_between_zero_and_its_upper_end_unless_told_otherwise():
    x, names = batch(1), FOUR[:2]
    made = {}
    for label, method in {
        "held": CGGM(),
        "lower": CGGM(max_balance=0.5),
        "free": CGGM(max_balance=None),
        "code": CGGM(variant="code"),
    }.items():
        run = built(method, names=names)
        improved(run, x, 0.5, -0.375)
        found = acted(method, run, x)
        made[label] = run.notes["coefficients"]
        frozen = not any(grad.any() for name, grad in found.items() if name.startswith("encoders.audio"))
        assert frozen == (label in ("held", "lower"))
    assert made["held"] == [0.0, 2.0]
    assert made["lower"] == [0.0, 0.5]
    assert made["free"] == made["code"] == pytest.approx([-3.0, 4.0], rel=1e-6)


def test_deltas_are_those_between_one_batch_and_the_next_and_the_first_is_compared_with_zero():
    run, seen = built(CGGM()), []
    for number in range(3):
        x = batch(number, size=16)
        features = run.network.encode(x.inputs)
        seen.append(
            [float((run.network.heads[n](features[n]).argmax(1) == x.target).double().mean()) for n in features]
        )
        run.begin_step(number + 1)
        run.epoch = number + 1  # carried over epochs
        acted(CGGM(), run, x)
        before = seen[-2] if number else [0.0] * 3
        delta = torch.tensor(seen[-1]).double() - torch.tensor(before).double()
        expected = balance(delta).clamp(0, 2).tolist()
        assert run.notes["coefficients"] == pytest.approx(expected, abs=1e-6)


@every_variant
@pytest.mark.parametrize("fusion", ["late", "concat", "early"])
def test_in_the_second_pass_b_and_the_batch_before_are_those_of_the_first(fusion, variant):
    method = CGGM(variant=variant)
    run = built(method, fusion)
    slow = ByHand(run.network, variant)
    for number in range(2):
        x = batch(number, size=16)
        run.begin_step(number + 1)
        acted(method, run, x)
        b = slow.gradients(x)
    noted, kept = dict(run.notes), copy.deepcopy(run.state)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for mine, other in zip(run.network.parameters(), slow.net.parameters(), strict=True):
            step = 0.3 * torch.randn(mine.shape, generator=generator, dtype=mine.dtype)
            mine.add_(step)
            other.add_(step)
    assert accuracies(run.network, x) != run.state["accuracy"].tolist()
    run.perturbed = True
    found = acted(method, run, x)
    assert slow.gradients(x, again=True) == b
    size = max(1.0, *map(abs, b))
    for mine, other in zip(found.values(), slow.net.parameters(), strict=True):
        close(mine / size, other.grad / size, 1e-10)
    assert run.notes == noted
    assert torch.equal(run.state["accuracy"], kept["accuracy"])
    if variant == "code":
        assert all(map(torch.equal, run.state["direction"]["slopes"], kept["direction"]["slopes"]))


def accuracies(net, x):
    features = net.encode(x.inputs)
    return [float((net.heads[n](features[n]).argmax(1) == x.target).double().mean()) for n in features]


def test_classifiers_have_a_rate_of_their_own_and_no_other_head_has():
    run = built(CGGM(classifier_rate=0.25), "late")
    added = {id(p) for p in run.network.heads.parameters()}
    rates = {}
    for group in run.optimizer.param_groups:
        mine = {id(p) for p in group["params"]} <= added
        rates.setdefault((group["role"], mine), set()).add(CGGM(classifier_rate=0.25).rate(run, group))
    assert rates == {("encoder", False): {1.0}, ("head", False): {1.0}, ("head", True): {0.25}}


@every_fusion
def test_the_classifiers_last_layer_has_the_shape_of_what_it_is_compared_with(fusion):
    net = built(CGGM(), fusion).network
    for n in net.modalities:
        assert last(net.heads[n]).weight.shape == columns(net, n).shape
        assert isinstance(net.heads[n], nn.Linear) == (fusion in ("late", "concat"))


def norm_of_all_but_classifiers(run):
    found = [grad for name, grad in gradients(run).items() if grad is not None and not name.startswith("heads.")]
    return float(torch.cat([g.flatten() for g in found]).norm())


def test_clipping_holds_all_but_the_classifiers_in_either_pass_and_in_what_a_rule_makes_of_them():
    method, free, x = CGGM(clip=0.01), CGGM(), batch(size=16)
    run, loose = built(method), built(free)
    found, unclipped = acted(method, run, x), acted(free, loose, x)
    assert norm_of_all_but_classifiers(loose) > 0.1
    assert norm_of_all_but_classifiers(run) == pytest.approx(0.01, rel=1e-3)
    ratio = 0.01 / norm_of_all_but_classifiers(loose)
    for name, grad in found.items():
        close(grad, unclipped[name] * (1 if name.startswith("heads.") else ratio), 1e-7)
    rule = sharpness.load("msam")(run.optimizer, rho=0.5, model=run.network)
    with rule.perturbed(torch.tensor([0.5, 0.3, 0.2])):
        run.perturbed = True
        acted(method, run, x)
        assert norm_of_all_but_classifiers(run) == pytest.approx(0.01, rel=1e-3)
    assert norm_of_all_but_classifiers(run) <= 0.01


@every_variant
@every_fusion
def test_a_modality_that_no_sample_has_leaves_every_number_finite(variant, fusion):
    run, x = built(CGGM(variant=variant), fusion), batch(size=16)
    present = torch.ones(16, 3, dtype=torch.bool)
    present[:, 1] = False
    for number in range(2):
        run.begin_step(number + 1)
        found = acted(CGGM(variant=variant), run, x._replace(present=present))
        assert all(grad.isfinite().all() for grad in found.values() if grad is not None)


def test_the_models_extra_loss_is_part_of_the_loss():
    run, x = built(CGGM(direction_weight=0.0)), batch(size=16)
    improved(run, x, 0.0, 0.0, 0.0)
    before = acted(CGGM(direction_weight=0.0), run, x)
    bias, plain = run.network.fusion.linear["text"].bias, run.model
    run.model = lambda *given: plain(*given)._replace(extra_loss=3.0 * bias.sum())
    improved(run, x, 0.0, 0.0, 0.0)
    close(acted(CGGM(direction_weight=0.0), run, x)["fusion.linear.text.bias"], before["fusion.linear.text.bias"] + 3.0)


@every_variant
@pytest.mark.parametrize("fusion", [{"name": "late"}, {"name": "maxout", "hidden": [8]}])
def test_it_trains_in_mixed_precision(variant, fusion, tmp_path):
    record = trained(tmp_path, method={"name": "cggm", "variant": variant}, fusion=fusion, precision="bf16-mixed")
    assert record.end["status"] == "finished"


@pytest.mark.parametrize("step", [2, 5, 7])
def test_what_the_code_remembers_of_the_batch_before_survives_a_stop(step, tmp_path):
    more = {"method": {"name": "cggm", "variant": "code"}, "sharpness": MSAM, "optimizer": {"lr": 1e-9}}
    expected = trained(tmp_path / "undisturbed", **more)
    wanted = run_settings(**more, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(wanted, tmp_path / "stopped", watcher=StopAt(step))
    torch.manual_seed(step)
    resumed = train(wanted, tmp_path / "stopped", resume=True)
    assert resumed.end["weights"] == expected.end["weights"]
    for mine, other in zip(resumed.steps, expected.steps, strict=True):
        assert without_volatile(mine) == without_volatile(other)


def test_the_targets_of_a_regression_are_refused():
    run, x = built(CGGM()), batch()
    with pytest.raises(ValueError, match=r"labels \(N, K\), received a target \(8, 5\)"):
        CGGM().gradients(run, x._replace(target=torch.ones(8, CLASSES)))


def test_an_unknown_variant_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown variant 'codes'\. Did you mean 'code'\?"):
        CGGM(variant="codes")
