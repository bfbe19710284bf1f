"""Fusions against formulas written out by hand, for one to four modalities."""

import pytest
import torch
from torch import nn

from msam import ConcatFusion, MaxoutFusion, MultimodalModel, SumFusion
from msam.models import build
from msam.models.fusion import Maxout, SharedFusion

DIMS = {"audio": 5, "image": 3, "text": 4, "touch": 2}
COUNTS = (1, 2, 3, 4)


def dims(count: int) -> dict[str, int]:
    return dict(list(DIMS.items())[:count])


def features(count: int, batch: int = 6, dtype=torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return {n: torch.randn(batch, d, generator=generator, dtype=dtype) for n, d in dims(count).items()}


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", COUNTS)
def test_sum_is_one_linear_head_with_bias_per_modality(count):
    fusion, h = SumFusion(dims(count), 7).double(), features(count)
    parts = {n: h[n] @ fusion.linear[n].weight.T + fusion.linear[n].bias for n in h}
    close(fusion(h), sum(parts.values()))
    for name, logits in fusion.modality_logits(h).items():
        close(logits, parts[name])
    assert sum(p.numel() for p in fusion.parameters()) == sum((d + 1) * 7 for d in dims(count).values())


@pytest.mark.parametrize("count", COUNTS)
def test_concat_is_one_linear_layer_and_splits_with_its_bias_in_equal_parts(count):
    fusion, h = ConcatFusion(dims(count), 7).double(), features(count)
    weight, bias = fusion.linear.weight, fusion.linear.bias
    close(fusion(h), torch.cat(list(h.values()), 1) @ weight.T + bias)
    start, split = 0, fusion.modality_logits(h)
    for name, size in dims(count).items():
        close(split[name], h[name] @ weight[:, start : start + size].T + bias / count)
        start += size
    close(sum(split.values()), fusion(h))


def test_the_order_of_the_features_is_that_of_dims_not_that_of_the_mapping():
    h = features(3)
    for kind in (SumFusion, ConcatFusion, MaxoutFusion):
        fusion = kind(dims(3), 7).double().eval()
        close(fusion(dict(reversed(h.items()))), fusion(h))


def test_consecutive_pairs_of_units_compete_in_maxout():
    layer, x = Maxout(5, 3).double(), torch.randn(4, 5, dtype=torch.float64)
    units = x @ layer.linear.weight.T + layer.linear.bias
    by_hand = torch.stack([torch.maximum(units[:, 2 * j], units[:, 2 * j + 1]) for j in range(3)], 1)
    close(layer(x), by_hand)


def test_the_default_trunk_is_that_of_agms_code():
    trunk = MaxoutFusion({"audio": 512, "image": 512}, 10).trunk
    kinds = [type(layer) for layer in trunk]
    block = [Maxout, nn.BatchNorm1d, nn.Dropout]
    assert kinds == [nn.BatchNorm1d, *block, *block, nn.Linear]
    assert (trunk[0].num_features, trunk[0].eps) == (1024, 1e-4)
    assert (trunk[1].linear.in_features, trunk[1].linear.out_features, trunk[1].pieces) == (1024, 2 * 2048, 2)
    assert (trunk[4].linear.in_features, trunk[4].linear.out_features, trunk[4].pieces) == (2048, 2 * 1024, 2)
    assert (trunk[2].num_features, trunk[5].num_features) == (2048, 1024)
    assert trunk[3].p == trunk[6].p == 0.3
    assert (trunk[7].in_features, trunk[7].out_features) == (1024, 10)


@pytest.mark.parametrize("count", COUNTS)
def test_maxout_by_hand(count):
    fusion, h = MaxoutFusion(dims(count), 7, hidden=(4,), dropout=0.5).double().eval(), features(count)
    norm, maxout, after, _, last = fusion.trunk
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = torch.cat(list(h.values()), 1)
    x = (x - norm.running_mean) / (norm.running_var + 1e-4).sqrt() * norm.weight + norm.bias
    x = (x @ maxout.linear.weight.T + maxout.linear.bias).view(-1, 4, 2).max(-1).values
    x = x / (1 + after.eps) ** 0.5
    close(fusion(h), x @ last.weight.T + last.bias)


def test_without_norm_and_dropout_the_trunk_is_maxout_and_linear_alone():
    fusion = MaxoutFusion(dims(2), 7, hidden=(6, 4), dropout=0.0, batch_norm=False)
    assert [type(layer) for layer in fusion.trunk] == [Maxout, Maxout, nn.Linear]
    assert not list(fusion.buffers())


def test_maxout_logits_do_not_split():
    fusion = MaxoutFusion(dims(2), 7)
    assert not fusion.splits
    with pytest.raises(ValueError, match=r"do not split.*coalition_logits.*add_heads"):
        fusion.modality_logits(features(2))


@pytest.mark.parametrize("kind", [SumFusion, ConcatFusion, MaxoutFusion])
def test_a_batch_of_one_sample(kind):
    fusion, h = kind(dims(2), 7), features(2, batch=1, dtype=torch.float32)
    assert fusion.eval()(h).shape == (1, 7)
    fusion.train()
    if kind is MaxoutFusion:
        with pytest.raises(ValueError, match="batch of one sample"):
            fusion(h)
        assert MaxoutFusion(dims(2), 7, batch_norm=False)(h).shape == (1, 7)
    else:
        assert fusion(h).shape == (1, 7)


@pytest.mark.parametrize("kind", [SumFusion, ConcatFusion, MaxoutFusion])
def test_over_some_modalities_keeps_kind_settings_and_order(kind):
    more = {"hidden": (8,), "dropout": 0.1, "batch_norm": False} if kind is MaxoutFusion else {}
    over = kind(dims(3), 7, **more).over({"text", "audio"})
    assert type(over) is kind
    assert over.dims == {"audio": 5, "text": 4}
    assert over.num_classes == 7
    assert getattr(over, "settings", {}) == more


@pytest.mark.parametrize("kind", [SumFusion, ConcatFusion, MaxoutFusion])
def test_what_cannot_be_is_refused(kind):
    with pytest.raises(ValueError, match="at least one modality"):
        kind({}, 7)
    with pytest.raises(ValueError, match="`audio` must be >= 1, received 0"):
        kind({"audio": 0}, 7)
    with pytest.raises(ValueError, match="`num_classes` must be >= 1, received 0"):
        kind({"audio": 2}, 0)
    for name in ("", "left.ear", "keys", "type", "float"):
        with pytest.raises(ValueError, match=f"name of a modality .* received {name!r}"):
            kind({name: 2}, 7)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"hidden": (0,)}, "`hidden` must be >= 1, received 0"),
        ({"dropout": 1.0}, "`dropout` must be >= 0 and < 1, received 1.0"),
        ({"dropout": -0.1}, "`dropout` must be >= 0 and < 1, received -0.1"),
    ],
)
def test_knobs_of_the_trunk_are_checked(more, message):
    with pytest.raises(ValueError, match=message):
        MaxoutFusion(dims(2), 7, **more)


