"""The ensemble against unimodal runs, in double precision: nets that train together and never meet."""

import copy

import pytest
import torch

from msam import shapley
from msam.methods.ensemble import Ensemble
from msam.methods.unimodal import Unimodal
from msam.models import FUSIONS, MultimodalModel, build
from tests.methods._toys import CLASSES, NAMES, batch, close, run_of, steps
from tests.methods.test_segments import SEGMENTS
from tests.methods.test_segments import batch as segments
from tests.methods.test_segments import network as segmented

OPTIONS = {
    "early": {"hidden": (8,)},
    "maxout": {"hidden": (8,), "dropout": 0.0},
    "shared": {"hidden": 8},
}
OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01),
}
every_fusion = pytest.mark.parametrize("fusion", [name for name in FUSIONS if name != "psp"])


def network(fusion: str, seed: int = 0) -> MultimodalModel:
    torch.manual_seed(seed)
    sizes = {name: 5 if fusion == "shared" else 4 + i for i, name in enumerate(NAMES)}
    encoders = {name: torch.nn.Linear(6, size) for name, size in sizes.items()}
    return MultimodalModel(encoders, FUSIONS[fusion](sizes, CLASSES, **OPTIONS.get(fusion, {}))).double()


def alone(ensemble: MultimodalModel, modality: str) -> MultimodalModel:
    """The net of one modality as a model of its own, with the ensemble's weights of now."""
    return MultimodalModel(
        {modality: copy.deepcopy(ensemble.encoders[modality])}, copy.deepcopy(ensemble.fusion.alone[modality])
    )


@every_fusion
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_net_follows_the_trajectory_of_its_unimodal_run(fusion, optimizer):
    together = Ensemble().build(network(fusion), CLASSES)
    nets = {name: alone(together, name) for name in NAMES}
    run = run_of(together, OPTIMIZERS[optimizer](together.parameter_groups()))
    runs = {name: run_of(net, OPTIMIZERS[optimizer](net.parameter_groups())) for name, net in nets.items()}
    began = copy.deepcopy(together.state_dict())
    for _ in range(3):
        steps(Ensemble(), run, 4)
        for name, other in runs.items():
            steps(Unimodal(modality=name), other, 4)
            mine = alone(together, name).state_dict()
            for key, value in nets[name].state_dict().items():
                close(mine[key], value)
    assert all(not torch.equal(value, began[key]) for key, value in together.state_dict().items())


def test_the_net_is_what_unimodal_training_builds():
    for fusion in OPTIONS:
        together = Ensemble().build(network(fusion), CLASSES)
        for name in NAMES:
            built = Unimodal(modality=name).build(network(fusion), CLASSES)
            assert built.state_dict().keys() == alone(together, name).state_dict().keys()
            assert str(built) == str(alone(together, name))


def test_segments_follow_their_unimodal_run_too():
    together = Ensemble().build(segmented("psp"), CLASSES).double()
    for name in ("audio", "video"):
        net = alone(together, name)
        given, run, other = segments(), run_of(copy.deepcopy(together)), run_of(net)
        for method, each in ((Ensemble(), run), (Unimodal(modality=name), other)):
            each.begin_step(1)
            each.optimizer.zero_grad()
            output = method.gradients(each, given)
            assert output.logits.shape == (4 * SEGMENTS, CLASSES)
            each.optimizer.step()
        mine = alone(run.network, name).state_dict()
        for key, value in net.state_dict().items():
            close(mine[key], value)


@every_fusion
def test_the_sum_of_logits_is_the_sum_of_log_probabilities(fusion):
    together = Ensemble().build(network(fusion), CLASSES).eval()
    x = batch()
    logs = [alone(together, name).eval()({name: x.inputs[name]}).logits.log_softmax(1) for name in NAMES]
    close(together(x.inputs).logits.softmax(1), sum(logs).softmax(1))


@every_fusion
def test_coalitions_are_sums_of_the_nets_and_shapley_logits_the_nets_own(fusion):
    together = Ensemble().build(network(fusion), CLASSES).eval()
    features = together.encode(batch().inputs)
    by_hand = []
    for members in shapley.coalitions(3):
        kept = {n: h if i in members else torch.zeros_like(h) for i, (n, h) in enumerate(features.items())}
        by_hand.append(together.fuse(kept).detach())
    coalitions = shapley.coalition_logits(together, features)
    close(coalitions, torch.stack(by_hand))
    own = together.head_logits(features)
    for name, phi in zip(NAMES, shapley.shapley_values(coalitions), strict=True):
        close(phi - own[name].detach(), (phi - own[name].detach())[:1].expand_as(phi))
    shares = shapley.contributions(coalitions, batch().target)
    assert shares.sum() == pytest.approx(1.0)


def test_no_parameter_sees_two_modalities():
    groups = Ensemble().build(network("maxout"), CLASSES).parameter_groups()
    assert {(group["role"], group["modality"]) for group in groups} == {
        (role, name) for role in ("encoder", "head") for name in NAMES
    }


def test_a_sample_that_lacks_a_modality_teaches_its_net_nothing():
    x = batch()
    lacking = torch.ones(8, 3, dtype=torch.bool)
    lacking[2:, 1] = False
    together = Ensemble().build(network("late"), CLASSES)
    run = run_of(together)
    run.begin_step(1)
    Ensemble().gradients(run, x._replace(present=lacking))
    net = alone(together, NAMES[1])
    net.zero_grad()
    logits = net({NAMES[1]: x.inputs[NAMES[1]][:2]}).logits
    (torch.nn.functional.cross_entropy(logits, x.target[:2], reduction="sum") / 8).backward()
    close(together.encoders[NAMES[1]].weight.grad, net.encoders[NAMES[1]].weight.grad)


def test_a_batch_counts_once_in_running_statistics():
    together = Ensemble().build(network("maxout"), CLASSES)
    run = run_of(together)
    run.begin_step(1)
    Ensemble().gradients(run, batch())
    assert {int(v) for k, v in together.state_dict().items() if k.endswith("num_batches_tracked")} == {1}


def test_it_is_built_on_the_device_and_in_the_precision_of_the_model():
    plain = build({"a": "mlp", "b": "mlp"}, {"a": (6,), "b": (6,)}, CLASSES, "late").double()
    assert {p.dtype for p in Ensemble().build(plain, CLASSES).parameters()} == {torch.float64}
