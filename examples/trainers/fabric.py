"""Lightning Fabric: the loop is yours, Fabric wraps model and optimizer.

The numbered lines matter: 1 makes the rule beside the plain optimizer, before 2 wraps both; 3 calls Fabric's backward
in both passes and steps Fabric's optimizer, which knows precision and strategy. Under DDP put
`fabric.no_backward_sync(wrapped)` around both passes only for a radius per worker, see `ddp.py`.
"""

from lightning_fabric import Fabric

import msam
from _problem import EPOCHS, RHO, contributions_of, criterion, make_batches, make_model, make_optimizer, summary


def train() -> msam.MultimodalModel:
    """Train and return the model."""
    fabric = Fabric(accelerator="cpu", devices=1)
    model = make_model()
    plain = make_optimizer(model)
    sharpness = msam.MSAM(plain, rho=RHO, model=model)  # 1
    wrapped, optimizer = fabric.setup(model, plain)  # 2
    for _ in range(EPOCHS):
        for x, y in make_batches():
            optimizer.zero_grad()
            output = wrapped(x)
            fabric.backward(criterion(output.logits, y))
            with sharpness.perturbed(contributions_of(model, output, y)):
                fabric.backward(criterion(wrapped(x).logits, y))  # 3
            optimizer.step()
    return model


def main() -> None:
    """Train and print a line."""
    print("Fabric:", summary(train()))


if __name__ == "__main__":
    main()
