"""Audio-visual digits: what each modality knows alone, what is left of it in a joint model, and M-SAM.

    python examples/modalities/avdigits.py

The image takes the loss down first, and the audio encoder, which alone learns more, stays behind.
"""

import torch

import msam
from _loop import say, scores, train
from msam import data, models
from msam.data import Dataset

EPOCHS = 5
RHO = 0.1


def make(digits: Dataset) -> msam.MultimodalModel:
    """Return a fresh model, the same one every time."""
    torch.manual_seed(0)
    return models.build(digits.encoders, digits.shapes, digits.num_classes, fusion="late")


def fit(model: msam.MultimodalModel, digits: Dataset, rho: float = 0.0) -> msam.MultimodalModel:
    """Train and return the model."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    train(model, optimizer, digits.train, epochs=EPOCHS, rho=rho)
    return model


def main() -> dict[str, dict[str, float]]:
    """Train both unimodal nets, the joint model and M-SAM; print and return their accuracies."""
    digits = data.load("avdigits")(seed=0)
    found = {}
    for name in digits.modalities:
        found[f"{name} alone"], _ = scores(fit(make(digits).only(name), digits), digits.test)
    for title, rho in (("joint", 0.0), ("M-SAM", RHO)):
        found[title], shares = scores(fit(make(digits), digits, rho), digits.test)
        say(f"{title}, contributions", shares)
    for title, values in found.items():
        say(f"{title}, accuracies", values)
    return found


if __name__ == "__main__":
    main()
