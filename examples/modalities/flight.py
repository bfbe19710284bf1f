"""A regression: the height and the speed of a drone from a camera that looks down and a microphone on board.

    python examples/modalities/flight.py

The data are made up so that the camera tells the height alone, by the size of a mark on the ground, and the microphone the
speed alone, by the pitch of the wind. Either can explain half of the variance of the two numbers, and both together all.
"""

import math

import torch
from torch import Tensor, nn

import msam
from _loop import say, scores, train
from msam.data import TensorSplit

NUMBERS = ("height", "speed")
HEIGHT, SPEED = (2.0, 10.0), (4.0, 16.0)
"""Metres, and metres a second: both uniform between these."""

PIXELS, SECONDS, RATE = 16, 0.5, 128
EPOCHS, RHO, WIDTH = 12, 0.05, 32


def flights(samples: int, seed: int) -> TensorSplit:
    """Return moments of flights: "camera" `(samples, 1, 16, 16)`, "microphone" `(samples, 1, 64)`, and both numbers
    standardised, `(samples, 2)`."""
    made = torch.Generator().manual_seed(seed)
    uniform = torch.rand(samples, 2, generator=made)
    height, speed = (low + (high - low) * u for (low, high), u in zip((HEIGHT, SPEED), uniform.T, strict=True))
    place = torch.linspace(-1, 1, PIXELS)
    centre = 0.6 * torch.rand(samples, 2, 1, generator=made) - 0.3
    across, down = ((place - c) ** 2 for c in centre.unbind(1))
    mark = torch.exp(-(across[:, None, :] + down[:, :, None]) / (2 * (1.2 / height[:, None, None]) ** 2))
    time = torch.arange(int(SECONDS * RATE)) / RATE
    phase = 2 * math.pi * torch.rand(samples, 1, generator=made)
    wind = torch.sin(2 * math.pi * speed[:, None] * time + phase)
    inputs = {
        "camera": (mark + 0.1 * torch.randn(mark.shape, generator=made))[:, None],
        "microphone": (wind + 0.3 * torch.randn(wind.shape, generator=made))[:, None],
    }
    return TensorSplit(inputs, (uniform - 0.5) * math.sqrt(12))


def make() -> msam.MultimodalModel:
    """Return a model with a small encoder for each sensor and one output for each number, the same one every time."""
    torch.manual_seed(0)
    encoders = {
        "camera": nn.Sequential(nn.Flatten(), nn.Linear(PIXELS**2, 64), nn.ReLU(), nn.Linear(64, WIDTH), nn.ReLU()),
        "microphone": Spectrum(),
    }
    return msam.MultimodalModel(encoders, msam.ConcatFusion(dict.fromkeys(encoders, WIDTH), len(NUMBERS)))


class Spectrum(nn.Module):
    """An encoder `(B, 1, time) -> (B, WIDTH)` of the strengths of frequencies."""

    def __init__(self) -> None:
        super().__init__()
        bins = int(SECONDS * RATE) // 2 + 1
        self.layers = nn.Sequential(nn.Linear(bins, 64), nn.ReLU(), nn.Linear(64, WIDTH), nn.ReLU())

    def forward(self, sound: Tensor) -> Tensor:
        """Encode sounds."""
        features: Tensor = self.layers(torch.fft.rfft(sound[:, 0]).abs() / 8)
        return features


def main() -> tuple[dict[str, float], dict[str, float]]:
    """Train with M-SAM; print and return how much of the variance every set of sensors explains, and contributions."""
    model = make()
    train(model, torch.optim.AdamW(model.parameters(), lr=3e-3), flights(2000, seed=1), epochs=EPOCHS, rho=RHO)
    found, shares = scores(model, flights(1000, seed=2))
    say("R²", found)
    say("contributions", shares)
    return found, shares


if __name__ == "__main__":
    main()
