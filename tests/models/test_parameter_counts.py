"""Sizes of the paper's models, derived by hand; they stand in docs/models.md."""

from pathlib import Path

import pytest
import torch

from msam.models import build

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

AUDIO, COLOUR = (
    11_170_240,
    11_176_512,
)  # ResNet-18 without classifier; the first convolution has 64 * 49 weights a channel
LAYER = 4 * (768 * 768 + 768) + 2 * 768 * 2048 + 2048 + 768 + 4 * 768  # attention, feed-forward, two LayerNorms
SHAPES = {
    "avmnist": {"audio": (1, 112, 112), "image": (1, 28, 28)},
    "cremad": {"audio": (1, 257, 299), "video": (3, 1, 224, 224)},
    "urfunny": {"audio": (50, 81), "vision": (50, 371), "text": (50, 300)},
    "ave": {"audio": (1, 257, 1004), "video": (3, 4, 224, 224)},
    "ave_features": {"audio": (10, 128), "video": (10, 7, 7, 512)},
}
RESNETS = {"audio": "resnet18", "image": "resnet18", "video": "resnet18_frames"}
ENCODERS = {
    **{name: {m: RESNETS[m] for m in SHAPES[name]} for name in ("avmnist", "cremad", "ave")},
    "urfunny": dict.fromkeys(SHAPES["urfunny"], "transformer"),
    "ave_features": {"audio": "ave_audio", "video": "ave_video"},
}
CLASSES = {"avmnist": 10, "cremad": 6, "urfunny": 2, "ave": 28, "ave_features": 29}
LSTM = 2 * 4 * (128 * 128 + 128 * 128 + 128 + 128)  # two directions, four gates, two weights, two biases
OF_ENCODERS = {
    "avmnist": 2 * AUDIO,
    "cremad": AUDIO + COLOUR,
    "urfunny": 3 * 8 * LAYER + 768 * (81 + 371 + 300),
    "ave": AUDIO + COLOUR,
    "ave_features": (128 + 512) * 256 + 2 * 256 * 128 + 2 * LSTM,
}
WIDTHS = {"avmnist": 1024, "cremad": 1024, "urfunny": 2304, "ave": 1024, "ave_features": 512}


def late(name: str) -> int:
    return (WIDTHS[name] + len(SHAPES[name])) * CLASSES[name]


def concat(name: str) -> int:
    return (WIDTHS[name] + 1) * CLASSES[name]


def maxout(name: str) -> int:
    norms = 2 * (WIDTHS[name] + 2048 + 1024)
    return norms + (WIDTHS[name] + 1) * 2 * 2048 + (2048 + 1) * 2 * 1024 + (1024 + 1) * CLASSES[name]


def psp(name: str) -> int:
    attention = 2 * (256 * 256 + 256) + 2 * 256 * 49 + 49
    return attention + 6 * 256 * 256 + 2 * 256 + 256 * 64 + 64 * CLASSES[name]


FUSIONS = {"late": late, "concat": concat, "maxout": maxout, "psp": psp}
CASES = [(name, fusion) for name in SHAPES for fusion in FUSIONS if fusion != "psp" or name == "ave_features"]


@pytest.mark.parametrize(("name", "fusion"), CASES)
def test_a_model_has_as_many_parameters_as_its_layers_by_hand(name, fusion):
    with torch.device("meta"):
        net = build(ENCODERS[name], SHAPES[name], CLASSES[name], fusion)
    found = sum(p.numel() for p in net.encoders.parameters()), sum(p.numel() for p in net.fusion.parameters())
    assert found == (OF_ENCODERS[name], FUSIONS[fusion](name))


def test_one_layer_and_one_torso_as_they_are_often_quoted():
    assert (LAYER, COLOUR, LSTM) == (5_513_984, 11_176_512, 264_192)


@pytest.mark.parametrize("name", SHAPES)
def test_the_page_says_so(name):
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    columns = [cell.strip() for cell in row.strip("|").split("|")]
    sums = [f"{OF_ENCODERS[name] + FUSIONS[f](name):,}" for f in FUSIONS if (name, f) in CASES]
    assert columns[2:] == [f"{OF_ENCODERS[name]:,}", *sums, *["—"] * (4 - len(sums))]
