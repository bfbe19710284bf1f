"""The measures of the protocol against counts made by hand."""

import math

import pytest
import torch
from torch import nn

from msam import MultimodalModel, SumFusion, shapley
from msam.data import TensorSplit
from msam.models import build
from msam.train import evaluate
from msam.train._measures import accuracy, macro_f1
from msam.train.metrics import EVALUATION_BATCH, imbalance
from msam.types import Batch


def exactly(a, b):
    assert math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6), (a, b)


def passing(logits: dict[str, torch.Tensor], target: torch.Tensor):
    """Return a model whose heads give exactly these logits, and the split to measure it on."""
    size = next(iter(logits.values())).shape[1]
    net = MultimodalModel({n: nn.Identity() for n in logits}, SumFusion(dict.fromkeys(logits, size), size))
    for head in net.fusion.linear.values():
        nn.init.eye_(head.weight)
        nn.init.zeros_(head.bias)
    return net, TensorSplit(logits, target)


def learned(fusion: str, size: int, count: int = 2):
    torch.manual_seed(1)
    names = [f"m{i}" for i in range(count)]
    more = {"hidden": (8,)} if fusion in ("early", "maxout") else {}
    net = build(dict.fromkeys(names, "mlp"), dict.fromkeys(names, (5,)), 4, fusion, **more)
    split = TensorSplit({n: torch.randn(size, 5) for n in names}, torch.randint(4, (size,)))
    return net, split


def test_a_table_one_can_check_with_a_pencil():
    # logits of audio, image; targets 0, 1, 2, 0; their sums choose 0, 1, 0, 1
    audio = torch.tensor([[3.0, 0, 0], [0, 0, 1], [2, 0, 0], [0, 3, 0]])
    image = torch.tensor([[1.0, 0, 0], [0, 4, 0], [0, 0, 1], [2, 0, 0]])
    target = torch.tensor([0, 1, 2, 0])
    found = evaluate(*passing({"audio": audio, "image": image}, target))
    exactly(found["accuracy"], 2 / 4)
    # class 0: one hit, chosen twice, there twice; class 1: one hit, chosen twice, there once; class 2: never chosen
    exactly(found["macro_f1"], (2 * 1 / 4 + 2 * 1 / 3 + 0) / 3)
    sums = (audio + image).double()
    by_hand = [math.log(sum(math.exp(v) for v in z)) - float(z[y]) for z, y in zip(sums, target, strict=True)]
    exactly(found["nll"], sum(by_hand) / 4)
    for name, rate in (("audio", 1 / 4), ("image", 4 / 4)):
        for kind in ("head", "zeroed", "shapley"):  # without biases the three are one
            exactly(found["modalities"][name][kind], rate)


@pytest.mark.parametrize(
    ("predicted", "target", "expected"),
    [
        ([0, 1, 2], [0, 1, 2], 1.0),
        ([0, 0, 0], [0, 0, 0], 1.0),  # classes 1 and 2 neither there nor chosen: left out
        ([0, 0, 1], [0, 0, 0], (2 * 2 / 5 + 0) / 2),  # class 1 chosen but not there: counts as 0
        ([1, 1], [0, 2], 0.0),
    ],
)
def test_macro_f1_with_classes_that_are_absent(predicted, target, expected):
    logits = nn.functional.one_hot(torch.tensor(predicted), 3).float()
    exactly(macro_f1(logits, torch.tensor(target)), expected)


