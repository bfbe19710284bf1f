"""A model of another make is one of several modalities: it says the same, has coalitions, and M-SAM trains it."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import msam
from msam import shapley

MODALITIES = {"image": "pixels", "text": ["ids", "mask"]}


class Net(nn.Module):
    """Two encoders, the text's masked, and a layer on both; `form` is what it returns."""

    def __init__(self, form=lambda z: z):
        super().__init__()
        torch.manual_seed(0)
        self.vision = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
        self.words = nn.Embedding(7, 5)
        self.classifier = nn.Linear(10, 3)
        self.form = form

    def forward(self, pixels, ids, mask, bias=None):
        text = (self.words(ids) * mask.unsqueeze(-1)).sum(1)
        logits = self.classifier(torch.cat([self.vision(pixels), text], 1))
        return self.form(logits if bias is None else logits + bias)


class Positional(Net):
    def forward(self, a, b, c):
        return super().forward(a, b, c)


class OneMapping(Net):
    def forward(self, batch):
        return super().forward(batch["pixels"], batch["ids"], batch["mask"], batch.get("bias"))


def batch(size=6):
    generator = torch.Generator().manual_seed(1)
    return {
        "pixels": torch.randn(size, 4, generator=generator),
        "ids": torch.randint(7, (size, 3), generator=generator),
        "mask": torch.ones(size, 3, dtype=torch.long),
    }


@pytest.mark.parametrize("kind", [Net, Positional, OneMapping])
def test_it_says_what_the_model_says_however_that_is_called(kind):
    x = batch()
    assert torch.equal(msam.adapt(kind(), MODALITIES)(x).logits, Net()(**x))


@pytest.mark.parametrize(
    "form",
    [lambda z: (z, "more"), lambda z: {"loss": None, "logits": z}, lambda z: SimpleNamespace(logits=z, loss=None)],
)
def test_logits_are_found_in_tuples_mappings_and_output_objects(form):
    x = batch()
    assert torch.equal(msam.adapt(Net(form), MODALITIES)(x).logits, Net()(**x))


def test_logits_of_another_name_are_told():
    x = batch()
    model = msam.adapt(Net(lambda z: {"scores": z}), MODALITIES, logits="scores")
    assert torch.equal(model(x).logits, Net()(**x))


def test_what_belongs_to_no_modality_is_passed_on_and_never_absent():
    x = {**batch(), "bias": torch.tensor([1.0, 2.0, 3.0])}
    model = msam.adapt(Net(), MODALITIES)
    assert torch.equal(model(x).logits, Net()(**x))
    assert torch.equal(model.with_only(x, [])["bias"], x["bias"])


def test_an_absent_modality_is_zeros_or_what_was_said_of_it():
    x = batch()
    seen = msam.adapt(
        Net(), MODALITIES, absent={"mask": torch.ones_like, "ids": 6, "pixels": torch.arange(4.0)}
    ).with_only(x, ["text"])
    assert torch.equal(seen["pixels"], torch.arange(4.0).expand(6, 4))
    assert torch.equal(seen["ids"], x["ids"])
    seen = msam.adapt(Net(), MODALITIES, absent={"mask": torch.ones_like, "ids": 6}).with_only(x, ["image"])
    assert seen["ids"].eq(6).all()
    assert seen["mask"].eq(1).all()
    assert seen["ids"].dtype == torch.long


def test_coalitions_are_calls_with_the_others_absent():
    x, model = batch(), msam.adapt(Net(), MODALITIES)
    found = shapley.coalition_logits(model, x, absent="input")
    zeros = {name: torch.zeros_like(value) for name, value in x.items()}
    assert torch.equal(found[0], Net()(**{**zeros, "pixels": x["pixels"]}))
    assert torch.equal(found[1], Net()(**{**x, "pixels": zeros["pixels"]}))
    assert torch.equal(found[2], Net()(**x))


def test_present_is_absence_sample_by_sample():
    x, model = batch(), msam.adapt(Net(), MODALITIES)
    present = torch.tensor([[True, True], [False, True], [True, False]] * 2)
    whole, without_image, without_text = (
        model(seen).logits for seen in (x, model.with_only(x, ["text"]), model.with_only(x, ["image"]))
    )
    expected = torch.stack([whole[0], without_image[1], without_text[2], whole[3], without_image[4], without_text[5]])
    assert torch.allclose(model(x, present).logits, expected, atol=1e-6)


def test_features_and_roles_are_those_of_the_encoders():
    x, net = batch(), Net()
    model = msam.adapt(net, MODALITIES, encoders={"text": "words", "image": "vision"})
    output = model(x)
    assert torch.equal(output.features["image"], net.vision(x["pixels"]))
    assert torch.equal(output.features["text"], net.words(x["ids"]).mean(1))
    assert list(output.features) == ["image", "text"]
    roles = {(g["role"], g["modality"]): g["params"] for g in model.parameter_groups()}
    assert roles["encoder", "image"] == list(net.vision.parameters())
    assert sum(len(params) for params in roles.values()) == len(list(net.parameters()))
    assert not net.vision._forward_hooks, "the model is left as it was"


def test_msam_trains_it_as_the_algorithm_says():
    x, y, model = batch(), torch.tensor([0, 1, 2] * 2), msam.adapt(Net(), MODALITIES)
    criterion = nn.functional.cross_entropy
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    rule = msam.MSAM(optimizer, rho=0.1, model=model)
    shares = shapley.contributions(shapley.coalition_logits(model, x, absent="input"), y)
    twin = msam.adapt(Net(), MODALITIES)
    twin.load_state_dict(model.state_dict())

    criterion(model(x).logits, y).backward()
    with rule.perturbed(shares):
        criterion(model(x).logits, y).backward()

    weights = list(twin.parameters())
    first = torch.autograd.grad(criterion(twin(x).logits, y), weights)
    length = torch.cat([g.flatten() for g in first]).norm()
    with torch.no_grad():
        torch._foreach_add_(weights, [g * 0.1 / length for g in first])
    second = torch.autograd.grad(criterion(twin(x).logits, y), weights)
    s = float(shares.max())
    for p, a, b in zip(model.parameters(), first, second, strict=True):
        assert torch.allclose(p.grad, s * b + (1 - s) * a, atol=1e-6)


