"""Shapley logits of real models: they sum to the logits, and leave no trace."""

import pytest
import torch
from torch import nn

from msam import MultimodalModel, shapley
from msam.models import FUSIONS, Fusion, SumFusion, build

NAMES = ("audio", "image", "text", "touch")


def model(fusion: str, count: int) -> MultimodalModel:
    torch.manual_seed(count)
    more = {"hidden": (8,), "dropout": 0.5} if fusion in ("maxout", "early") else {}
    more |= {"segments": 1, "locations": 1} if fusion == "psp" else {}
    names = NAMES[:count]
    net = build(dict.fromkeys(names, "mlp"), dict.fromkeys(names, (5,)), 7, fusion, **more).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net


def inputs(count: int) -> dict[str, torch.Tensor]:
    return {name: torch.randn(6, 5, dtype=torch.float64) for name in NAMES[:count]}


every_model = pytest.mark.parametrize(
    ("fusion", "count"), [(f, count) for f in sorted(FUSIONS) for count in (1, 2, 3, 4) if f != "psp" or count < 3]
)


@every_model
@pytest.mark.parametrize("absent", ["feature", "input"])
def test_shapley_logits_sum_to_the_logits(fusion, count, absent):
    net, x = model(fusion, count), inputs(count)
    logits = shapley.coalition_logits(net, net.encode(x) if absent == "feature" else x, absent=absent)
    phi = shapley.shapley_values(logits)
    assert logits.shape == (2**count - 1, 6, 7)
    torch.testing.assert_close(phi.sum(0), net.eval()(x).logits.detach(), rtol=0, atol=1e-12)


@every_model
def test_each_coalition_is_the_model_without_the_others(fusion, count):
    net, x = model(fusion, count), inputs(count)
    logits = shapley.coalition_logits(net, net.encode(x))
    for row, members in zip(logits, shapley.coalitions(count), strict=True):
        present = torch.tensor([[m in members for m in range(count)]] * 6)
        torch.testing.assert_close(row, net.eval()(x, present).logits.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("fusion", ["late", "concat"])
def test_for_two_modalities_late_shapley_logits_are_the_split_logits(fusion):
    net, x = model(fusion, 2), inputs(2)
    phi = shapley.shapley_values(shapley.coalition_logits(net, net.encode(x)))
    split = net.head_logits(net.encode(x))
    extra = [0.0, 0.0]
    if fusion == "late":  # each head's bias stays when its feature is zero, and is shared by Shapley
        biases = [head.bias.detach() for head in net.fusion.linear.values()]
        extra = [(biases[1] - biases[0]) / 2, (biases[0] - biases[1]) / 2]
    for m, name in enumerate(net.modalities):
        torch.testing.assert_close(phi[m], split[name].detach() + extra[m], rtol=0, atol=1e-12)


@every_model
@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_no_trace(fusion, count, training):
    net, x = model(fusion, count).train(training), inputs(count)
    h = net.encode(x)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    for given, absent in ((h, "feature"), (x, "input")):
        assert not shapley.coalition_logits(net, given, absent=absent).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training == training for module in net.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in net.parameters())


def test_a_fusion_that_something_waits_for_is_called():
    """FSDP brings the weights together in a hook before the call."""
    fusion = SumFusion({"a": 3, "b": 2}, 4)
    features = {"a": torch.randn(5, 3), "b": torch.randn(5, 2)}
    network = MultimodalModel({"a": nn.Identity(), "b": nn.Identity()}, fusion)
    expected = shapley.coalition_logits(network, features)
    called = []
    fusion.register_forward_pre_hook(lambda *_: called.append(True))
    assert torch.allclose(shapley.coalition_logits(network, features), expected, atol=1e-6)
    assert called


class Noisy(SumFusion):
    """A fusion that drops out before it adds, and says nothing of its parts but the split."""

    parts = Fusion.parts

    def modality_logits(self, features):
        return {n: nn.functional.dropout(z, 0.5, self.training) for n, z in super().modality_logits(features).items()}


def test_parts_are_taken_in_evaluation_mode():
    fusion = Noisy({"a": 3, "b": 2}, 4)
    features = {"a": torch.randn(5, 3), "b": torch.randn(5, 2)}
    network = MultimodalModel({"a": nn.Identity(), "b": nn.Identity()}, fusion)
    found = shapley.coalition_logits(network, features)
    assert fusion.training
    assert torch.allclose(found[-1], fusion.eval()(features), atol=1e-6)
    assert torch.allclose(found[0], fusion({"a": features["a"], "b": torch.zeros(5, 2)}), atol=1e-6)