@pytest.mark.parametrize("fusion", ["late", "concat", "early", "maxout"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("absent", ["feature", "input"])
def test_the_three_kinds_of_unimodal_accuracy(fusion, count, absent):
    net, split = learned(fusion, 50, count)
    found = evaluate(net, split, absent=absent)
    net.eval()
    x, y = split.inputs, split.target
    with torch.no_grad():
        features = net.encode(x)
        zero = {n: torch.zeros_like(v) for n, v in (features if absent == "feature" else x).items()}

        def value(members):
            if absent == "feature":
                return net.fuse({n: features[n] if n in members else zero[n] for n in x})
            return net({n: x[n] if n in members else zero[n] for n in x}).logits

        alone = {n: value([n]) for n in x}
        phi = shapley.shapley_values(
            torch.stack([value([net.modalities[m] for m in s]) for s in shapley.coalitions(count)])
        )
    for m, name in enumerate(net.modalities):
        kinds = found["modalities"][name]
        exactly(kinds["zeroed"], accuracy(alone[name], y))
        exactly(kinds["shapley"], accuracy(phi[m], y))
        if fusion in ("late", "concat"):
            exactly(kinds["head"], accuracy(net.head_logits(features)[name], y))
        else:
            assert kinds["head"] is None
    exactly(found["accuracy"], accuracy(net(x).logits, y))


def test_heads_of_its_own_give_an_early_fusion_its_head_accuracy():
    net, split = learned("early", 30)
    net.add_heads(4)
    found = evaluate(net, split)
    for name, logits in net.head_logits(net.encode(split.inputs)).items():
        exactly(found["modalities"][name]["head"], accuracy(logits, split.target))


@pytest.mark.parametrize("value", shapley.VALUES)
def test_contributions_dominance_and_imbalance_are_over_the_whole_split(value):
    net, split = learned("early", 700, 3)
    assert len(split) > EVALUATION_BATCH
    found = evaluate(net, split, value=value)
    net.eval()
    logits = shapley.coalition_logits(net, net.encode(split.inputs))
    shares = shapley.contributions(logits, split.target, value)
    winners = shapley.contributions(logits, split.target, value, reduction="none").argmax(0)
    kinds = list(found["modalities"].values())
    for m, kind in enumerate(kinds):
        assert math.isclose(kind["contribution"], float(shares[m]), rel_tol=1e-5)
        exactly(kind["dominance"], int((winners == m).sum()) / 700)
    exactly(sum(kind["contribution"] for kind in kinds), 1)
    exactly(sum(kind["dominance"] for kind in kinds), 1)
    exactly(found["imbalance"], (3 * max(k["contribution"] for k in kinds) - 1) / 2)


def test_imbalance_goes_from_even_to_one_has_all():
    assert imbalance(torch.tensor([0.5, 0.5])) == 0
    assert imbalance(torch.tensor([0.25] * 4)) == 0
    assert imbalance(torch.tensor([0.0, 1.0, 0.0])) == 1
    assert imbalance(torch.tensor([1.0])) == 1


@pytest.mark.parametrize("size", [1, 2, EVALUATION_BATCH, EVALUATION_BATCH + 1, 2 * EVALUATION_BATCH + 7])
def test_no_sample_is_left_out_whatever_the_size(size):
    net, split = learned("late", size)
    seen = []

    class Spy(TensorSplit):
        def __getitem__(self, index):
            seen.extend(index)
            return super().__getitem__(index)

    found = evaluate(net, Spy(split.inputs, split.target))
    assert seen == list(range(size))
    with torch.no_grad():
        logits = net.eval()(split.inputs).logits
    exactly(found["accuracy"], accuracy(logits, split.target))
    assert math.isclose(found["nll"], float(nn.functional.cross_entropy(logits, split.target)), rel_tol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_flags_buffers_gradients_and_randomness_are_left_as_they_were(training):
    net, split = learned("maxout", 40)
    net.train(training)
    net.fusion.trunk[0].eval()
    flags = [module.training for module in net.modules()]
    before, random = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    evaluate(net, split)
    assert [module.training for module in net.modules()] == flags
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in net.parameters())


def test_flags_come_back_after_an_error_too():
    net, split = learned("maxout", 40)
    with pytest.raises(ValueError, match="Modality 'm1' is missing"):
        evaluate(net, TensorSplit({"m0": split.inputs["m0"]}, split.target))
    assert net.training


def test_what_is_not_present_counts_as_absent():
    net, split = learned("late", 20)

    class Blind(TensorSplit):
        def __getitem__(self, index):
            return super().__getitem__(index)._replace(present=torch.tensor([[True, False]] * len(index)))

    found = evaluate(net, Blind(split.inputs, split.target))
    exactly(found["accuracy"], evaluate(net, split)["modalities"]["m0"]["zeroed"])


@pytest.mark.parametrize("target", [torch.zeros(20), torch.zeros(20, 3, dtype=torch.long), torch.rand(20, 3)])
def test_targets_that_do_not_fit_the_logits_are_refused(target):
    net, split = learned("late", 20)
    with pytest.raises(ValueError, match=r"`target` must be .* received \(20.* for logits \(20, 4\)"):
        evaluate(net, TensorSplit(split.inputs, target))


def test_an_empty_split_and_unsound_inputs_are_refused():
    net, split = learned("late", 20)
    with pytest.raises(ValueError, match="no samples"):
        evaluate(net, TensorSplit({n: x[:0] for n, x in split.inputs.items()}, split.target[:0]))
    split.inputs["m1"][3, 2] = torch.nan
    with pytest.raises(ValueError, match="Input 'm1' holds 1 values that are NaN or infinite of a split of 20 samples"):
        evaluate(net, split)


def test_batches_are_prepared_as_asked():
    net, split = learned("late", 20)
    doubled = Batch({n: x.double() for n, x in split.inputs.items()}, split.target)
    found = evaluate(net.double(), split, prepare=lambda batch: doubled)
    exactly(found["accuracy"], accuracy(net.eval()(doubled.inputs).logits, split.target))
