"""ReconBoost: the residual, turns that fill the run, boosts of one modality alone, rectifications of all."""

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor, nn

from msam import MultimodalModel
from msam.methods import Passes, Run, reconboost
from msam.methods.joint import Joint
from msam.methods.reconboost import Reconboost, agreement_loss, ensemble_probability, residual_loss
from msam.record import without_volatile
from msam.train import train
from tests.methods._toys import CLASSES, FOUR, NAMES, batch, built, close, enter, gradients, model, run_of, steps
from tests.train._runs import MSAM, StopAt, settings, trained

every_split = pytest.mark.parametrize("fusion", ["late", "concat", "shared"])
every_count = pytest.mark.parametrize("count", [2, 3, 4])
every_residual = pytest.mark.parametrize("residual", ["full", "true_class"])
entropy = nn.functional.cross_entropy


@some.composite
def problems(draw):
    """Return logits, an ensemble's probabilities, targets, and weights w1 >= w2."""
    size, classes = draw(some.integers(1, 5)), draw(some.integers(2, 6))
    generator = torch.Generator().manual_seed(draw(some.integers(0, 2**31)))
    logits, others = 3 * torch.randn(2, size, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (size,), generator=generator)
    w1 = draw(some.floats(0.1, 9))
    return logits, others.softmax(1), target, w1, draw(some.floats(0, 1)) * w1


@given(problems())
def test_the_full_residual_is_cross_entropy_less_that_with_the_ensemble(problem):
    z, p, y, w1, w2 = problem
    by_hand = []
    for b in range(len(z)):
        log_q = z[b] - z[b].exp().sum().log()
        by_hand.append(-w1 * log_q[y[b]] + w2 * sum(p[b, c] * log_q[c] for c in range(z.shape[1])))
    close(residual_loss(z, p, y, w1, w2, "full"), torch.stack(by_hand), 1e-10)


@given(problems())
def test_the_true_class_residual_is_cross_entropy_weighted_by_what_the_ensemble_lacks_over_c(problem):
    z, p, y, w1, w2 = problem
    weight = torch.stack([(w1 - w2 * p[b, y[b]]) / z.shape[1] for b in range(len(z))])
    assert (weight > 0).all() or w1 == w2
    close(residual_loss(z, p, y, w1, w2, "true_class"), weight * entropy(z, y, reduction="none"))


@given(problems())
def test_the_slope_of_the_full_residual_is_the_docstrings_and_bounded(problem):
    z, p, y, w1, w2 = problem
    z.requires_grad_()
    (slope,) = torch.autograd.grad(residual_loss(z, p, y, w1, w2, "full").sum(), z)
    wanted = nn.functional.one_hot(y, z.shape[1]).double()
    close(slope, (w1 - w2) * z.softmax(1).detach() + w2 * p - w1 * wanted)
    assert slope.abs().max() <= w1 + 1e-12


@given(problems())
def test_with_equal_weights_it_is_the_residual_of_gradient_boosting(problem):
    z, p, y, _, _ = problem
    z.requires_grad_()
    (slope,) = torch.autograd.grad(residual_loss(z, p, y, 1.0, 1.0, "full").sum(), z)
    close(slope, p - nn.functional.one_hot(y, z.shape[1]))


@given(problems())
def test_without_an_ensemble_it_is_weighted_cross_entropy(problem):
    z, p, y, w1, w2 = problem
    plain = w1 * entropy(z, y, reduction="none")
    for none in ((torch.zeros_like(p), w2), (p, 0.0)):
        close(residual_loss(z, none[0], y, w1, none[1], "full"), plain)
        close(residual_loss(z, none[0], y, w1, none[1], "true_class"), plain / z.shape[1])


@every_residual
def test_no_gradient_goes_to_the_ensemble(residual):
    z, p, y = torch.randn(4, 3), torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 2, 0])
    assert not residual_loss(z, p.softmax(1), y, 5.0, 1.0, residual).requires_grad


