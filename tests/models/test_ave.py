"""AVE's features: segments folded into the batch, encoders of one modality, attention and propagation in the fusion."""

import math

import pytest
import torch
from torch import Tensor, nn

from msam import MultimodalModel, shapley
from msam.models import PspFusion, build, encoder
from msam.models.fusion import pooled
from msam.models.psp import GuidedAttention

SHAPES = {"audio": (10, 128), "video": (10, 7, 7, 512)}
ENCODERS = {"audio": "ave_audio", "video": "ave_video"}


def model(fusion: str = "psp", **options) -> MultimodalModel:
    torch.manual_seed(0)
    return build(ENCODERS, SHAPES, 29, fusion, **options)


def inputs(samples: int = 2) -> dict[str, Tensor]:
    return {name: torch.randn(samples, *shape) for name, shape in SHAPES.items()}


def small(segments: int = 3, locations: int = 4, **options) -> PspFusion:
    torch.manual_seed(0)
    return PspFusion({"audio": 5, "video": 5}, 6, segments, locations, **options).double()


def features(samples: int = 2, segments: int = 3, locations: int = 4) -> dict[str, Tensor]:
    rows = samples * segments
    a, v = torch.randn(rows, 5), torch.randn(rows, 2, locations // 2, 5)
    return {"audio": a.double(), "video": v.double()}


@pytest.mark.parametrize("fusion", ["late", "concat", "shared", "psp"])
def test_a_prediction_for_every_segment(fusion):
    net, x = model(fusion), inputs()
    output = net(x)
    assert output.logits.shape == (20, 29)
    assert {name: tuple(h.shape) for name, h in output.features.items()} == {
        "audio": (20, 256),
        "video": (20, 7, 7, 256),
    }
    output.logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_segments_of_a_sample_follow_one_another():
    x = torch.randn(3, 10, 128)
    net = encoder("ave_audio", (10, 128)).eval()
    together, apart = net(x), torch.cat([net(sample[None]) for sample in x])
    torch.testing.assert_close(together, apart)


def test_the_lstm_of_pictures_runs_over_time_at_every_location_by_itself():
    net, x = encoder("ave_video", (4, 2, 3, 512)).eval(), torch.randn(2, 4, 2, 3, 512)
    first, second, over, _ = net.layers
    by_hand = torch.zeros(8, 2, 3, 256)
    for sample in range(2):
        for row in range(2):
            for column in range(3):
                seen = x[sample : sample + 1, :, row, column] @ first.weight.T @ second.weight.T
                by_hand[sample * 4 : sample * 4 + 4, row, column] = over.lstm(seen)[0][0]
    torch.testing.assert_close(net(x), by_hand, rtol=1e-4, atol=1e-5)


def test_a_map_counts_with_the_mean_of_its_locations_where_nothing_attends():
    net, x = model("late").eval(), inputs()
    h = net.encode(x)
    layer = net.fusion.linear["video"]
    expected = h["video"].flatten(1, 2).mean(1) @ layer.weight.T + layer.bias
    torch.testing.assert_close(net.fusion.modality_logits(h)["video"], expected)
    net.add_heads(29)
    head = net.heads["video"]
    torch.testing.assert_close(net.head_logits(h)["video"], pooled(h["video"]) @ head.weight.T + head.bias)


def propagated_by_hand(fusion: PspFusion, a: Tensor, v: Tensor, threshold: float) -> Tensor:
    """Return the logits of the segments of one sample, from vectors `(T, d)`, with loops."""
    a1, a2 = (layer.weight for layer in fusion.branches["audio"])
    v1, v2 = (layer.weight for layer in fusion.branches["video"])
    count = len(a)
    fits = torch.zeros(count, count, dtype=a.dtype)
    for t in range(count):
        for s in range(count):
            fits[t, s] = max(0.0, float(((v2 @ v[t]).relu() @ (a1 @ a[s]).relu()).detach())) / math.sqrt(a.shape[1])

    def gathered(own: Tensor, others: Tensor, weight: Tensor, row: Tensor) -> Tensor:
        shares = row / row.sum() if row.sum() > 0 else row
        shares = torch.where(shares > threshold, shares, 0.0)
        shares = shares / shares.sum() if shares.sum() > 0 else shares
        return own + sum(c * (weight @ other).relu() for c, other in zip(shares, others, strict=True))

    logits = []
    for t in range(count):
        pair = {"video": gathered(v[t], a, a2, fits[t]), "audio": gathered(a[t], v, v1, fits[:, t])}
        normed = [fusion.norm((fusion.after[name].weight @ h).relu()) for name, h in pair.items()]
        logits.append(fusion.classifier((normed[0] + normed[1]) / 2))
    return torch.stack(logits)


@pytest.mark.parametrize("threshold", [0.0, 0.099, 0.4])
def test_propagation_by_hand(threshold):
    fusion, h = small(threshold=threshold).eval(), features()
    v = fusion.attention(h["video"], h["audio"])
    made = fusion(h)
    for sample in range(2):
        rows = slice(3 * sample, 3 * sample + 3)
        expected = propagated_by_hand(fusion, h["audio"][rows], v[rows], threshold)
        torch.testing.assert_close(made[rows], expected, rtol=0, atol=1e-6)


def test_attention_by_hand():
    torch.manual_seed(0)
    net, rows, guide = GuidedAttention(5, 4).double(), torch.randn(2, 4, 5).double(), torch.randn(2, 5).double()
    made = net(rows, guide)
    for n in range(2):
        g = net.of_guide.weight @ (net.guide.weight @ guide[n] + net.guide.bias).relu()
        scores = torch.zeros(4, dtype=torch.float64)
        for place in range(4):
            m = net.of_map.weight @ (net.map.weight @ rows[n, place] + net.map.bias).relu()
            scores[place] = net.weigh.weight[0] @ (m + g[place]).tanh()
        expected = sum(p * row for p, row in zip(scores.softmax(0), rows[n], strict=True))
        torch.testing.assert_close(made[n], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("away", [["audio"], ["video"], ["audio", "video"]])
def test_an_absent_modality_is_zeros_and_adds_nothing_to_the_other(away):
    fusion, h = small().eval(), features()
    given = {name: torch.zeros_like(v) if name in away else v for name, v in h.items()}
    given = {name: v.requires_grad_() for name, v in given.items()}
    logits = fusion(given)
    assert logits.isfinite().all()
    logits.logsumexp(1).sum().backward()
    assert all(v.grad.isfinite().all() for v in given.values())
    assert all(p.grad.isfinite().all() for p in fusion.parameters() if p.grad is not None)
    if away == ["video"]:
        alone = fusion.norm(fusion.after["audio"](h["audio"]).relu())
        nothing = fusion.norm(torch.zeros_like(h["audio"]))
        torch.testing.assert_close(logits, fusion.classifier((alone + nothing) / 2))


def test_samples_do_not_see_each_other():
    fusion, h = small().eval(), features(3)
    apart = [fusion({name: v[3 * k : 3 * k + 3] for name, v in h.items()}) for k in range(3)]
    torch.testing.assert_close(fusion(h), torch.cat(apart))


def test_coalitions_of_segments():
    net, x = model().eval(), inputs()
    with torch.no_grad():
        h = net.encode(x)
        logits = shapley.coalition_logits(net, h)
        assert logits.shape == (3, 20, 29)
        torch.testing.assert_close(logits[2], net.fuse(h))
        torch.testing.assert_close(logits[0], net.fuse({**h, "video": torch.zeros_like(h["video"])}))
    target = torch.randint(29, (20,))
    assert shapley.contributions(logits, target).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("fusion", ["late", "psp"])
def test_a_sample_that_lacks_a_modality_lacks_it_in_all_its_segments(fusion):
    net, x = model(fusion).eval(), inputs(3)
    present = torch.tensor([[True, False], [True, True], [False, True]])
    output, full = net(x, present), net(x)
    assert not output.features["video"][:10].any()
    assert torch.equal(output.features["video"][10:], full.features["video"][10:])
    assert torch.equal(output.features["audio"][:20], full.features["audio"][:20])
    assert not output.features["audio"][20:].any()
    torch.testing.assert_close(output.logits[10:20], full.logits[10:20])


@pytest.mark.parametrize("size", [1, 2, 6])
def test_a_mask_must_have_a_row_for_every_sample_not_for_every_segment(size):
    with pytest.raises(ValueError, match=r"`present` must be \(3, 2\) of bool"):
        model()(inputs(3), torch.ones(size, 2, dtype=torch.bool))


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_one_modality_alone(modality):
    net = model().only(modality)
    logits = net({modality: inputs()[modality]}).logits
    assert logits.shape == (20, 29)
    logits.logsumexp(1).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert net.fusion.settings == model().fusion.settings


def test_dropout_and_normalisation_are_those_of_the_code():
    fusion = model().fusion
    assert (fusion.dropout.p, fusion.norm.eps, fusion.settings["threshold"]) == (0.1, 1e-6, 0.099)
    assert [layer.out_features for layer in fusion.classifier if isinstance(layer, nn.Linear)] == [64, 29]
    assert not fusion.splits
    with pytest.raises(ValueError, match="do not split"):
        fusion.modality_logits({})


@pytest.mark.parametrize(
    ("dims", "options", "said"),
    [
        ({"a": 4, "b": 4, "c": 4}, {}, "two modalities"),
        ({"a": 4, "b": 5}, {}, "features of one size"),
        ({"a": 4, "b": 4}, {"segments": 0}, "`segments` must be >= 1, received 0"),
        ({"a": 4, "b": 4}, {"threshold": 1.0}, "`threshold` must be >= 0 and < 1, received 1.0"),
        ({"a": 4, "b": 4}, {"dropout": -0.1}, "`dropout` must be >= 0 and < 1, received -0.1"),
    ],
)
def test_what_it_is_not_for_is_refused(dims, options, said):
    with pytest.raises(ValueError, match=said):
        PspFusion(dims, 3, **options)


def test_rows_that_make_no_whole_samples_or_maps_are_refused():
    fusion, h = small(), features()
    with pytest.raises(ValueError, match=r"needs 3 segments of every sample.*received 5 rows.*`fusion\.segments`"):
        fusion({name: v[:5] for name, v in h.items()})
    with pytest.raises(ValueError, match=r"4 locations .*received 1\. Set `fusion\.locations`"):
        fusion({**h, "video": h["audio"]})


@pytest.mark.parametrize(("name", "shape"), [("ave_audio", (128,)), ("ave_video", (10, 49, 512))])
def test_other_shapes_are_refused(name, shape):
    with pytest.raises(ValueError, match=rf"'{name}' is for inputs \(T, .*F\)"):
        encoder(name, shape)
