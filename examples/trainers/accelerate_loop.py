"""Accelerate: the loop is yours, the accelerator wraps model and optimizer.

The numbered lines matter: 1 makes the rule beside the plain optimizer, before 2 wraps both; 3 calls
`accelerator.backward` in both passes. Step without a closure: under float16 Accelerate's optimizer would run it on
scaled gradients.

Accumulate as in `accumulation.py`, not with `accelerator.accumulate`: that skips steps until the last micro-batch, while
the block combines both gradients at every one.
"""

from accelerate import Accelerator

import msam
from _problem import EPOCHS, RHO, contributions_of, criterion, make_batches, make_model, make_optimizer, summary


def train() -> msam.MultimodalModel:
    """Train and return the model."""
    accelerator = Accelerator(cpu=True)
    model = make_model()
    plain = make_optimizer(model)
    sharpness = msam.MSAM(plain, rho=RHO, model=model)  # 1
    wrapped, optimizer = accelerator.prepare(model, plain)  # 2
    for _ in range(EPOCHS):
        for x, y in make_batches():
            optimizer.zero_grad()
            output = wrapped(x)
            accelerator.backward(criterion(output.logits, y))
            with sharpness.perturbed(contributions_of(model, output, y)):
                accelerator.backward(criterion(wrapped(x).logits, y))  # 3
            optimizer.step()
    return model


def main() -> None:
    """Train and print a line."""
    print("Accelerate:", summary(train()))


if __name__ == "__main__":
    main()
