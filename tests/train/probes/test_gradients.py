"""Gradients of modalities against autograd by hand, on every kind of fusion."""

import math

import pytest
import torch

from msam import shapley
from msam.methods import per_sample_loss
from msam.train.probes import Study
from msam.train.probes.gradients import cosine, measure, shared_parameters
from tests.train.probes._models import SIZES, batch, flat, halves, network

FUSION = {"late": {}, "concat": {}, "shared": {"hidden": 4}, "maxout": {"hidden": (3,)}}
SHARED = {"late": None, "concat": "bias", "shared": "fusion", "maxout": "fusion"}


def by_hand(model, data, name):
    """Return a modality's own loss, the mean over samples that have it; None: the joint loss."""
    output = model(data.inputs, data.present)
    if name is None:
        logits = output.logits
    elif model.fusion.splits:
        logits = model.fusion.modality_logits(output.features)[name]
    else:
        values = shapley.coalition_logits(model, output.features, graph=True)
        logits = shapley.shapley_values(values)[list(SIZES).index(name)]
    losses = per_sample_loss(logits, data.target)
    column = None if name is None or data.present is None else data.present[:, list(SIZES).index(name)]
    return (losses if column is None else losses[column]).mean()


def gradient(loss, parameters):
    return flat(torch.autograd.grad(loss, list(parameters), materialize_grads=True))


@pytest.mark.parametrize("lacking", [False, True])
@pytest.mark.parametrize("fusion", FUSION)
def test_lengths_and_cosines_are_those_of_autograd_by_hand(fusion, lacking):
    model, data = network(fusion, **FUSION[fusion]).eval(), batch(20, lacking=lacking)
    found = measure(Study(model, halves(data, 8)))
    assert found["loss"] == pytest.approx(float(by_hand(model, data, None).detach()))
    of, shared = shared_parameters(model)
    assert of == SHARED[fusion]
    for name in SIZES:
        encoder = list(model.encoders[name].parameters())
        own = gradient(by_hand(model, data, name), encoder)
        joint = gradient(by_hand(model, data, None), encoder)
        line = found["modalities"][name]
        assert line["loss"] == pytest.approx(float(by_hand(model, data, name).detach()))
        assert line["encoder"] == pytest.approx(float(own.norm()))
        assert line["joint"] == pytest.approx(float(joint.norm()))
        assert line["cosine"] == pytest.approx(float(own @ joint / own.norm() / joint.norm()))
        there = pytest.approx(float(gradient(by_hand(model, data, name), shared).norm())) if of else None
        assert line["shared"] == there
    if of is None:
        assert found["shared"] is None
        return
    audio, image = (gradient(by_hand(model, data, name), shared) for name in SIZES)
    angle = float(audio @ image / audio.norm() / image.norm())
    assert found["shared"]["cosines"] == [{"modalities": ["audio", "image"], "cosine": pytest.approx(angle)}]
    assert found["shared"]["joint"] == pytest.approx(float(gradient(by_hand(model, data, None), shared).norm()))
    assert found["shared"]["parameters"] == sum(p.numel() for p in shared)


def test_of_a_concatenation_the_bias_alone_is_shared():
    model = network("concat")
    assert shared_parameters(model) == ("bias", {model.fusion.linear.bias})


def test_heads_beside_the_fusion_change_nothing():
    plain, headed = network("maxout", hidden=(3,)), network("maxout", hidden=(3,))
    headed.add_heads(3)
    assert measure(Study(plain, [batch()])) == measure(Study(headed, [batch()]))


def test_a_single_modality_shares_with_nobody():
    alone = network("shared", hidden=4).only("audio").eval()
    found = measure(Study(alone, [batch()]))
    assert found["shared"] is None
    assert found["modalities"]["audio"]["cosine"] == pytest.approx(1)
    assert found["modalities"]["audio"]["joint"] == pytest.approx(found["modalities"]["audio"]["encoder"])


def test_a_modality_that_no_sample_has_is_left_out():
    data = batch()._replace(present=torch.tensor([[True, False]] * 12))
    assert list(measure(Study(network("shared"), [data]))["modalities"]) == ["audio"]


def test_what_has_no_length_has_no_direction():
    zero, one = [torch.zeros(2)], [torch.ones(2)]
    assert cosine(zero, one) is None
    assert cosine([torch.tensor([torch.inf, 0.0])], one) is None
    assert cosine(one, [torch.tensor([-3.0, -3.0])]) == pytest.approx(-1)
    assert cosine([torch.tensor([1.0, 0.0])], one) == pytest.approx(math.sqrt(0.5))


def test_a_loss_that_is_not_finite_gives_none():
    model = network()
    model.fusion.linear["image"].weight.data[0, 0] = torch.nan
    found = measure(Study(model, [batch()]))
    assert found["loss"] is None
    assert found["modalities"]["image"]["encoder"] is None
    assert found["modalities"]["audio"]["encoder"] > 0
