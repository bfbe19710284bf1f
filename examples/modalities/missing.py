"""Missing modalities, at training and test time: sensors that fell off.

    python examples/modalities/missing.py

Nearly half of the training samples lack a sensor or two. `present` says which: a feature that is not there is zeros,
in training as in coalitions, so that it neither learns from nothing nor gets a contribution. The same model trained on
complete samples has never seen a gap, and is lost where there is one.
"""

import torch
from torch import Tensor

import msam
from _loop import say, train
from msam import shapley
from msam.data import TensorSplit
from sensors import EPOCHS, RHO, make, signals


def gaps(samples: int, modalities: int, seed: int) -> Tensor:
    """Return `present` `(samples, modalities)`: half of the samples complete, the others of any set but the empty one."""
    made = torch.Generator().manual_seed(seed)
    groups = shapley.coalitions(modalities)
    every = torch.zeros(len(groups), modalities, dtype=torch.bool)
    for row, group in enumerate(groups):
        every[row, list(group)] = True
    present = every[torch.randint(len(groups), (samples,), generator=made)]
    present[: samples // 2] = True
    return present


def fit(split: TensorSplit, present: Tensor | None) -> msam.MultimodalModel:
    """Train with M-SAM; with `present` only what is there, without it all."""
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    train(model, optimizer, split, epochs=EPOCHS, rho=RHO, present=present)
    return model


@torch.no_grad()
def without_each(model: msam.MultimodalModel, split: TensorSplit) -> dict[str, float]:
    """Return the accuracy where a modality is missing in every sample, and where none is."""
    found = {}
    for name in (*model.modalities, "nothing"):
        present = torch.tensor([[m != name for m in model.modalities]]).expand(len(split), -1)
        inputs = {m: torch.zeros_like(x) if m == name else x for m, x in split.inputs.items()}
        found[f"without {name}"] = float((model(inputs, present).logits.argmax(1) == split.target).double().mean())
    return found


def main() -> dict[str, dict[str, float]]:
    """Train both ways; print and return accuracies without each sensor."""
    split, test = signals(1200, seed=1), signals(800, seed=2)
    present = gaps(len(split), len(split.inputs), seed=3)
    found = {
        "trained on complete samples": without_each(fit(split, None), test),
        "trained with gaps": without_each(fit(split, present), test),
    }
    for title, values in found.items():
        say(title, values)
    return found


if __name__ == "__main__":
    main()
