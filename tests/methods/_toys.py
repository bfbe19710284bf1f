"""Small models, batches and runs for tests of methods."""

import copy

import torch

from msam.methods import Method, Run
from msam.models import MultimodalModel, build
from msam.types import Batch

NAMES = ("audio", "image", "text")
CLASSES = 5


def model(fusion: str = "late", seed: int = 0, dtype: torch.dtype = torch.float64) -> MultimodalModel:
    torch.manual_seed(seed)
    more = {"hidden": (8,)} if fusion in ("early", "maxout") else {}
    return build(dict.fromkeys(NAMES, "mlp"), dict.fromkeys(NAMES, (6,)), CLASSES, fusion, **more).to(dtype)


def batch(seed: int = 0, size: int = 8, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = {name: torch.randn(size, 6, generator=generator, dtype=dtype) for name in NAMES}
    return Batch(inputs, torch.randint(CLASSES, (size,), generator=generator))


def run_of(network: MultimodalModel, optimizer: torch.optim.Optimizer | None = None) -> Run:
    return Run(
        model=network,
        network=network,
        optimizer=optimizer or torch.optim.SGD(network.parameter_groups(), lr=0.1),
        epochs=2,
        num_classes=CLASSES,
        generator=torch.Generator().manual_seed(0),
        backward=lambda loss: loss.backward(),
        train_batches=lambda fraction: iter([batch(seed) for seed in range(3)]),
    )


def built(method: Method, fusion: str = "late", seed: int = 0) -> Run:
    """Return a run at its first step, as the loop prepares it."""
    network = method.build(model(fusion, seed), CLASSES).double()
    run = run_of(network)
    method.stage(run, 0)
    run.step = 1
    return run


def gradients(run: Run) -> dict[str, torch.Tensor | None]:
    return {name: copy.deepcopy(p.grad) for name, p in run.network.named_parameters()}
