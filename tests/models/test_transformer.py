"""The transformer of UR-FUNNY: the layers by hand, what the code of the field leaves out, and the two corrections."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from msam.models import encoder
from msam.models.transformer import SequenceTransformer, padding, sines

SMALL = {"width": 8, "heads": 2, "hidden": 12, "depth": 2}


def small(**more) -> SequenceTransformer:
    torch.manual_seed(0)
    net = SequenceTransformer(5, **SMALL, **more).double()
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    return net


def words(*lengths: int, longest: int = 6) -> torch.Tensor:
    x = torch.randn(len(lengths), longest, 5, dtype=torch.float64)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = 0
    return x


def layer_by_hand(w: dict[str, torch.Tensor], x: torch.Tensor, heads: int) -> torch.Tensor:
    """Post-norm: attention, add, normalise; two linear layers with ReLU, add, normalise."""
    q, k, v = (
        part.unflatten(-1, (heads, -1)).transpose(0, 1)
        for part in (x @ w["self_attn.in_proj_weight"].T + w["self_attn.in_proj_bias"]).chunk(3, dim=-1)
    )
    mixed = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v
    mixed = mixed.transpose(0, 1).flatten(1) @ w["self_attn.out_proj.weight"].T + w["self_attn.out_proj.bias"]
    x = F.layer_norm(x + mixed, x.shape[-1:], w["norm1.weight"], w["norm1.bias"])
    inner = (x @ w["linear1.weight"].T + w["linear1.bias"]).relu() @ w["linear2.weight"].T + w["linear2.bias"]
    return F.layer_norm(x + inner, x.shape[-1:], w["norm2.weight"], w["norm2.bias"])


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("positions", [False, True])
def test_by_hand_one_sample_at_a_time(positions, grad):
    net, x = small(positions=positions).eval(), words(6, 4)
    with torch.set_grad_enabled(grad):
        made = net(x)
    for sample, feature in zip(x, made, strict=True):
        h = sample @ net.project.weight[:, :, 0].T + (sines(6, 8).double() if positions else 0)
        for layer in net.encoder.layers:
            h = layer_by_hand(dict(layer.named_parameters()), h, SMALL["heads"])
        torch.testing.assert_close(feature, h[0], rtol=0, atol=1e-10)


def test_without_positions_the_words_after_the_first_may_be_shuffled():
    x = words(6, 6)
    shuffled = x[:, [0, 3, 1, 5, 4, 2]]
    net = small().eval()
    torch.testing.assert_close(net(x), net(shuffled))
    told = small(positions=True).eval()
    assert not torch.allclose(told(x), told(shuffled), atol=1e-3)


def test_only_the_mask_makes_a_feature_independent_of_the_padding_after_it():
    x = words(3, 4)
    longer = torch.cat([x, x.new_zeros(2, 5, 5)], 1)
    masked, plain = small(mask=True, positions=True).eval(), small().eval()
    torch.testing.assert_close(masked(x), masked(longer))
    assert not torch.allclose(plain(x), plain(longer), atol=1e-3)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_a_sequence_of_zeros_has_a_feature_and_gradients(training, grad):
    net = small(mask=True).train(training)
    x = words(0, 4).requires_grad_(grad)
    with torch.set_grad_enabled(grad):
        made = net(x)
    assert made.isfinite().all()
    if grad:
        made.sum().backward()
        assert x.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in net.parameters())


def test_words_with_any_feature_are_no_padding():
    x = torch.zeros(1, 4, 3)
    x[0, 2, 1] = -1e-9
    assert padding(x).tolist() == [[False, True, False, True]]


def test_names_of_the_command_line_are_the_code_of_the_field_and_its_correction():
    plain, masked = (encoder(name, (50, 7)).layers[0] for name in ("transformer", "transformer_masked"))
    assert (plain.positions, plain.mask) == (False, False)
    assert (masked.positions, masked.mask) == (True, True)
    layers = plain.encoder.layers
    assert len(layers) == 8
    for layer in layers:
        assert (layer.self_attn.embed_dim, layer.self_attn.num_heads) == (768, 4)
        assert (layer.linear1.out_features, layer.dropout.p, layer.norm_first) == (2048, 0.1, False)
        assert layer.activation is F.relu
        assert torch.equal(layer.linear1.weight, layers[0].linear1.weight)
    assert (plain.project.kernel_size, plain.project.bias) == ((1,), None)
    assert plain.encoder.norm is None
    count = [sum(p.numel() for p in net.parameters()) for net in (plain, masked)]
    assert count == [8 * 5_513_984 + 7 * 768] * 2


@pytest.mark.parametrize("name", ["transformer", "transformer_masked"])
@pytest.mark.parametrize("shape", [(50,), (1, 50, 7), (0, 7)])
def test_other_shapes_are_refused(name, shape):
    with pytest.raises(ValueError, match=rf"'{name}' is for sequences \(T, F\)"):
        encoder(name, shape)
