"""The model that joins encoders and a fusion: roles of parameters, heads, missing modalities."""

import pytest
import torch
from torch import nn

from msam import ConcatFusion, MaxoutFusion, MultimodalModel, SumFusion, models

SIZES = {"audio": 5, "image": 3, "text": 4, "touch": 2}
FUSIONS = (SumFusion, ConcatFusion, MaxoutFusion)
each_fusion = pytest.mark.parametrize("kind", FUSIONS)
each_count = pytest.mark.parametrize("count", [1, 2, 3, 4])


def model(kind=SumFusion, count: int = 2) -> MultimodalModel:
    names = list(SIZES)[:count]
    more = {"hidden": (8,)} if kind is MaxoutFusion else {}
    encoders = {n: nn.Sequential(nn.Linear(SIZES[n], 6 + i), nn.Tanh()) for i, n in enumerate(names)}
    return MultimodalModel(encoders, kind({n: 6 + i for i, n in enumerate(names)}, 7, **more))


def inputs(count: int = 2, batch: int = 4) -> dict[str, torch.Tensor]:
    return {n: torch.randn(batch, SIZES[n]) for n in list(SIZES)[:count]}


@each_fusion
@each_count
def test_forward_is_encoders_then_fusion(kind, count):
    net, x = model(kind, count).eval(), inputs(count)
    output = net(x)
    assert net.modalities == tuple(SIZES)[:count] == tuple(output.features)
    for name, feature in output.features.items():
        assert torch.equal(feature, net.encoders[name](x[name]))
        assert feature.requires_grad
    assert torch.equal(output.logits, net.fusion(output.features))
    assert torch.equal(output.logits, net.fuse(net.encode(x)))
    assert output.extra_loss is None


@each_fusion
@each_count
@pytest.mark.parametrize("heads", [False, True])
def test_every_parameter_has_exactly_one_role(kind, count, heads):
    net = model(kind, count)
    if heads:
        net.add_heads(7)
    groups = net.parameter_groups()
    grouped = [p for group in groups for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in net.parameters()}
    for group in groups:
        assert group["params"]
        assert group["role"] in ("encoder", "head", "fusion")
        assert (group["modality"] is None) == (group["role"] == "fusion")
    for name in net.modalities:
        of_encoder = [g for g in groups if (g["role"], g["modality"]) == ("encoder", name)]
        assert [id(p) for g in of_encoder for p in g["params"]] == [id(p) for p in net.encoders[name].parameters()]
    roles = {g["role"] for g in groups}
    assert roles == {"encoder"} | ({"head"} if heads or kind is SumFusion else set()) | (
        {"fusion"} if kind is not SumFusion else set()
    )


@each_fusion
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_groups_go_into_any_optimizer_and_its_checkpoint(kind, optimizer):
    net = model(kind)
    made = optimizer(net.parameter_groups(), lr=0.1)
    net(inputs()).logits.sum().backward()
    made.step()
    assert [g["role"] for g in made.param_groups][:2] == ["encoder", "encoder"]
    again = optimizer(model(kind).parameter_groups(), lr=0.1)
    again.load_state_dict(made.state_dict())


def test_heads_are_linear_on_the_features_and_take_the_models_type():
    net = model(MaxoutFusion).double()
    net.add_heads(9)
    h = net.encode({n: x.double() for n, x in inputs().items()})
    for name, logits in net.head_logits(h).items():
        head = net.heads[name]
        torch.testing.assert_close(logits, h[name] @ head.weight.T + head.bias, rtol=0, atol=1e-12)
        assert logits.shape == (4, 9)


def test_heads_may_have_a_hidden_layer():
    net = model(MaxoutFusion).double()
    net.add_heads(9, hidden=5)
    h = net.encode({n: x.double() for n, x in inputs().items()})
    for name, logits in net.head_logits(h).items():
        first, _, last = net.heads[name]
        assert last.weight.shape == (9, 5)
        hidden = (h[name] @ first.weight.T + first.bias).clamp_min(0)
        torch.testing.assert_close(logits, hidden @ last.weight.T + last.bias, rtol=0, atol=1e-12)


@each_fusion
def test_without_heads_of_its_own_a_model_answers_with_those_of_its_fusion(kind):
    net = model(kind)
    h = net.encode(inputs())
    assert net.has_heads == (kind is not MaxoutFusion)
    if net.has_heads:
        answers, expected = net.head_logits(h), net.fusion.modality_logits(h)
        assert all(torch.equal(answers[n], expected[n]) for n in net.modalities)
    else:
        with pytest.raises(ValueError, match="do not split"):
            net.head_logits(h)
    net.add_heads(7)
    assert net.has_heads
    assert set(net.head_logits(h)) == set(net.modalities)


