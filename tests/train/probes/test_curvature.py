"""Eigenvalues of the loss's Hessian and the rise of the loss nearby, against what can be computed whole."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian

from msam import models, shapley
from msam.data import TensorSplit
from msam.methods import per_sample_loss
from msam.models import FUSIONS, Encoder, MultimodalModel
from msam.models.transformer import SequenceTransformer
from msam.train.probes import Study, measured
from msam.train.probes.curvature import DENSE, largest_eigenvalues, measure
from msam.types import Batch
from tests.train.probes._models import batch, flat, halves, linear, network
from tests.train.segments import segments

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch.func imports it
FUSION = {"late": {}, "concat": {}, "shared": {"hidden": 4}, "maxout": {"hidden": (3,), "dropout": 0.5}}


def whole_hessian(model, data):
    """Return the Hessian of the mean loss by torch.func, a matrix."""
    names, values = zip(*[(n, p.detach()) for n, p in model.named_parameters()], strict=True)
    sizes = [v.numel() for v in values]

    def loss(vector):
        parts = {n: v.view_as(p) for n, v, p in zip(names, vector.split(sizes), values, strict=True)}
        output = functional_call(model, parts, (data.inputs, data.present))
        return per_sample_loss(output.logits, data.target).mean()

    return hessian(loss)(flat(values))


@pytest.mark.parametrize("fusion", FUSION)
def test_the_largest_eigenvalues_are_those_of_the_whole_hessian(fusion):
    model, data = network(fusion, width=6, **FUSION[fusion]).eval(), batch(30)
    exact = torch.linalg.eigvalsh(whole_hessian(model, data)).flip(0)[:3]
    assert sum(p.numel() for p in model.parameters()) > DENSE
    found, products = largest_eigenvalues(Study(model, halves(data, 11)))
    assert found == pytest.approx(exact.tolist(), rel=1e-5)
    assert products < 400


@pytest.mark.parametrize("lacking", [False, True])
def test_a_product_is_that_with_the_whole_hessian(lacking):
    model, data = network("maxout", **FUSION["maxout"]).eval(), batch(9, lacking=lacking)
    study = Study(model, halves(data, 4))
    along = [torch.randn_like(p) for p in study.parameters]
    assert torch.allclose(flat(study.product(along)), whole_hessian(model, data) @ flat(along), rtol=1e-9, atol=1e-12)


def test_of_a_few_parameters_the_hessian_is_made_whole():
    model, data = linear(), batch()
    data = data._replace(target=data.inputs["audio"].sum(1))
    found, products = largest_eigenvalues(Study(model, [data]))
    assert products == sum(p.numel() for p in model.parameters()) == 8
    assert found == pytest.approx(torch.linalg.eigvalsh(whole_hessian(model, data)).flip(0)[:3].tolist(), rel=1e-9)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_hessian_of_low_rank_has_eigenvalues_zero_too(rows):
    torch.manual_seed(0)
    model = MultimodalModel({"audio": nn.Identity()}, FUSIONS["concat"]({"audio": 40}, 1)).double()
    x = torch.randn(rows, 40, dtype=torch.float64)
    data = Batch({"audio": x}, torch.zeros(rows, dtype=torch.float64))  # a squared error: one direction a sample
    exact = torch.linalg.eigvalsh(whole_hessian(model, data)).flip(0)[:3]
    found, _ = largest_eigenvalues(Study(model, [data]))
    assert found == pytest.approx(exact.tolist(), rel=1e-5, abs=1e-9)


def test_a_hessian_of_zeros_has_eigenvalues_zero():
    model = network(width=8)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.fusion.linear["audio"].bias.copy_(torch.tensor([1e4, 0.0, 0.0]))  # sure of class 0, and right
    data = batch()._replace(target=torch.zeros(12, dtype=torch.long))
    found = measure(Study(model, [data]))
    assert found["eigenvalues"] == pytest.approx([0.0] * 3, abs=1e-12)
    assert found["sharpness"][0]["joint"] == 0.0


def test_the_rise_is_what_one_step_up_the_slope_makes_it():
    model, data = network().eval(), batch(20)
    found = measure(Study(model, halves(data, 7), rho=0.3))
    loss = per_sample_loss(model(data.inputs).logits, data.target).mean()
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    length = flat(gradient).norm()
    for line, rho in zip(found["sharpness"], (0.05, 0.3), strict=True):
        there = {n: p + rho * g / length for (n, p), g in zip(model.named_parameters(), gradient, strict=True)}
        risen = per_sample_loss(functional_call(model, there, (data.inputs,)).logits, data.target).mean().detach()
        assert line["rho"] == rho
        assert line["joint"] == pytest.approx(float(risen - loss.detach()), rel=1e-9)
    assert found["loss"] == pytest.approx(float(loss.detach()))


@pytest.mark.parametrize("fusion", ["late", "maxout"])
def test_the_rise_of_a_modality_is_that_of_its_own_loss(fusion):
    model, data = network(fusion, **FUSION[fusion]).eval(), batch(20)

    def own(parameters=None):
        held = parameters or dict(model.named_parameters())
        features = functional_call(model, held, (data.inputs,)).features
        if fusion == "late":
            head = held["fusion.linear.image.weight"], held["fusion.linear.image.bias"]
            logits = nn.functional.linear(features["image"], *head)
        else:
            moved = network(fusion, **FUSION[fusion]).eval()
            moved.load_state_dict({**model.state_dict(), **{n: p.detach() for n, p in held.items()}})
            use = model if parameters is None else moved
            logits = shapley.shapley_values(shapley.coalition_logits(use, features, graph=True))[1]
        return per_sample_loss(logits, data.target).mean()

    gradient = torch.autograd.grad(own(), list(model.parameters()), materialize_grads=True)
    step = 0.05 / flat(gradient).norm()
    there = {n: p + step * g for (n, p), g in zip(model.named_parameters(), gradient, strict=True)}
    found = measure(Study(model, [data]))
    assert found["sharpness"][0]["modalities"]["image"] == pytest.approx(float((own(there) - own()).detach()), rel=1e-8)
    assert found["logits"] == {"late": "split", "maxout": "shapley"}[fusion]


@pytest.mark.parametrize(("rho", "radii"), [(None, [0.05]), (0.0, [0.05]), (0.05, [0.05]), (0.2, [0.05, 0.2])])
def test_radii_are_sams_and_the_rules_own(rho, radii):
    assert [line["rho"] for line in measure(Study(network(), [batch()], rho=rho))["sharpness"]] == radii


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_gives_none(value):
    model = network()
    model.fusion.linear["image"].weight.data[0, 0] = value
    found = measure(Study(model, [batch()]))
    assert found["loss"] is None
    assert found["eigenvalues"] == [None] * 3
    assert found["sharpness"][0]["joint"] is None
    assert found["sharpness"][0]["modalities"]["image"] is None
    assert found["sharpness"][0]["modalities"]["audio"] > 0


def test_attention_and_recurrent_layers_can_be_differentiated_twice():
    words = Encoder([SequenceTransformer(6, width=4, heads=2, hidden=4, depth=1, mask=True)], 4)
    encoders = {"text": words, "image": Encoder([nn.Linear(3, 2)], 2)}
    model = MultimodalModel(encoders, FUSIONS["late"]({"text": 4, "image": 2}, 3))
    split = TensorSplit({"text": torch.randn(9, 5, 6), "image": torch.randn(9, 3)}, torch.arange(9) % 3)
    assert None not in measured("curvature", model, split)["eigenvalues"]
    world = segments(size=6)
    recurrent = models.build(world.encoders, world.shapes, 3, "psp", segments=5, locations=4)
    study = Study(recurrent, [world.train[range(6)]])
    assert flat(study.product([torch.ones_like(p) for p in study.parameters])).isfinite().all()