def test_the_climb_may_stay_within_an_encoder():
    x, y, net = batch(), torch.tensor([0, 1, 2] * 2), Net()
    model = msam.adapt(net, MODALITIES, encoders={"text": "words", "image": "vision"})
    rule = msam.MSAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.1, model=model, scope="dominant")
    before = {name: p.clone() for name, p in net.named_parameters()}
    nn.functional.cross_entropy(model(x).logits, y).backward()
    with rule.perturbed(torch.tensor([0.9, 0.1])):
        moved = {name.split(".")[0] for name, p in net.named_parameters() if not torch.equal(p, before[name])}
        nn.functional.cross_entropy(model(x).logits, y).backward()
    assert moved == {"vision"}


def test_a_climb_within_an_encoder_wants_the_encoders_named():
    model = msam.adapt(Net(), MODALITIES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"must know whose each parameter is.*msam.adapt\(..., encoders="):
        msam.MSAM(optimizer, rho=0.1, model=model, scope="dominant")


def test_a_model_of_hugging_face_is_asked_and_trained():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import ViltConfig, ViltForQuestionAnswering

        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = ViltConfig(**sizes, image_size=16, patch_size=8, vocab_size=50, num_labels=3)
        torch.manual_seed(0)
        net = ViltForQuestionAnswering(config)
    model = msam.adapt(
        net,
        modalities={"image": ["pixel_values"], "text": ["input_ids", "attention_mask"]},
        absent={"attention_mask": torch.ones_like},
        encoders={"image": "vilt.embeddings.patch_embeddings", "text": "vilt.embeddings.text_embeddings"},
    )
    y = torch.tensor([0, 1, 2] * 4)
    x = {
        "pixel_values": torch.randn(12, 3, 16, 16),
        "input_ids": y.unsqueeze(1).expand(-1, 5) + 10,
        "attention_mask": torch.ones(12, 5, dtype=torch.long),
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rule = msam.MSAM(optimizer, rho=0.05, model=model)
    losses = []
    for _ in range(15):
        shares = shapley.contributions(shapley.coalition_logits(model, x, absent="input"), y)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x).logits, y)
        loss.backward()
        with rule.perturbed(shares):
            nn.functional.cross_entropy(model(x).logits, y).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert shares.argmax() == 1, "the words alone tell the class"
    assert {name: f.shape for name, f in model(x).features.items()} == {"image": (12, 16), "text": (12, 16)}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"modalities": {}}, "at least one modality"),
        ({"modalities": {"image": []}}, "'image' must have at least one input"),
        (
            {"modalities": {"image": "pixels", "text": ["pixels"]}},
            "belongs to one modality, received 'image' and 'text'",
        ),
        ({"absent": {"pixel": 0}}, "Did you mean 'pixels'"),
        ({"encoders": {"imag": "vision"}}, "Did you mean 'image'"),
        ({"encoders": {"image": "visio"}}, "no submodule 'visio'.*Did you mean 'vision'"),
        ({"encoders": {"image": "vision", "text": "vision.0"}}, "parameters in common"),
        ({"modalities": {"image": "a", "text": "b"}}, "Cannot tell how to call Net"),
        ({"call": "keyword"}, "Did you mean 'keywords'"),
    ],
)
def test_what_cannot_be_is_said_at_once(options, said):
    with pytest.raises(ValueError, match=said):
        msam.adapt(Net(), **{"modalities": MODALITIES, **options})


def test_errors_of_a_batch_name_what_is_wrong():
    x = batch()
    with pytest.raises(ValueError, match=r"'mask' is missing from the batch; found \['ids', 'pixels'\]"):
        msam.adapt(Net(), MODALITIES)({"pixels": x["pixels"], "ids": x["ids"]})
    with pytest.raises(ValueError, match=r"found dict with \['scores'\]. Say which field"):
        msam.adapt(Net(lambda z: {"scores": z}), MODALITIES)(x)
    with pytest.raises(ValueError, match=r"'pixels' must fit an input of shape \(6, 4\), received \(3,\)"):
        msam.adapt(Net(), MODALITIES, absent={"pixels": torch.zeros(3)}).with_only(x, ["text"])
    with pytest.raises(ValueError, match=r"`present` must be \(6, 2\)"):
        msam.adapt(Net(), MODALITIES)(x, torch.ones(6, 3, dtype=torch.bool))
    flat = nn.Module()
    flat.head = nn.Flatten(0)
    flat.forward = lambda pixels: flat.head(pixels).view(6, 4)
    with pytest.raises(ValueError, match=r"encoder of 'image' must return a feature \(N, d\).*found \(24,\)"):
        msam.adapt(flat, {"image": "pixels"}, encoders={"image": "head"})({"pixels": x["pixels"]})


def test_an_encoder_that_serves_two_modalities_gives_no_feature_of_either():
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.own, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(8, 2)

        def forward(self, left, right):
            return self.head(torch.cat([self.own(self.both(left)), self.both(right)], 1))

    adapted = msam.adapt(Siamese(), {"a": "left", "b": "right"}, encoders={"a": "own", "b": "both"})
    assert list(adapted({"left": torch.randn(5, 3), "right": torch.randn(5, 3)}).features) == ["a"]
