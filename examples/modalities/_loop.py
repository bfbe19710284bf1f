"""What these examples share: a loop with M-SAM, and how well any set of modalities does."""

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

import msam
from msam import shapley, tasks
from msam.data import Split

BATCH = 64


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    split: Split,
    *,
    epochs: int,
    rho: float,
    present: Tensor | None = None,
    frozen: Iterable[nn.Module] = (),
    absent: Literal["feature", "input"] = "feature",
) -> msam.MSAM:
    """Train with M-SAM and return the rule; the model is in evaluation mode afterwards.

    Arguments:
        model: called as `model(inputs, present)`, with `modalities`.
        optimizer: of its parameters.
        split: what is trained on.
        epochs: how often.
        rho: radius; with 0 a step is the optimizer's alone, at the cost of one pass.
        present: `(len(split), M)` bool, which samples have which modalities; None: all have all.
        frozen: modules that stay in evaluation mode.
        absent: what an absent modality is in contributions: a feature of zeros, or an absent input.
    """
    sharpness = msam.MSAM(optimizer, rho=rho, model=model)
    model.train()
    for module in frozen:
        module.eval()
    for rows in _batches(len(split), epochs):
        batch, there = split[rows], None if present is None else present[rows]
        optimizer.zero_grad()
        output = model(batch.inputs, there)
        tasks.per_sample_loss(output.logits, batch.target).mean().backward()
        known = output.features if absent == "feature" else batch.inputs
        logits = shapley.coalition_logits(model, known, absent=absent)
        with sharpness.perturbed(shapley.contributions(logits, batch.target)) as climbing:
            if climbing:
                tasks.per_sample_loss(model(batch.inputs, there).logits, batch.target).mean().backward()
        optimizer.step()
    model.eval()
    return sharpness


@torch.no_grad()
def scores(
    model: nn.Module, split: Split, absent: Literal["feature", "input"] = "feature"
) -> tuple[dict[str, float], dict[str, float]]:
    """Return how well every set of modalities does, the others absent, as "audio+image", and every contribution.

    How well is the accuracy, the accuracy of labels, or the share of the variance of standardised numbers (R²).
    """
    batch = split[range(len(split))]
    known = model(batch.inputs).features if absent == "feature" else batch.inputs
    logits = shapley.coalition_logits(model, known, absent=absent)
    names = ["+".join(model.modalities[m] for m in group) for group in shapley.coalitions(len(model.modalities))]
    task = tasks.of(batch.target, logits.shape[2])
    right = task.hit(logits, task.fitting(batch.target, *logits.shape[1:])).mean(1)
    shares = shapley.contributions(logits, batch.target)
    return dict(zip(names, right.tolist(), strict=True)), dict(zip(model.modalities, shares.tolist(), strict=True))


def say(title: str, values: dict[str, float]) -> None:
    """Print a line."""
    print(f"{title}: " + ", ".join(f"{name} {value:.2f}" for name, value in values.items()))


def _batches(samples: int, epochs: int) -> Iterator[list[int]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        order = torch.randperm(samples, generator=generator).tolist()
        yield from (order[start : start + BATCH] for start in range(0, samples, BATCH))
