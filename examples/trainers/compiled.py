"""torch.compile: the compiled model runs both passes, the rule looks at the model itself.

The numbered lines matter: 1 compiles, 2 gives the rule the plain optimizer and the model that was compiled, which
shares every weight with the compiled one, 3 sees the climbed weights without compiling anew.
"""

import torch

import msam
from _problem import EPOCHS, RHO, contributions_of, criterion, make_batches, make_model, make_optimizer, summary


def train(backend: str = "inductor") -> msam.MultimodalModel:
    """Train and return the model; "inductor" needs a C++ compiler on the CPU."""
    model = make_model()
    compiled = torch.compile(model, backend=backend)  # 1
    optimizer = make_optimizer(model)
    sharpness = msam.MSAM(optimizer, rho=RHO, model=model)  # 2
    for _ in range(EPOCHS):
        for x, y in make_batches():
            optimizer.zero_grad()
            output = compiled(x)
            criterion(output.logits, y).backward()
            with sharpness.perturbed(contributions_of(model, output, y)):
                criterion(compiled(x).logits, y).backward()  # 3
            optimizer.step()
    return model


def main() -> None:
    """Train and print a line."""
    print("torch.compile:", summary(train()))


if __name__ == "__main__":
    main()
