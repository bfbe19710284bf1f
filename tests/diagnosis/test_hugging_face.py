"""A model that nobody here wrote, made from its configuration: adapted, trained with M-SAM, diagnosed."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import msam
from msam import shapley


class Samples(torch.utils.data.Dataset):
    """The words tell the class, the picture but a little of it; as a collator wants them."""

    def __init__(self, size: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(3, (size,), generator=generator)
        self.pictures = torch.randn(size, 3, 16, 16, generator=generator) + 0.05 * self.labels.view(-1, 1, 1, 1)
        self.words = 10 * self.labels.unsqueeze(1) + torch.randint(10, (size, 5), generator=generator)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, k):
        mask = torch.ones(5, dtype=torch.long)
        return {
            "pixel_values": self.pictures[k],
            "input_ids": self.words[k],
            "attention_mask": mask,
            "labels": self.labels[k],
        }


@pytest.fixture(scope="module")
def model():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import ViltConfig, ViltForQuestionAnswering

        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        torch.manual_seed(0)
        net = ViltForQuestionAnswering(ViltConfig(**sizes, image_size=16, patch_size=8, vocab_size=50, num_labels=3))
    adapted = msam.adapt(
        net,
        modalities={"image": ["pixel_values"], "text": ["input_ids", "attention_mask"]},
        absent={"attention_mask": torch.ones_like},
        encoders={"image": "vilt.embeddings.patch_embeddings", "text": "vilt.embeddings.text_embeddings"},
    )
    optimizer = torch.optim.AdamW(adapted.parameters(), lr=5e-3)
    rule = msam.MSAM(optimizer, rho=0.05, model=adapted)
    for _ in range(3):
        for x in DataLoader(Samples(192, 1), batch_size=32):
            y = x.pop("labels")
            shares = shapley.contributions(shapley.coalition_logits(adapted, x, absent="input"), y)
            optimizer.zero_grad()
            nn.functional.cross_entropy(adapted(x).logits, y).backward()
            with rule.perturbed(shares):
                nn.functional.cross_entropy(adapted(x).logits, y).backward()
            optimizer.step()
    return adapted


@pytest.fixture(scope="module")
def found(model):
    held, train = DataLoader(Samples(120, 2), batch_size=40), DataLoader(Samples(96, 1), batch_size=32)
    return msam.diagnose(model, held, train=train, unimodal=1, resamples=200, progress=False)


def test_its_words_carry_it(found):
    image, text = found.modalities["image"], found.modalities["text"]
    assert found.accuracy.value > 0.8
    assert text.likelihood_share.low > image.likelihood_share.high
    assert text.missing_accuracy.low > 0.3
    assert text.zeroed.value == pytest.approx(found.accuracy.value - image.missing_accuracy.value)


def test_encoders_that_were_named_are_probed_and_measured(found):
    for one in found.modalities.values():
        assert one.probe is not None
        assert one.unimodal is not None
        assert one.sharpness is not None
        assert one.eigenvalue is not None
    assert found.modalities["text"].probe.value > 0.9
    assert [one.noise for one in found.modalities.values()] == ["gaussian", "swapped"]


def test_its_coalitions_are_calls_of_it(model, found):
    batch = next(iter(DataLoader(Samples(120, 2), batch_size=120)))
    y = batch.pop("labels")
    with torch.no_grad():
        alone = model(model.with_only(batch, ["image"])).logits
    assert found.modalities["image"].zeroed.value == pytest.approx((alone.argmax(1) == y).double().mean().item())


def test_without_encoders_that_is_said_and_the_rest_is_there(model):
    bare = msam.adapt(model.model, {"image": "pixel_values", "text": ["input_ids"]})
    found = msam.diagnose(bare, DataLoader(Samples(40, 2), batch_size=40), resamples=100, progress=False)
    assert found.notes == (
        "No probe and no sharpness of image, text: name the submodules that encode them, msam.adapt(..., encoders={...}).",
    )
    assert found.modalities["text"].probe is None
    assert found.modalities["text"].likelihood.value > found.modalities["image"].likelihood.value
