"""What is trained: models from a few thousand to twenty million parameters, on random data of the right shapes."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from msam.models import MultimodalModel, SumFusion, encoder

BATCH = 32
CLASSES = 10


class Workload(NamedTuple):
    """A model and what it is fed.

    Attributes:
        build: makes the model with fresh weights.
        shapes: modality -> shape of one sample's input.
        steps: steps in one measurement, so that it is long enough to be timed.
        rounds: measurements of every contender.
    """

    build: Callable[[], MultimodalModel]
    shapes: Mapping[str, tuple[int, ...]]
    steps: int
    rounds: int

    def batch(self, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """Return inputs and classes, the same at every call."""
        made = torch.Generator().manual_seed(0)
        inputs = {name: torch.randn(BATCH, *shape, generator=made).to(device) for name, shape in self.shapes.items()}
        return inputs, torch.randint(CLASSES, (BATCH,), generator=made).to(device)


class Tokens(nn.Module):
    """A small transformer encoder: projection, three layers of width 64, mean over time."""

    dim = 64

    def __init__(self, size: int) -> None:
        super().__init__()
        self.project = nn.Linear(size, self.dim)
        layer = nn.TransformerEncoderLayer(self.dim, 4, 256, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return features `(B, 64)` of `(B, T, size)`."""
        return self.layers(self.project(x)).mean(1)


def small_mlp(size: int) -> nn.Sequential:
    """Return a perceptron of three layers, 32 features."""
    sizes = [(size, 64), (64, 64), (64, 32)]
    return nn.Sequential(*[layer for pair in sizes for layer in (nn.Linear(*pair), nn.ReLU())])


def resnets() -> MultimodalModel:
    """Return two ResNet18, one for sound and one for pictures."""
    encoders = {name: encoder("resnet18", shape) for name, shape in RESNET_SHAPES.items()}
    return MultimodalModel(encoders, SumFusion(dict.fromkeys(encoders, 512), CLASSES))


def mlps() -> MultimodalModel:
    """Return two small perceptrons."""
    encoders = {name: small_mlp(shape[0]) for name, shape in MLP_SHAPES.items()}
    return MultimodalModel(encoders, SumFusion(dict.fromkeys(encoders, 32), CLASSES))


def transformers(shapes: Mapping[str, tuple[int, ...]]) -> MultimodalModel:
    """Return small transformers, one for each modality."""
    encoders = {name: Tokens(shape[-1]) for name, shape in shapes.items()}
    return MultimodalModel(encoders, SumFusion(dict.fromkeys(encoders, Tokens.dim), CLASSES))


RESNET_SHAPES = {"audio": (1, 64, 64), "video": (3, 64, 64)}
MLP_SHAPES = {"a": (48,), "b": (48,)}
TOKEN_SHAPES = {"audio": (20, 74), "vision": (20, 35), "text": (20, 300)}
SENSOR_SHAPES = {f"sensor{k}": (20, 32) for k in range(8)}

WORKLOADS: Mapping[str, Workload] = {
    "resnets": Workload(resnets, RESNET_SHAPES, 1, 8),
    "mlps": Workload(mlps, MLP_SHAPES, 50, 60),
    "transformers": Workload(lambda: transformers(TOKEN_SHAPES), TOKEN_SHAPES, 5, 30),
}
EIGHT = Workload(lambda: transformers(SENSOR_SHAPES), SENSOR_SHAPES, 2, 20)
"""Eight modalities, so 255 coalitions."""
