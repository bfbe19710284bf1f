"""Gradient accumulation: all micro-batches before the block, the same ones inside it.

The numbered lines matter: 1 keeps what the coalitions of each micro-batch answer, so that 2 measures contributions of
the whole batch (an average of the micro-batches' own contributions would be close, not equal), and 3 runs the same
micro-batches again: the block begins with empty gradients, and they add up inside as they did before.
"""

import torch

import msam
from _problem import EPOCHS, RHO, Example, criterion, make_batches, make_model, make_optimizer, summary
from msam import shapley

PARTS = 4


def split(x: dict[str, torch.Tensor], y: torch.Tensor) -> list[Example]:
    """Return a batch as micro-batches of equal size; a user's loader would make them."""
    pieces = [dict(zip(x, piece, strict=True)) for piece in zip(*(v.chunk(PARTS) for v in x.values()), strict=True)]
    return list(zip(pieces, y.chunk(PARTS), strict=True))


def train() -> msam.MultimodalModel:
    """Train and return the model."""
    model = make_model()
    optimizer = make_optimizer(model)
    sharpness = msam.MSAM(optimizer, rho=RHO, model=model)
    for _ in range(EPOCHS):
        for x, y in make_batches():
            micro_batches = split(x, y)
            optimizer.zero_grad()
            logits = []
            for part, target in micro_batches:
                output = model(part)
                (criterion(output.logits, target) / PARTS).backward()
                logits.append(shapley.coalition_logits(model, output.features))  # 1
            contributions = shapley.contributions(torch.cat(logits, dim=1), y)  # 2
            with sharpness.perturbed(contributions):
                for part, target in micro_batches:  # 3
                    (criterion(model(part).logits, target) / PARTS).backward()
            optimizer.step()
    return model


def main() -> None:
    """Train and print a line."""
    print("gradient accumulation:", summary(train()))


if __name__ == "__main__":
    main()
