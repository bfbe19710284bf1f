"""Worlds of labels and of numbers, and small models trained on them in a moment."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

import msam
from msam import Batch
from msam.tasks import per_sample_loss

NAMES = ("audio", "image", "text")


class World(NamedTuple):
    """Batches to train on and batches that were held out."""

    train: list[Batch]
    valid: list[Batch]

    @property
    def held(self) -> Batch:
        """All that was held out, as one batch."""
        inputs = {name: torch.cat([b.inputs[name] for b in self.valid]) for name in self.valid[0].inputs}
        return Batch(inputs, torch.cat([b.target for b in self.valid]))


def labels(seed: int, size: int = 600) -> World:
    """Four labels: one told by audio, one by image, one by both; one that hardly any sample has, told by image."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(2, 6, generator=generator)

    def target(x: dict[str, Tensor]) -> Tensor:
        a, b = x["audio"] @ w[0], x["image"] @ w[1]
        return torch.stack([a > 0, b > 0, a + b > 0, b > 3], 1)

    return _world(target, 2, size, generator)


def numbers(seed: int, strength: tuple[float, ...] = (1.0, 1.0), outputs: int = 1, size: int = 600) -> World:
    """Sums of even functions of one direction of each modality, which an encoder has to find, and noise; standardised."""
    generator = torch.Generator().manual_seed(seed)
    w = nn.functional.normalize(torch.randn(len(strength), outputs, 6, generator=generator), dim=-1)

    def target(x: dict[str, Tensor]) -> Tensor:
        parts = [s * ((v @ u.T).abs() - 0.8) / 0.6 for s, v, u in zip(strength, x.values(), w, strict=True)]
        noise = 0.3 * torch.randn(len(parts[0]), outputs, generator=generator)
        return (sum(parts) + noise) / sum(s**2 for s in (*strength, 0.3)) ** 0.5

    return _world(target, len(strength), size, generator)


def _world(target, modalities: int, size: int, generator: torch.Generator) -> World:
    def drawn(count: int, at_once: int) -> list[Batch]:
        x = {name: torch.randn(count, 6, generator=generator) for name in NAMES[:modalities]}
        y = target(x)
        return [Batch({n: v[k] for n, v in x.items()}, y[k]) for k in torch.arange(count).split(at_once)]

    return World(drawn(size, 25), drawn(400, 100))


def model(world: World, *, epochs: int = 4, lazy: str | None = None, seed: int = 0) -> msam.MultimodalModel:
    """Return a model of the world after AdamW; the encoder of `lazy` learns at a hundredth of the rate of the others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        names = list(world.train[0].inputs)
        encoders = {n: nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 8), nn.ReLU()) for n in names}
        made = msam.MultimodalModel(encoders, msam.SumFusion(dict.fromkeys(names, 8), world.train[0].target.shape[1]))
        groups = [
            {"params": g["params"], "lr": 1e-2 / (100 if g["modality"] == lazy and g["role"] == "encoder" else 1)}
            for g in made.parameter_groups()
        ]
        optimizer = torch.optim.AdamW(groups)
        for batch in world.train * epochs:
            optimizer.zero_grad()
            per_sample_loss(made(batch.inputs).logits, batch.target).mean().backward()
            optimizer.step()
    return made.eval()
