"""UMT: teachers trained alone, put away, the student back at its start and pulled to what they know."""

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor, nn

from msam import MultimodalModel, SumFusion
from msam.methods import Method, Passes, Run
from msam.methods.joint import Joint
from msam.methods.umt import Umt, distance
from msam.train import checkpoint
from tests.methods._toys import (
    CLASSES,
    EARLY,
    FOUR,
    LATE,
    NAMES,
    batch,
    built,
    close,
    enter,
    gradients,
    run_of,
    steps,
)
from tests.train._runs import WORLD, trained

every_fusion = pytest.mark.parametrize("fusion", [*LATE, *EARLY])
every_count = pytest.mark.parametrize("count", [2, 3, 4])
entropy = nn.functional.cross_entropy


def taught(method: Method, fusion: str = "late", names: Sequence[str] = NAMES, teaching: int = 3) -> Run:
    """Return a run at the student's first step, its teachers trained for a few."""
    run = built(method, fusion, names=names)
    return pupil(method, run, names, teaching)


def pupil(method: Method, run: Run, names: Sequence[str] = NAMES, teaching: int = 3) -> Run:
    steps(method, run, teaching, names)
    method.stage_end(run)
    enter(method, run, 1)
    run.begin_step(teaching + 1)
    run.optimizer.zero_grad()
    return run


def normed(method: Method) -> Run:
    """Return a run whose encoders have BatchNorm and dropout, in training mode."""
    torch.manual_seed(0)
    layers = {n: [nn.Linear(6, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.2)] for n in NAMES}
    network = MultimodalModel(
        {n: nn.Sequential(*stack) for n, stack in layers.items()}, SumFusion(dict.fromkeys(NAMES, 7), CLASSES)
    )
    run = run_of(method.build(network, CLASSES).double().train())
    enter(method, run, 0)
    run.begin_step(1)
    return run


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


@given(
    some.integers(1, 4).flatmap(
        lambda size: some.lists(
            some.tuples(*[some.lists(some.floats(-9, 9), min_size=size, max_size=size)] * 2), min_size=1, max_size=4
        )
    )
)
def test_the_distance_is_the_mean_square_over_the_elements_of_each_sample(pairs):
    a, b = (torch.tensor([pair[side] for pair in pairs], dtype=torch.float64) for side in (0, 1))
    by_hand = [sum((x - y) ** 2 for x, y in zip(*pair, strict=True)) / len(pair[0]) for pair in pairs]
    close(distance(a, b), torch.tensor(by_hand, dtype=torch.float64))
    close(distance(a, b), distance(b, a), 0)
    assert not distance(a, a).any()


@every_fusion
@every_count
def test_teachers_are_trained_as_each_net_would_be_alone(fusion, count):
    names = FOUR[:count]
    run = built(Umt(), fusion, names=names)
    alone = {n: nn.Sequential(*copy.deepcopy([run.network.encoders[n], run.network.heads[n]])) for n in names}
    torch.manual_seed(1)
    steps(Umt(), run, 4, names)
    for name, net in alone.items():
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for number in range(4):
            x = batch(number, names=names)
            optimizer.zero_grad()
            entropy(net(x.inputs[name]), x.target).backward()
            optimizer.step()
        for mine, other in zip([*run.network.encoders[name].parameters()], [*net[0].parameters()], strict=True):
            close(mine, other)
        for mine, other in zip([*run.network.heads[name].parameters()], [*net[1].parameters()], strict=True):
            close(mine, other)


@every_fusion
def test_the_fusion_rests_while_the_teachers_are_trained(fusion):
    run = built(Umt(), fusion)
    before = {key: p.clone() for key, p in run.network.fusion.named_parameters()}
    steps(Umt(), run, 3)
    for key, p in run.network.fusion.named_parameters():
        assert p.grad is None
        assert torch.equal(p, before[key])


