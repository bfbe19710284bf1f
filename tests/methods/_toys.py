"""Small models, batches and runs for tests of methods."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from msam.methods import Method, Run, Stage
from msam.models import MultimodalModel, build
from msam.types import Batch

NAMES = ("audio", "image", "text")
FOUR = (*NAMES, "touch")
CLASSES = 5
LATE, EARLY = ("late", "concat"), ("early", "maxout")


def model(
    fusion: str = "late", seed: int = 0, dtype: torch.dtype = torch.float64, names: Sequence[str] = NAMES
) -> MultimodalModel:
    torch.manual_seed(seed)
    more = {"hidden": (8,)} if fusion in EARLY else {}
    return build(dict.fromkeys(names, "mlp"), dict.fromkeys(names, (6,)), CLASSES, fusion, **more).to(dtype)


def batch(seed: int = 0, size: int = 8, dtype: torch.dtype = torch.float64, names: Sequence[str] = NAMES) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = {name: torch.randn(size, 6, generator=generator, dtype=dtype) for name in names}
    return Batch(inputs, torch.randint(CLASSES, (size,), generator=generator))


def run_of(network: MultimodalModel, optimizer: torch.optim.Optimizer | None = None, epochs: int = 2) -> Run:
    return Run(
        model=network,
        network=network,
        optimizer=optimizer or torch.optim.SGD(network.parameter_groups(), lr=0.1),
        epochs=epochs,
        num_classes=CLASSES,
        generator=torch.Generator().manual_seed(0),
        backward=lambda loss, retain_graph=False: loss.backward(retain_graph=retain_graph),
        train_batches=lambda start, stop: iter(
            [batch(seed, names=in_one_order(network.modalities)) for seed in range(3)]
        ),
    )


def in_one_order(names: Sequence[str]) -> Sequence[str]:
    """Return names in the order of `FOUR`, so that a model with its modalities reversed is given the same samples."""
    return [name for name in FOUR if name in names] or names


def built(method: Method, fusion: str = "late", seed: int = 0, names: Sequence[str] = NAMES, epochs: int = 2) -> Run:
    """Return a run at its first step, as the loop prepares it."""
    network = method.build(model(fusion, seed, names=names), CLASSES).double()
    run = run_of(network, epochs=epochs)
    enter(method, run, 0)
    run.begin_step(1)
    return run


def enter(method: Method, run: Run, k: int) -> Stage | None:
    """Begin stage k as the loop does: the method prepares it, what does not train is frozen."""
    stage = method.stage(run, k)
    if stage is not None:
        run.stage = k
        method.stage_begin(run)
        for group in run.network.parameter_groups():
            for parameter in group["params"]:
                parameter.requires_grad_(stage.trains(group))
        if stage.new_optimizer:
            run.optimizer = torch.optim.SGD(run.network.parameter_groups(), lr=0.1)
    return stage


def steps(method: Method, run: Run, count: int = 4, names: Sequence[str] = FOUR) -> None:
    """Train a few steps on batches of their own; what is not a modality of the model is let be."""
    for number in range(count):
        run.begin_step(number + 1)
        run.optimizer.zero_grad()
        method.gradients(run, batch(number, names=names))
        run.optimizer.step()


def gradients(run: Run) -> dict[str, Tensor | None]:
    return {name: copy.deepcopy(p.grad) for name, p in run.network.named_parameters()}


def close(a: Any, b: Any, atol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)