@given(problems())
def test_agreement_is_the_mean_square_of_the_differences_of_probabilities(problem):
    z, p, _, _, _ = problem
    q = z.exp() / z.exp().sum(1, keepdim=True)
    by_hand = [sum((q[b, c] - p[b, c]) ** 2 for c in range(z.shape[1])) / z.shape[1] for b in range(len(z))]
    close(agreement_loss(z, p), torch.stack(by_hand))
    assert agreement_loss(z, z.softmax(1)).max() == 0


def test_the_ensemble_is_the_softmax_of_the_sum_of_the_others():
    parts = {n: torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for n in FOUR}
    p = ensemble_probability(parts, "image")
    total = (parts["audio"] + parts["text"] + parts["touch"]).exp()
    close(p, (total / total.sum(1, keepdim=True)).detach())
    assert not p.requires_grad


@pytest.mark.parametrize("target", [torch.zeros(4, 3), torch.zeros(4, 3, dtype=torch.long), torch.zeros(4)])
def test_targets_that_are_no_classes_are_refused(target):
    with pytest.raises(ValueError, match=r"needs integer classes \(4,\) as targets, received \(4"):
        residual_loss(torch.zeros(4, 3), torch.zeros(4, 3), target, 5.0, 1.0, "full")


def stages(method: Reconboost, epochs: int, count: int) -> list[tuple[str, int]]:
    """Return who trains in every stage ("all" or a modality) and for how many epochs."""
    names, found = FOUR[:count], []
    run = run_of(model(names=names))
    run.epochs = epochs
    while (stage := method.stage(run, len(found))) is not None:
        who = "all" if stage.modalities is None else "+".join(stage.modalities)
        assert stage.new_optimizer
        assert stage.schedule_from is None
        assert stage.roles is None
        found.append((who, stage.epochs))
    return found


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (3, [("audio", 3)]),
        (8, [("audio", 4), ("all", 4)]),
        (9, [("audio", 4), ("all", 4), ("image", 1)]),
        (22, [("audio", 4), ("all", 4), ("image", 4), ("all", 4), ("audio", 4), ("all", 2)]),
    ],
)
def test_modalities_take_turns_in_order_until_the_epochs_are_spent(epochs, expected):
    assert stages(Reconboost(), epochs, 2) == expected