@pytest.mark.parametrize("count", COUNTS)
def test_shared_is_one_head_with_a_hidden_layer_for_every_modality(count):
    names = list(DIMS)[:count]
    fusion = SharedFusion(dict.fromkeys(names, 5), 7, hidden=4).double()
    h = {n: torch.randn(6, 5, dtype=torch.float64) for n in names}
    first, relu, last = fusion.head
    assert isinstance(relu, nn.ReLU)
    parts = {n: (h[n] @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias for n in names}
    close(fusion(h), sum(parts.values()))
    close(fusion(dict(reversed(h.items()))), fusion(h))
    assert list(fusion.modality_logits(dict(reversed(h.items())))) == names
    for name, logits in fusion.modality_logits(h).items():
        close(logits, parts[name])
    assert sum(p.numel() for p in fusion.parameters()) == (5 + 1) * 4 + (4 + 1) * 7
    for name in names:
        weight, columns = fusion.weight_of(name)
        assert weight is last.weight
        assert columns == slice(None)


def test_the_shared_head_belongs_to_no_modality():
    net = MultimodalModel({n: nn.Linear(2, 5) for n in ("audio", "image")}, SharedFusion({"audio": 5, "image": 5}, 7))
    roles = [(group["role"], group["modality"]) for group in net.parameter_groups()]
    assert roles == [("encoder", "audio"), ("encoder", "image"), ("fusion", None)]
    assert {id(p) for p in net.parameter_groups()[-1]["params"]} == {id(p) for p in net.fusion.parameters()}
    assert net.has_heads


def test_the_shared_head_is_256_wide_unless_told_and_keeps_its_width_over_some_modalities():
    fusion = build(dict.fromkeys(DIMS, "mlp"), dict.fromkeys(DIMS, (3,)), 7, "shared").fusion
    assert (fusion.head[0].in_features, fusion.head[0].out_features, fusion.head[2].out_features) == (64, 256, 7)
    wide = build({"audio": "mlp"}, {"audio": (3,)}, 7, "shared", hidden=9).fusion
    assert wide.head[0].out_features == 9
    over = SharedFusion(dict.fromkeys(DIMS, 5), 7, hidden=4).over({"text", "audio"})
    assert (type(over), over.dims, over.num_classes, over.hidden) == (SharedFusion, {"audio": 5, "text": 5}, 7, 4)


def test_features_of_several_sizes_cannot_share_a_head():
    with pytest.raises(ValueError, match=r"features of one size, received \{'audio': 5, 'image': 3\}.* late or concat"):
        SharedFusion(dims(2), 7)
    with pytest.raises(ValueError, match="`hidden` must be >= 1, received 0"):
        SharedFusion({"audio": 5}, 7, hidden=0)
    with pytest.raises(ValueError, match="at least one modality"):
        SharedFusion({}, 7)
