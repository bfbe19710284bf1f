"""Autocast to float16 with a GradScaler: scale in both passes, then unscale, step and update once.

The numbered lines matter: 1 and 2 scale the loss of each pass, the climb has length `rho` whatever the scale is; 3
unscales the combined gradient, which is only needed to clip it; 4 takes no closure. An overflow in either pass stays
in the gradient, so the scaler skips the step, once, and the weights are those from before. On a GPU write "cuda" for
"cpu".
"""

import torch
from torch import Tensor

import msam
from _problem import EPOCHS, RHO, contributions_of, criterion, make_batches, make_model, make_optimizer, summary

LARGEST = 5.0


def step(
    model: msam.MultimodalModel, sharpness: msam.MSAM, scaler: torch.amp.GradScaler, x: dict[str, Tensor], y: Tensor
) -> None:
    """Run one training step."""
    optimizer = sharpness.optimizer
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.float16):
        output = model(x)
        loss = criterion(output.logits, y)
        contributions = contributions_of(model, output, y)
    scaler.scale(loss).backward()  # 1
    with sharpness.perturbed(contributions):
        with torch.autocast("cpu", torch.float16):
            loss = criterion(model(x).logits, y)
        scaler.scale(loss).backward()  # 2
    scaler.unscale_(optimizer)  # 3
    torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST)
    scaler.step(optimizer)  # 4
    scaler.update()


def train() -> msam.MultimodalModel:
    """Train and return the model."""
    model = make_model()
    sharpness = msam.MSAM(make_optimizer(model), rho=RHO, model=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for _ in range(EPOCHS):
        for x, y in make_batches():
            step(model, sharpness, scaler, x, y)
    return model


def main() -> None:
    """Train and print a line."""
    print("float16 with a scaler:", summary(train()))


if __name__ == "__main__":
    main()