@given(some.integers(1, 60), some.integers(1, 5), some.integers(1, 5), some.integers(1, 4))
def test_turns_fill_the_epochs_exactly(epochs, boost, rectify, count):
    found = stages(Reconboost(boost_epochs=boost, rectify_epochs=rectify), epochs, count)
    assert sum(length for _, length in found) == epochs
    assert [who for who, _ in found[1::2]] == ["all"] * (len(found) // 2)
    assert [who for who, _ in found[::2]] == [FOUR[turn % count] for turn in range((len(found) + 1) // 2)]
    assert [length for _, length in found[:-1]] == [boost, rectify] * (len(found) // 2) or len(found) % 2 == 0


def at(method: Reconboost, stage: int, fusion: str = "late", names: Sequence[str] = NAMES) -> Run:
    """Return a run at the first step of a stage, with the weights it was built with."""
    run = built(method, fusion, names=names)
    run.epochs = 1000
    enter(method, run, stage)
    return run


def parts_by_hand(net: MultimodalModel, x: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return every modality's part of the logits, from the weights."""
    fusion, parts, start = net.fusion, {}, 0
    for name in net.modalities:
        h = net.encoders[name](x[name])
        if hasattr(fusion, "head"):
            first, _, last = fusion.head
            parts[name] = (h @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
        elif isinstance(fusion.linear, nn.ModuleDict):
            parts[name] = h @ fusion.linear[name].weight.T + fusion.linear[name].bias
        else:
            columns = fusion.linear.weight[:, start : start + h.shape[1]]
            parts[name] = h @ columns.T + fusion.linear.bias / len(net.modalities)
            start += h.shape[1]
    return parts


def loss_by_hand(method: Reconboost, net: MultimodalModel, x, stage: int) -> Tensor:
    """Return the loss of a step, from the words of the paper and the code."""
    parts, names, y = parts_by_hand(net, x.inputs), net.modalities, x.target
    if stage % 2:
        return entropy(sum(parts.values()), y)
    turn = stage // 2
    k, previous = names[turn % len(names)], names[(turn - 1) % len(names)]
    log_q = torch.log_softmax(parts[k], 1)
    p = torch.zeros_like(log_q)
    if turn and len(names) > 1:
        p = torch.softmax(sum(parts[j] for j in names if j != k), 1).detach()
    losses = []
    for b in range(len(y)):
        if method.residual == "full":
            wanted = [method.w1 * (c == y[b]) - method.w2 * p[b, c] for c in range(CLASSES)]
            losses.append(-sum(w * log_q[b, c] for c, w in enumerate(wanted)))
        else:
            losses.append(-(method.w1 - method.w2 * p[b, y[b]]) / CLASSES * log_q[b, y[b]])
    loss = torch.stack(losses).mean()
    if turn and len(names) > 1 and method.agreement == "paper":
        loss = loss + method.alpha * ((parts[k].softmax(1) - parts[previous].detach().softmax(1)) ** 2).mean()
    return loss


def a_step_is_that_by_hand(method: Reconboost, fusion: str, names: Sequence[str], stage: int) -> None:
    """Law: every gradient of a step is that of the formula, of the parameters that train and of no other."""
    run, x = at(method, stage, fusion, names), batch(3, names=names)
    net = copy.deepcopy(run.network)
    method.gradients(run, x)
    loss_by_hand(method, net, x, stage).backward()
    for name, p in net.named_parameters():
        mine = gradients(run)[name]
        assert (mine is None) == (p.grad is None), name
        if mine is not None:
            close(mine, p.grad, 1e-10)


@every_split
@every_count
@every_residual
@pytest.mark.parametrize("stage", [0, 1, 2, 6])
def test_a_step_is_that_by_hand(fusion, count, residual, stage):
    method = Reconboost(residual=residual, alpha=0.7, w1=4.0, w2=1.5)
    a_step_is_that_by_hand(method, fusion, FOUR[:count], stage)


def test_with_one_modality_a_boost_is_weighted_cross_entropy():
    for stage in (0, 2):
        a_step_is_that_by_hand(Reconboost(), "late", FOUR[:1], stage)


@every_split
@pytest.mark.parametrize("agreement", ["paper", "code"])
def test_whole_turns_are_those_of_a_loop_by_hand(fusion, agreement):
    method = Reconboost(boost_epochs=1, rectify_epochs=1, agreement=agreement)
    run = built(method, fusion)
    run.epochs, net = 8, copy.deepcopy(run.network).requires_grad_()
    for stage in range(8):
        chosen = enter(method, run, stage)
        steps(method, run, 2, NAMES)
        trains = [p for group in net.parameter_groups() if chosen.trains(group) for p in group["params"]]
        if fusion == "late" and stage % 2 == 0:
            k = NAMES[stage // 2 % 3]
            assert {*trains} == {*net.encoders[k].parameters(), *net.fusion.linear[k].parameters()}
        for number in range(2):
            made = torch.autograd.grad(loss_by_hand(method, net, batch(number), stage), trains)
            with torch.no_grad():
                for p, grad in zip(trains, made, strict=True):
                    p -= 0.1 * grad
    for name, p in net.named_parameters():
        close(run.network.get_parameter(name), p, 1e-10)
    assert method.stage(run, 8) is None


@every_split
@pytest.mark.parametrize("stage", [0, 2, 4, 6])
def test_a_boost_moves_one_encoder_and_its_head_alone(fusion, stage):
    run, k = at(Reconboost(), stage, fusion), NAMES[stage // 2 % 3]
    decay = 0.0 if fusion == "concat" else 0.1
    run.optimizer = torch.optim.SGD(run.network.parameter_groups(), lr=0.1, momentum=0.9, weight_decay=decay)
    before = {name: p.clone() for name, p in run.network.named_parameters()}
    steps(Reconboost(), run, 3)
    for name, p in run.network.named_parameters():
        own = k in name or "fusion.head" in name or name == "fusion.linear.bias"
        if name == "fusion.linear.weight":
            size, position = p.shape[1] // 3, NAMES.index(k)
            for m, (now, then) in enumerate(zip(p.split(size, 1), before[name].split(size, 1), strict=True)):
                assert torch.equal(now, then) == (m != position)
        else:
            assert torch.equal(p, before[name]) == (not own), name


def test_weight_decay_alone_reaches_the_columns_of_others_in_a_concatenation():
    run = at(Reconboost(), 2, "concat")
    run.optimizer = torch.optim.SGD(run.network.parameter_groups(), lr=0.1, momentum=0.9, weight_decay=0.5)
    before = run.network.fusion.linear.weight.detach().clone()
    steps(Reconboost(), run, 1)
    audio, _, text = run.network.fusion.linear.weight.detach().split(64, 1)
    close(torch.cat([audio, text], 1), (1 - 0.1 * 0.5) * torch.cat([before[:, :64], before[:, 128:]], 1))


def test_a_rectification_is_a_step_of_joint_training_of_everything():
    for fusion in ("late", "concat", "shared"):
        run, joint = at(Reconboost(), 1, fusion), built(Joint(), fusion)
        Reconboost().gradients(run, batch())
        Joint().gradients(joint, batch())
        for name, grad in gradients(joint).items():
            assert torch.equal(gradients(run)[name], grad)


def test_the_first_boost_knows_no_other_modality():
    run, other = at(Reconboost(), 0), at(Reconboost(), 0)
    x = batch()
    y = batch(5)._replace(target=x.target)
    Reconboost().gradients(run, x)
    Reconboost().gradients(other, x._replace(inputs={**y.inputs, "audio": x.inputs["audio"]}))
    for name, grad in gradients(run).items():
        assert grad is None or torch.equal(grad, gradients(other)[name])


def test_a_sample_the_ensemble_knows_teaches_less():
    run = at(Reconboost(residual="true_class", agreement="code", w1=1.0, w2=1.0), 2)
    x = batch()
    pulls = []
    for surety in (0.0, 50.0):
        with torch.no_grad():  # the others' parts: constants, sure of the target
            for name in ("audio", "text"):
                run.network.fusion.linear[name].weight.zero_()
                run.network.fusion.linear[name].bias.copy_(surety * nn.functional.one_hot(x.target[0], CLASSES))
        run.optimizer.zero_grad()
        Reconboost(residual="true_class", agreement="code", w1=1.0, w2=1.0).gradients(
            run, x._replace(target=x.target[[0] * 8])
        )
        pulls.append(float(run.network.fusion.linear["image"].weight.grad.norm()))
    assert pulls[0] > 0.1
    assert pulls[1] < 1e-12


def test_the_step_says_who_is_boosted():
    for stage, said in ((0, "audio"), (1, None), (2, "image"), (3, None), (6, "audio")):
        run = at(Reconboost(), stage)
        Reconboost().gradients(run, batch())
        assert run.notes.get("boosted") == said


@every_split
@pytest.mark.parametrize("stage", [0, 2])
def test_the_output_of_a_boost_holds_all_features_but_a_graph_of_one(fusion, stage):
    run = at(Reconboost(), stage, fusion)
    output = Reconboost().gradients(run, batch())
    boosted = NAMES[stage // 2]
    assert {name: h.requires_grad for name, h in output.features.items()} == {n: n == boosted for n in NAMES}
    close(output.logits, sum(parts_by_hand(run.network, batch().inputs).values()))


def test_absent_modalities_are_zero_features_of_their_parts():
    method, present = Reconboost(), torch.rand(8, 3, generator=torch.Generator().manual_seed(0)) < 0.6
    run, x = at(method, 2), batch()
    method.gradients(run, x._replace(present=present))
    other = at(method, 2)
    for m, name in enumerate(NAMES):
        mask = present[:, m : m + 1].double()
        other.network.encoders[name].register_forward_hook(lambda _m, _i, h, mask=mask: h * mask)
    method.gradients(other, x)
    for name, grad in gradients(other).items():
        assert grad is None or torch.allclose(gradients(run)[name], grad, rtol=0, atol=1e-12)


@every_split
def test_the_second_pass_of_a_rule_reuses_ensemble_and_previous(fusion):
    method, x = Reconboost(alpha=2.0), batch()
    run = at(method, 2, fusion)
    parts = {n: z.detach() for n, z in parts_by_hand(run.network, x.inputs).items()}
    method.gradients(run, x)
    with torch.no_grad():
        for p in run.network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype))
    net = copy.deepcopy(run.network)
    net.zero_grad()
    run.perturbed = True
    run.optimizer.zero_grad()
    method.gradients(run, x)
    z = parts_by_hand(net, x.inputs)["image"]
    p, before = (parts["audio"] + parts["text"]).softmax(1), parts["audio"].softmax(1)
    loss = residual_loss(z, p, x.target, 5.0, 1.0, "full") + 2.0 * agreement_loss(z, before)
    loss.mean().backward()
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            close(gradients(run)[name], parameter.grad, 1e-10)


def test_frozen_encoders_of_a_boost_are_in_evaluation_mode(tmp_path, monkeypatch):
    seen, plain = {}, Reconboost.loss

    def watched(self, run, output, batch):
        seen[run.stage] = {n: e.training for n, e in run.network.encoders.items()} | {
            "fusion": run.network.fusion.training
        }
        return plain(self, run, output, batch)

    monkeypatch.setattr(Reconboost, "loss", watched)
    trained(tmp_path, method={"name": "reconboost", "boost_epochs": 1, "rectify_epochs": 1}, epochs=4)
    assert seen == {
        0: {"audio": True, "image": False, "fusion": True},
        1: {"audio": True, "image": True, "fusion": True},
        2: {"audio": False, "image": True, "fusion": True},
        3: {"audio": True, "image": True, "fusion": True},
    }


@every_split
def test_a_run_through_all_phases_stopped_anywhere_goes_on_bit_for_bit(tmp_path, fusion):
    more = {
        "method": {"name": "reconboost", "boost_epochs": 1, "rectify_epochs": 1},
        "fusion": fusion,
        "sharpness": MSAM,
        "optimizer": {"name": "adam", "lr": 0.01},
        "schedule": {"name": "cosine"},
        "epochs": 5,
    }
    expected = trained(tmp_path / "undisturbed", **more)
    assert len(expected.epochs) == 5
    wanted = settings(**more, checkpoint_every=3)
    for step in (3, 5, 9, 12, 17):
        with pytest.raises(KeyboardInterrupt):
            train(wanted, tmp_path / str(step), watcher=StopAt(step))
        torch.manual_seed(step)  # another process would be anywhere
        resumed = train(wanted, tmp_path / str(step), resume=True)
        assert resumed.end["weights"] == expected.end["weights"]
        for mine, other in zip(resumed.steps + resumed.epochs, expected.steps + expected.epochs, strict=True):
            assert without_volatile(mine) == without_volatile(other)


@every_split
def test_whole_turns_cost_what_is_declared(tmp_path, fusion):
    for boost, rectify in ((1, 1), (1, 2)):
        method = {"name": "reconboost", "boost_epochs": boost, "rectify_epochs": rectify}
        record = trained(tmp_path / f"{boost}{rectify}", method=method, fusion=fusion, epochs=2 * (boost + rectify))
        declared = Reconboost(boost_epochs=boost, rectify_epochs=rectify).passes(2)
        assert record.end["passes_per_step"] == pytest.approx(declared.cost, abs=1e-6)


def test_a_boost_goes_back_through_one_encoder():
    assert Reconboost().passes(2) == Passes(forward=1.0, backward=0.75)
    assert Reconboost(boost_epochs=1, rectify_epochs=3).passes(4) == Passes(forward=1.0, backward=(0.25 + 3) / 4)


@pytest.mark.parametrize("fusion", ["early", "maxout"])
def test_early_fusion_is_refused_with_what_is_defined(fusion):
    with pytest.raises(ValueError, match=r"found MaxoutFusion, an early fusion.*late, concat or shared"):
        Reconboost().build(model(fusion), CLASSES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"residual": "ful"}, r"Unknown residual 'ful'\. Did you mean 'full'\?"),
        ({"agreement": "papier"}, r"Unknown agreement 'papier'\. Did you mean 'paper'\?"),
        ({"w1": 1.0, "w2": 1.5}, r"`w2` must be <= `w1` \(1.0\), received 1.5"),
        ({"boost_epochs": 0}, "`boost_epochs` must be >= 1, received 0"),
        ({"alpha": -0.5}, "`alpha` must be >= 0, received -0.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Reconboost(**settings)


def slopes(alpha: float, agreement: str) -> list[Tensor]:
    method = Reconboost(alpha=alpha, agreement=agreement)
    run = at(method, 2)
    method.gradients(run, batch())
    return [grad for grad in gradients(run).values() if grad is not None]


def the_agreement_acts() -> None:
    """Law of the paper's agreement: alpha changes every gradient that there is."""
    pairs = list(zip(slopes(0.0, "paper"), slopes(0.5, "paper"), strict=True))
    assert pairs
    assert not any(torch.equal(without, with_) for without, with_ in pairs)


def test_the_agreement_of_the_paper_acts():
    the_agreement_acts()


def test_the_agreement_of_the_code_is_inert():
    for alpha in (0.5, 1e6):
        for without, with_ in zip(slopes(0.0, "code"), slopes(alpha, "code"), strict=True):
            assert torch.equal(without, with_)


def test_the_planted_fault_of_an_agreement_with_both_sides_detached_is_caught(monkeypatch):
    monkeypatch.setattr(reconboost, "agreement_loss", lambda z, p: agreement_loss(z.detach(), p))
    with pytest.raises(AssertionError):
        the_agreement_acts()


def test_the_planted_fault_of_a_true_class_residual_without_its_1_over_c_is_caught(monkeypatch):
    def without(logits, p, target, w1, w2, residual):
        return residual_loss(logits, p, target, w1, w2, residual) * logits.shape[1]

    monkeypatch.setattr(reconboost, "residual_loss", without)
    with pytest.raises(AssertionError):
        a_step_is_that_by_hand(Reconboost(residual="true_class"), "late", NAMES, 2)


@every_residual
@pytest.mark.parametrize("wrong", ["with itself", "itself alone", "without another"])
def test_the_planted_fault_of_an_ensemble_of_the_wrong_modalities_is_caught(monkeypatch, residual, wrong):
    def faulty(parts, without):
        of = {"with itself": list(parts), "itself alone": [without], "without another": ["image", "text"]}[wrong]
        return sum(parts[name].detach() for name in of).softmax(1)

    a_step_is_that_by_hand(Reconboost(residual=residual), "late", NAMES, 2)
    monkeypatch.setattr(reconboost, "ensemble_probability", faulty)
    with pytest.raises(AssertionError):
        a_step_is_that_by_hand(Reconboost(residual=residual), "late", NAMES, 2)