@every_fusion
def test_the_student_begins_where_the_run_began_and_its_teachers_are_where_they_ended(fusion):
    run = built(Umt(), fusion)
    began = weights(run.network.encoders), weights(run.network.fusion)
    steps(Umt(), run, 3)
    trained_encoders, trained_heads = weights(run.network.encoders), weights(run.network.heads)
    assert any(not torch.equal(trained_encoders[key], began[0][key]) for key in began[0])
    Umt().stage_end(run)
    assert_same(weights(run.network.encoders), began[0])
    assert_same(weights(run.network.fusion), began[1])
    assert_same(weights(run.state["teachers"]), trained_encoders)
    assert_same(weights(run.network.heads), trained_heads)


def test_statistics_of_batchnorm_go_back_too_and_the_teachers_keep_theirs():
    run = normed(Umt())
    began = weights(run.network.encoders)
    assert any("running_mean" in key for key in began)
    pupil(Umt(), run)
    assert_same(weights(run.network.encoders), began)
    assert all(
        value.any() for key, value in run.state["teachers"].state_dict().items() if key.endswith("1.running_mean")
    )


@every_fusion
@every_count
@pytest.mark.parametrize("weight", [0.5, 10.0])
def test_a_students_step_is_cross_entropy_plus_the_pull_of_every_teacher(fusion, count, weight):
    names, method = FOUR[:count], Umt(weight=weight)
    run, x = taught(method, fusion, names), batch(7, names=names)
    net = copy.deepcopy(run.network)
    torch.manual_seed(1)
    output = method.gradients(run, x)
    torch.manual_seed(1)
    features = {n: net.encoders[n](x.inputs[n]) for n in names}
    logits = net.fusion(features)
    loss = entropy(logits, x.target)
    for n in names:
        target = run.state["teachers"][n](x.inputs[n]).detach()
        loss = loss + weight * ((target - features[n]) ** 2).mean()
    loss.backward()
    for name, p in net.named_parameters():
        if name.startswith("heads."):
            assert gradients(run)[name] is None
        else:
            close(gradients(run)[name], p.grad, 1e-10)
    close(output.logits, logits)


def test_the_pull_reaches_the_encoders_alone():
    runs = [taught(Umt(weight=w)) for w in (1e-300, 10.0)]
    for run, w in zip(runs, (1e-300, 10.0), strict=True):
        Umt(weight=w).gradients(run, batch(7))
    without, pulled = map(gradients, runs)
    assert without.keys() == pulled.keys()
    for name in pulled:
        if name.startswith("encoders."):
            assert not torch.equal(pulled[name], without[name])
        elif name.startswith("fusion."):
            assert torch.equal(pulled[name], without[name])


def test_the_student_visibly_comes_nearer_to_its_teachers():
    away = {}
    for weight in (1e-300, 10.0):
        method = Umt(weight=weight)
        run = taught(method, teaching=20)
        steps(method, run, 20)
        x = batch(0)
        with torch.no_grad():
            away[weight] = [
                float(distance(run.state["teachers"][n](x.inputs[n]), run.network.encoders[n](x.inputs[n])).mean())
                for n in NAMES
            ]
    assert all(near < 0.5 * far for near, far in zip(away[10.0], away[1e-300], strict=True))


@every_fusion
def test_without_a_pull_the_student_trains_as_if_nothing_had_been_before(fusion):
    run, joint = taught(Umt(weight=1e-300), fusion), built(Joint(), fusion)
    for method, each in ((Umt(weight=1e-300), run), (Joint(), joint)):
        torch.manual_seed(1)
        steps(method, each, 4)
    for key, value in joint.network.state_dict().items():
        assert torch.equal(run.network.state_dict()[key], value), key


