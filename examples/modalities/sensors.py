"""Three modalities from sensors: an accelerometer, a gyroscope and a heart rate tell what somebody does.

    python examples/modalities/sensors.py

The signals are made up so that no sensor can know alone, and any two can: on a bicycle nothing bounces more than at
rest, hips turn alike in walking and running, and pulses of walking and cycling are the same.

    activity   bounce    rotation   pulse
    rest       none      none       65
    walking    1.8 Hz    1.8 Hz     105
    running    2.7 Hz    1.8 Hz     150
    cycling    none      1.2 Hz     105
"""

import math

import torch
from torch import Tensor, nn

import msam
from _loop import say, scores, train
from msam.data import TensorSplit

ACTIVITIES = ("rest", "walking", "running", "cycling")
BOUNCE = torch.tensor([0.0, 1.8, 2.7, 0.0])
ROTATION = torch.tensor([0.0, 1.8, 1.8, 1.2])
PULSE = torch.tensor([65.0, 105.0, 150.0, 105.0])
SECONDS, RATE = 4, 16
EPOCHS, RHO, WIDTH = 8, 0.05, 32


def signals(samples: int, seed: int) -> TensorSplit:
    """Return windows of four seconds.

    Modality -> `(samples, channels, time)`: "accelerometer" and "gyroscope" of three axes at 16 Hz, "pulse" of one
    channel at 1 Hz, in units of 30 beats a minute from 100.
    """
    made = torch.Generator().manual_seed(seed)
    target = torch.randint(len(ACTIVITIES), (samples,), generator=made)

    def turning(frequency: Tensor, noise: float) -> Tensor:
        time = torch.arange(SECONDS * RATE) / RATE
        pace = frequency[target] * (1 + 0.05 * torch.randn(samples, generator=made))
        phase = 2 * math.pi * torch.rand(samples, 1, generator=made)
        wave = torch.sin(2 * math.pi * pace[:, None] * time + phase) * (frequency[target] > 0)[:, None]
        axes = torch.nn.functional.normalize(torch.randn(samples, 3, generator=made), dim=1)
        return axes[:, :, None] * wave[:, None] + noise * torch.randn(samples, 3, len(time), generator=made)

    pulse = PULSE[target] + 12 * torch.randn(samples, generator=made)
    inputs = {
        "accelerometer": turning(BOUNCE, 0.5),
        "gyroscope": turning(ROTATION, 0.8),
        "pulse": ((pulse[:, None] + torch.randn(samples, SECONDS, generator=made)) / 30 - 100 / 30)[:, None],
    }
    return TensorSplit(inputs, target)


def make() -> msam.MultimodalModel:
    """Return a model with a small encoder for each sensor, the same one every time."""
    torch.manual_seed(0)
    encoders = {
        "accelerometer": waves(),
        "gyroscope": waves(),
        "pulse": nn.Sequential(nn.Flatten(), nn.Linear(SECONDS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()),
    }
    return msam.MultimodalModel(encoders, msam.ConcatFusion(dict.fromkeys(encoders, WIDTH), len(ACTIVITIES)))


def waves() -> nn.Module:
    """Return an encoder `(B, 3, time) -> (B, WIDTH)` that does not care about the phase."""
    return nn.Sequential(
        nn.Conv1d(3, WIDTH, 16, padding=8),
        nn.BatchNorm1d(WIDTH),
        nn.ReLU(),
        nn.Conv1d(WIDTH, WIDTH, 8, stride=2),
        nn.ReLU(),
        nn.AdaptiveMaxPool1d(1),
        nn.Flatten(),
    )


def main() -> tuple[dict[str, float], dict[str, float]]:
    """Train with M-SAM; print and return the accuracy of every set of sensors, and contributions."""
    model = make()
    train(model, torch.optim.AdamW(model.parameters(), lr=3e-3), signals(1200, seed=1), epochs=EPOCHS, rho=RHO)
    found, shares = scores(model, signals(800, seed=2))
    say("accuracies", found)
    say("contributions", shares)
    return found, shares


if __name__ == "__main__":
    main()
