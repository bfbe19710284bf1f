"""Pretrained, frozen encoders: each learns its modality alone, then a fusion learns beside M-SAM while they stay.

    python examples/modalities/frozen.py

What has no gradient does not climb, so nothing is to be said to the rule; frozen encoders belong into evaluation mode, lest
their batch statistics move. What a modality knows cannot be lost any more: no fusion makes a frozen encoder forget.
"""

import tempfile
from pathlib import Path

import torch

import msam
from _loop import say, scores, train
from avdigits import EPOCHS, RHO, fit, make
from msam import data
from msam.data import Dataset


def pretrain(digits: Dataset, folder: Path) -> None:
    """Write the weights of each encoder, trained alone."""
    for name in digits.modalities:
        torch.save(fit(make(digits).only(name), digits).encoders[name].state_dict(), folder / f"{name}.pt")


def assemble(digits: Dataset, folder: Path) -> msam.MultimodalModel:
    """Return a model whose encoders are those that were written, frozen."""
    model = make(digits)
    for name, encoder in model.encoders.items():
        encoder.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
    model.encoders.requires_grad_(False)
    return model


def fuse(model: msam.MultimodalModel, digits: Dataset) -> msam.MSAM:
    """Train what is not frozen, and return the rule."""
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.05, momentum=0.9)
    return train(model, optimizer, digits.train, epochs=EPOCHS, rho=RHO, frozen=model.encoders.values())


def main() -> tuple[dict[str, float], dict[str, float]]:
    """Pretrain, fuse; print and return the accuracy of every set of modalities, and contributions."""
    digits = data.load("avdigits")(seed=0)
    with tempfile.TemporaryDirectory() as folder:
        pretrain(digits, Path(folder))
        model = assemble(digits, Path(folder))
    fuse(model, digits)
    found, shares = scores(model, digits.test)
    say("accuracies", found)
    say("contributions", shares)
    return found, shares


if __name__ == "__main__":
    main()
