"""Gradient clipping and a learning-rate scheduler: both stay where they were, after the block.

The numbered lines matter: 1 the scheduler is given the plain optimizer, 2 gradients are clipped once, after the
block, as what is spent is the combined gradient. Clipping before the block does nothing for the climb, whose length
is `rho` whatever the gradient's, but would shrink the first gradient's part in the blend. 3 steps both.
"""

import torch

import msam
from _problem import EPOCHS, RHO, contributions_of, criterion, make_batches, make_model, make_optimizer, summary

LARGEST = 0.5


def train() -> msam.MultimodalModel:
    """Train and return the model."""
    model = make_model()
    optimizer = make_optimizer(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)  # 1
    sharpness = msam.MSAM(optimizer, rho=RHO, model=model)
    for _ in range(EPOCHS):
        for x, y in make_batches():
            optimizer.zero_grad()
            output = model(x)
            criterion(output.logits, y).backward()
            with sharpness.perturbed(contributions_of(model, output, y)):
                criterion(model(x).logits, y).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST)  # 2
            optimizer.step()  # 3
            scheduler.step()
    return model


def main() -> None:
    """Train and print a line."""
    print("clipping and a schedule:", summary(train()))


if __name__ == "__main__":
    main()