def test_at_weight_zero_there_are_no_teachers_and_the_run_is_joint_training(tmp_path):
    run = built(Umt(weight=0.0))
    assert not run.state
    assert not run.network.heads
    assert Umt(weight=0.0).stage(run, 1) is None
    ends = [trained(tmp_path / str(n), method=m).end for n, m in enumerate([{"name": "umt", "weight": 0.0}, "joint"])]
    assert ends[0]["weights"] == ends[1]["weights"]
    assert ends[0]["passes_per_step"] == Umt(weight=0.0).passes(2).cost == 1.0


@pytest.mark.parametrize(("length", "epochs", "expected"), [(1.0, 4, 4), (0.5, 4, 2), (2.5, 4, 10), (0.01, 4, 1)])
def test_teachers_have_their_share_of_epochs(length, epochs, expected):
    run = built(Umt())
    run.epochs = epochs
    first, second, third = (Umt(teacher_length=length).stage(run, k) for k in range(3))
    assert (first.epochs, first.auxiliary, first.new_optimizer, first.schedule_from) == (expected, True, False, None)
    assert (second.epochs, second.auxiliary, second.new_optimizer, second.schedule_from) == (epochs, False, True, 0)
    assert third is None
    assert first.roles == {"encoder", "head"}
    assert second.roles is None


