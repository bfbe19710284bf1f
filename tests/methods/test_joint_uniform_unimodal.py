"""The three plain methods against training loops written by hand, in double precision."""

import copy

import pytest
import torch
from torch import nn

from msam import methods
from msam.methods import per_sample_loss
from msam.methods.joint import Joint
from msam.methods.uniform import Uniform
from msam.methods.unimodal import Unimodal
from tests.methods._toys import CLASSES, NAMES, batch, built, close, gradients, model, run_of, steps

every_fusion = pytest.mark.parametrize("fusion", ["late", "concat", "early", "maxout"])


@every_fusion
def test_joint_is_the_gradient_of_the_mean_cross_entropy_of_every_parameter(fusion):
    run = built(Joint(), fusion)
    x = batch()
    torch.manual_seed(1)
    Joint().gradients(run, x)
    by_hand = copy.deepcopy(run.network)
    by_hand.load_state_dict(built(Joint(), fusion).network.state_dict())
    by_hand.zero_grad()
    torch.manual_seed(1)
    nn.functional.cross_entropy(by_hand(x.inputs).logits, x.target).backward()
    for name, p in by_hand.named_parameters():
        close(gradients(run)[name], p.grad)


@every_fusion
def test_uniform_of_weight_zero_gives_joints_gradients_on_the_shared_parameters(fusion):
    joint, uniform = built(Joint(), fusion), built(Uniform(weight=0.0), fusion)
    for method, run in ((Joint(), joint), (Uniform(weight=0.0), uniform)):
        torch.manual_seed(1)
        method.gradients(run, batch())
    for name, grad in gradients(uniform).items():
        if name.startswith("heads."):
            assert not grad.any()
        else:
            close(grad, gradients(joint)[name])


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_uniform_adds_each_heads_own_cross_entropy(weight):
    run, x = built(Uniform(weight=weight), "maxout"), batch()
    net = copy.deepcopy(run.network)
    torch.manual_seed(1)
    Uniform(weight=weight).gradients(run, x)
    torch.manual_seed(1)
    output, entropy = net(x.inputs), nn.functional.cross_entropy
    own = sum(entropy(net.heads[n](output.features[n]), x.target) for n in NAMES)
    (entropy(output.logits, x.target) + weight * own).backward()
    for name, p in net.named_parameters():
        close(gradients(run)[name], p.grad)


def test_uniform_trains_heads_of_its_own_beside_those_of_the_fusion():
    run = built(Uniform(), "late")
    assert set(run.network.heads) == set(NAMES)
    Uniform().gradients(run, batch())
    assert all(grad is not None and grad.any() for grad in gradients(run).values())


@pytest.mark.parametrize("modality", NAMES)
@pytest.mark.parametrize("fusion", ["late", "concat"])
def test_unimodal_late_is_an_encoder_and_a_linear_layer_trained_by_hand(modality, fusion):
    run = built(Unimodal(modality=modality), fusion)
    fused = run.network.fusion.linear
    linear = copy.deepcopy(fused if fusion == "concat" else fused[modality])
    plain = nn.Sequential(copy.deepcopy(run.network.encoders[modality]), linear)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    steps(Unimodal(modality=modality), run, names=NAMES)
    for number in range(4):
        x = batch(number)
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(x.inputs[modality]), x.target).backward()
        optimizer.step()
    for mine, other in zip(run.network.parameters(), plain.parameters(), strict=True):
        close(mine, other)


def test_unimodal_has_the_encoder_joint_begins_with_and_no_other():
    joint = built(Joint()).network
    alone = built(Unimodal(modality="image")).network
    assert alone.modalities == ("image",)
    for name, value in alone.encoders["image"].state_dict().items():
        assert torch.equal(value, joint.encoders["image"].state_dict()[name])


def test_unimodal_takes_the_first_modality_when_none_is_named_and_refuses_an_unknown_one():
    assert built(Unimodal()).network.modalities == ("audio",)
    with pytest.raises(ValueError, match=r"Unknown modality 'adio'\. Did you mean 'audio'\?"):
        Unimodal(modality="adio").build(model(), CLASSES)


def test_extra_loss_of_the_model_is_added():
    run, x = run_of(model()), batch()
    plain = run.model
    run.model = lambda *given: plain(*given)._replace(extra_loss=3.0 * plain.encoders["text"].layers[1].bias.sum())
    Joint().gradients(run, x)
    bias = run.network.encoders["text"].layers[1].bias
    with_extra = bias.grad.clone()
    run.network.zero_grad()
    run.model = plain
    Joint().gradients(run, x)
    close(with_extra, bias.grad + 3.0)


def test_the_loss_of_classes_is_cross_entropy():
    logits, target = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    by_hand = torch.stack([z.exp().sum().log() - z[y] for z, y in zip(logits, target, strict=True)])
    close(per_sample_loss(logits, target), by_hand)


@pytest.mark.parametrize("type_", [torch.bool, torch.int64, torch.uint8])
def test_the_loss_of_labels_is_the_mean_binary_cross_entropy(type_):
    logits, target = torch.randn(4, 3, dtype=torch.float64), torch.tensor([[0, 1, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0]])
    p = torch.sigmoid(logits)
    by_hand = -torch.where(target.bool(), p.log(), (1 - p).log()).mean(1)
    close(per_sample_loss(logits, target.to(type_)), by_hand)


def test_the_loss_of_a_regression_is_the_mean_squared_error():
    logits, target = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    close(per_sample_loss(logits, target), ((logits - target) ** 2).mean(1))
    close(per_sample_loss(logits[:, :1], target[:, 0]), (logits[:, 0] - target[:, 0]) ** 2)


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        ((4, 3), torch.zeros(5, dtype=torch.long)),
        ((4, 3), torch.zeros(4, 2, dtype=torch.long)),
        ((4, 3), torch.zeros(4)),
        ((4, 3), torch.zeros(4, 2)),
        ((4, 1), torch.zeros(5)),
        ((4, 3), torch.zeros((), dtype=torch.long)),
    ],
)
def test_targets_that_do_not_fit_are_refused_with_both_shapes(logits, target):
    with pytest.raises(ValueError, match=r"`target` must be .* received \(.*\) of torch\..* for logits \("):
        per_sample_loss(torch.zeros(logits), target)


def test_the_nearest_name_is_offered():
    with pytest.raises(ValueError, match=r"Unknown method 'unifrom'\. Did you mean 'uniform'\? Known: .*joint"):
        methods.load("unifrom")
