"""Labels: which of twelve keys of a piano are down, from a camera above and a microphone behind.

    python examples/modalities/piano.py

Any number of keys is down at a time, so that each key is a question of its own. The data are made up so that the music
stand hides the four highest keys from the camera, and the microphone hears nothing of the four lowest; only together they
know all twelve.
"""

import math

import torch
from torch import nn

import msam
from _loop import say, scores, train
from msam.data import TensorSplit

KEYS, HIDDEN, UNHEARD = 12, range(8, 12), range(4)
DOWN = 0.25
"""How probable it is that a key is down."""

HEIGHT, KEY_PIXELS = 6, 3
FREQUENCIES = 8.0 * 2 ** (torch.arange(KEYS) / 6)
"""Of the keys, in hertz: two octaves, in slow motion."""

SECONDS, RATE = 1.0, 128
EPOCHS, RHO, WIDTH = 12, 0.05, 64


def played(samples: int, seed: int) -> TensorSplit:
    """Return moments of playing: "camera" `(samples, 1, 6, 36)`, "microphone" `(samples, 128)`, and which keys are down,
    `(samples, 12)` bool."""
    made = torch.Generator().manual_seed(seed)
    down = torch.rand(samples, KEYS, generator=made) < DOWN
    seen = down.float()
    seen[:, HIDDEN] = 0.5
    picture = seen.repeat_interleave(KEY_PIXELS, 1)[:, None, :].repeat(1, HEIGHT, 1)
    time = torch.arange(int(SECONDS * RATE)) / RATE
    phase = 2 * math.pi * torch.rand(samples, KEYS, 1, generator=made)
    loudness = down * (0.7 + 0.6 * torch.rand(samples, KEYS, generator=made))
    loudness[:, UNHEARD] = 0
    sound = (loudness[:, :, None] * torch.sin(2 * math.pi * FREQUENCIES[:, None] * time + phase)).sum(1)
    inputs = {
        "camera": (picture + 0.8 * torch.randn(picture.shape, generator=made))[:, None],
        "microphone": torch.fft.rfft(sound + 0.5 * torch.randn(sound.shape, generator=made)).abs() / 16,
    }
    return TensorSplit(inputs, down)


def make() -> msam.MultimodalModel:
    """Return a model with a small encoder for each modality and one output for each key, the same one every time."""
    torch.manual_seed(0)
    sizes = {"camera": HEIGHT * KEYS * KEY_PIXELS, "microphone": int(SECONDS * RATE) // 2 + 1}
    encoders = {
        name: nn.Sequential(nn.Flatten(), nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, WIDTH), nn.ReLU())
        for name, size in sizes.items()
    }
    return msam.MultimodalModel(encoders, msam.ConcatFusion(dict.fromkeys(encoders, WIDTH), KEYS))


def of_keys(model: msam.MultimodalModel, split: TensorSplit, keys: range) -> float:
    """Return how often it is told right whether one of some keys is down."""
    batch = split[range(len(split))]
    with torch.no_grad():
        right = (model(batch.inputs).logits > 0) == batch.target
    return float(right[:, keys].double().mean())


def main() -> tuple[dict[str, float], dict[str, float]]:
    """Train with M-SAM; print and return the label accuracy of every set of modalities, and contributions."""
    model, test = make(), played(1000, seed=2)
    train(model, torch.optim.AdamW(model.parameters(), lr=3e-3), played(2000, seed=1), epochs=EPOCHS, rho=RHO)
    found, shares = scores(model, test)
    say("label accuracies", found)
    say("contributions", shares)
    say("of keys", {"unheard": of_keys(model, test, UNHEARD), "hidden": of_keys(model, test, HIDDEN)})
    return found, shares


if __name__ == "__main__":
    main()