@pytest.mark.parametrize("length", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("fusion", [{"name": "late"}, {"name": "maxout", "hidden": [8]}])
def test_a_whole_run_is_marked_scheduled_and_paid_for_as_declared(tmp_path, length, fusion):
    method = {"name": "umt", "teacher_length": length}
    record = trained(tmp_path, method=method, fusion=fusion, epochs=4, schedule={"name": "step", "at": 0.5})
    teaching = int(4 * length)
    assert [line.get("auxiliary", False) for line in record.epochs] == [True] * teaching + [False] * 4
    rates = [0.05, 0.05, 0.005, 0.005, 0.005, 0.005]
    assert [line["lr"] for line in record.epochs] == pytest.approx(rates[:teaching] + rates[:4])
    assert record.end["passes_per_step"] == pytest.approx(Umt(teacher_length=length).passes(2).cost, abs=1e-6)


def test_a_step_costs_a_forward_pass_of_the_teachers():
    assert Umt(teacher_length=1.0).passes(2) == Passes(forward=1.5, backward=1.0)
    assert Umt(teacher_length=3.0).passes(4) == Passes(forward=1.25, backward=1.0)


def test_the_initial_weights_are_let_go_once_they_are_back(tmp_path):
    trained(tmp_path, method="umt")
    state = checkpoint.load(tmp_path / "checkpoint.pt")["state"]
    assert state["initial"] == {}
    assert {key.split(".")[0] for key in state["teachers"]} == {"audio", "image"}


def test_both_passes_of_a_rule_aim_at_the_same_features_and_ask_the_teachers_once():
    method = Umt()
    run, x = taught(method), batch(7)
    asked, losses = [], []
    for teacher in run.state["teachers"].values():
        teacher.register_forward_hook(lambda *_: asked.append(1))
    plain, run.backward = run.backward, lambda loss: (losses.append(float(loss.detach())), plain(loss))
    method.gradients(run, x)
    with torch.no_grad():
        for p in run.network.parameters():
            p.add_(0.1)
    run.perturbed = True
    method.gradients(run, x)
    assert len(asked) == len(NAMES)
    output = run.network(x.inputs)
    by_hand = entropy(output.logits, x.target)
    for name, feature in output.features.items():
        by_hand = by_hand + 10 * ((run.state["teachers"][name](x.inputs[name]) - feature) ** 2).mean()
    close(losses[1], float(by_hand.detach()))
    assert losses[1] != losses[0]


@pytest.mark.parametrize("stage", [0, 1])
def test_a_modality_that_a_sample_lacks_neither_teaches_nor_is_taught(stage):
    method, present = Umt(), torch.rand(8, 3, generator=torch.Generator().manual_seed(0)) < 0.6
    run = taught(method) if stage else built(method)
    x = batch(7)._replace(present=present)
    absurd = {n: v.masked_fill(~present[:, m : m + 1], 1e3) for m, (n, v) in enumerate(x.inputs.items())}
    net, mask = copy.deepcopy(run.network), present.double()
    method.gradients(run, x._replace(inputs=absurd))
    features = {n: net.encoders[n](x.inputs[n]) * mask[:, m : m + 1] for m, n in enumerate(NAMES)}
    loss = entropy(net.fusion(features), x.target) if stage else torch.zeros(())
    for m, n in enumerate(NAMES):
        if stage:
            target = run.state["teachers"][n](x.inputs[n]) * mask[:, m : m + 1]
            loss = loss + 10 * ((target - features[n]) ** 2).mean()
        else:
            own = entropy(net.heads[n](features[n]), x.target, reduction="none")
            loss = loss + (own * mask[:, m]).mean()
    loss.backward()
    for name, p in net.named_parameters():
        mine = gradients(run)[name]
        assert (mine is None) == (p.grad is None)
        assert mine is None or torch.allclose(mine, p.grad, rtol=0, atol=1e-10)


def test_samples_that_lack_a_modality_train_in_a_whole_run(tmp_path):
    assert trained(tmp_path, method="umt", data=WORLD | {"flaw": "present"}).end["status"] == "finished"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, "`weight` must be >= 0, received -1.0"),
        ({"teacher_length": 0.0}, "`teacher_length` must be > 0, received 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Umt(**settings)


def teachers_rest() -> None:
    """Law: while the student trains, no weight and no statistic of a teacher moves, and none asks for a gradient."""
    run = normed(Umt())
    pupil(Umt(), run)
    before = weights(run.state["teachers"])
    steps(Umt(), run, 3)
    assert_same(weights(run.state["teachers"]), before)
    assert not any(p.requires_grad or p.grad is not None for p in run.state["teachers"].parameters())


def teachers_answer_in_evaluation_mode() -> None:
    """Law: the pull is that of features without dropout, normalised by the teachers' own statistics."""
    run, losses, x = normed(Umt()), [], batch(7)
    pupil(Umt(), run)
    run.backward = lambda loss: losses.append(float(loss.detach()))
    torch.manual_seed(1)
    output = Umt().gradients(run, x)
    teachers = copy.deepcopy(run.state["teachers"]).eval()
    pull = sum(((teachers[n](x.inputs[n]) - output.features[n]) ** 2).mean() for n in NAMES)
    assert losses[0] == pytest.approx(float((entropy(output.logits, x.target) + 10 * pull).detach()), abs=1e-10)


def test_teachers_rest():
    teachers_rest()


def test_teachers_answer_in_evaluation_mode():
    teachers_answer_in_evaluation_mode()


def test_the_planted_fault_of_a_teacher_that_goes_on_training_is_caught(monkeypatch):
    ended = Umt.stage_end

    def shared(self, run):
        ended(self, run)
        run.state["teachers"] = run.network.encoders

    monkeypatch.setattr(Umt, "stage_end", shared)
    with pytest.raises(AssertionError):
        teachers_rest()


@pytest.mark.parametrize("law", [teachers_rest, teachers_answer_in_evaluation_mode])
def test_the_planted_fault_of_a_teacher_in_training_mode_is_caught(monkeypatch, law):
    ended = Umt.stage_end

    def awake(self, run):
        ended(self, run)
        run.state["teachers"].train()

    monkeypatch.setattr(Umt, "stage_end", awake)
    with pytest.raises(AssertionError):
        law()


def test_the_planted_fault_of_a_student_that_begins_from_its_teachers_is_caught(monkeypatch):
    def kept(self, run):
        run.state["teachers"].load_state_dict(run.network.encoders.state_dict())

    monkeypatch.setattr(Umt, "stage_end", kept)
    with pytest.raises(AssertionError):
        test_the_student_begins_where_the_run_began_and_its_teachers_are_where_they_ended("late")
