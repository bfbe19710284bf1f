"""A plain PyTorch loop: the three numbered lines are all that M-SAM adds.

The optimizer, its scheduler, its checkpoints stay as they were. 1 puts the rule beside the optimizer, 2 measures what
each modality contributes, from the features that are there anyway, 3 opens the block in which the gradient is made
once more.
"""

import msam
from _problem import EPOCHS, RHO, criterion, make_batches, make_model, make_optimizer, summary
from msam import shapley


def train() -> msam.MultimodalModel:
    """Train and return the model."""
    model = make_model()
    optimizer = make_optimizer(model)
    sharpness = msam.MSAM(optimizer, rho=RHO, model=model)  # 1
    for _ in range(EPOCHS):
        for x, y in make_batches():
            optimizer.zero_grad()
            output = model(x)
            criterion(output.logits, y).backward()
            contributions = shapley.contributions(shapley.coalition_logits(model, output.features), y)  # 2
            with sharpness.perturbed(contributions):  # 3
                criterion(model(x).logits, y).backward()
            optimizer.step()
    return model


def main() -> None:
    """Train and print a line."""
    print("plain loop:", summary(train()))


if __name__ == "__main__":
    main()
