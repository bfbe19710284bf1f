"""Autocast to bfloat16: both passes, and what reads the features, stand inside the autocast block.

The numbered lines matter: 1 the features of the first pass are bfloat16, so the coalitions of 2 are asked for inside
the same block; 3 the second pass needs a block of its own. Weights and gradients stay float32, no scaler is needed.
"""

import torch

import msam
from _problem import EPOCHS, RHO, contributions_of, criterion, make_batches, make_model, make_optimizer, summary


def train() -> msam.MultimodalModel:
    """Train and return the model."""
    model = make_model()
    optimizer = make_optimizer(model)
    sharpness = msam.MSAM(optimizer, rho=RHO, model=model)
    for _ in range(EPOCHS):
        for x, y in make_batches():
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):  # 1
                output = model(x)
                loss = criterion(output.logits, y)
                contributions = contributions_of(model, output, y)  # 2
            loss.backward()
            with sharpness.perturbed(contributions):
                with torch.autocast("cpu", torch.bfloat16):  # 3
                    loss = criterion(model(x).logits, y)
                loss.backward()
            optimizer.step()
    return model


def main() -> None:
    """Train and print a line."""
    print("bfloat16 autocast:", summary(train()))


if __name__ == "__main__":
    main()