@each_fusion
def test_one_modality_alone(kind):
    net = model(kind, 3).double()
    alone = net.only("image")
    assert alone.modalities == ("image",)
    assert alone.encoders["image"] is net.encoders["image"]
    assert type(alone.fusion) is kind
    assert alone.fusion.dims == {"image": 7}
    assert alone({"image": inputs(2)["image"].double()}).logits.dtype == torch.float64
    with pytest.raises(ValueError, match=r"Unknown modality 'imag'\. Did you mean 'image'\?"):
        net.only("imag")


def test_encode_only_what_is_wanted():
    net, x = model(count=3), inputs(3)
    called = []
    for name, encoder in net.encoders.items():
        encoder.register_forward_hook(lambda *_, name=name: called.append(name))
    assert set(net.encode({"text": x["text"]}, only=["text"])) == {"text"}
    assert net.encode(x, only=[]) == {}
    assert called == ["text"]
    with pytest.raises(ValueError, match="Unknown modality 'smell'"):
        net.encode(x, only=["smell"])


def test_a_missing_modality_is_named():
    net, x = model(count=3), inputs(3)
    without = {n: v for n, v in x.items() if n != "image"}
    for call in (net, net.encode, lambda given: net.encode(given, only=["image"])):
        with pytest.raises(ValueError, match=r"Modality 'image' is missing from the batch; found .*'text'.*present"):
            call(without)
    with pytest.raises(ValueError, match="Modality 'text' is missing from the features"):
        net.fuse(net.encode(x, only=["audio", "image"]))


def test_inputs_the_model_does_not_know_are_let_be():
    net, x = model(), inputs(4)
    assert torch.equal(net(x).logits, net({n: x[n] for n in net.modalities}).logits)


def test_batch_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"same batch size, received \{'audio': 4, 'image': 3\}"):
        model()(inputs() | {"image": torch.randn(3, 3)})


@each_fusion
def test_where_a_modality_is_not_present_its_feature_is_zero_and_no_gradient_flows(kind):
    net, x = model(kind).eval(), inputs()
    present = torch.tensor([[True, True], [False, True], [True, False], [False, False]])
    output, full = net(x, present), net(x)
    for m, name in enumerate(net.modalities):
        there = present[:, m]
        assert torch.equal(output.features[name][there], full.features[name][there])
        assert not output.features[name][~there].any()
    assert torch.equal(output.logits[0], full.logits[0])
    net.zero_grad()
    net(x, torch.tensor([[False, True]] * 4)).logits.sum().backward()
    assert not any(p.grad.any() for p in net.encoders["audio"].parameters())
    assert any(p.grad.any() for p in net.encoders["image"].parameters())


@pytest.mark.parametrize("present", [torch.ones(4, 3).bool(), torch.ones(3, 2).bool(), torch.ones(4, 2)])
def test_a_mask_of_another_shape_or_type_is_refused(present):
    with pytest.raises(ValueError, match=r"`present` must be \(4, 2\) of bool"):
        model()(inputs(), present)


def test_encoders_and_fusion_must_agree_on_modalities_and_their_order():
    encoders = {"image": nn.Identity(), "audio": nn.Identity()}
    with pytest.raises(ValueError, match="same modalities in the same order"):
        MultimodalModel(encoders, SumFusion({"audio": 2, "image": 2}, 3))


@pytest.mark.parametrize("fusion", sorted(set(models.FUSIONS) - {"psp"}))
def test_models_are_built_from_names_and_learn(fusion):
    torch.manual_seed(0)
    net = models.build(
        {"audio": "patch_cnn", "image": "digit_cnn", "x": "mlp"},
        {"audio": (1, 32, 32), "image": (1, 8, 8), "x": (9,)},
        10,
        fusion,
        **({"hidden": (8,)} if fusion == "maxout" else {}),
    )
    x = {"audio": torch.randn(2, 1, 32, 32), "image": torch.randn(2, 1, 8, 8), "x": torch.randn(2, 9)}
    output = net(x)
    assert {n: tuple(h.shape) for n, h in output.features.items()} == dict.fromkeys(x, (2, 64))
    output.logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown fusion 'lat'\. Did you mean 'late'\?"):
        models.build({"a": "mlp"}, {"a": (3,)}, 2, "lat")
    with pytest.raises(ValueError, match=r"Unknown encoder 'mpl'\. Did you mean 'mlp'\?"):
        models.build({"a": "mpl"}, {"a": (3,)}, 2, "late")
