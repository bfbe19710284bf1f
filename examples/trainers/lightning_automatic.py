"""Lightning, automatic optimization: Lightning steps with a closure, and `as_optimizer()` runs it twice.

The numbered lines matter: 1 puts the rule beside the plain optimizer, 2 returns the closure form, 3 tells
contributions from inside `training_step`, heard in the first pass only. `training_step` runs twice a step, so what it
logs is logged twice.

Lightning clips inside the closure, each pass's gradient for itself, and under "16-mixed" with a scaler it drops the
closure, which raises rather than train without the rule; so does `accumulate_grad_batches`. For these see
`lightning_manual.py`.
"""

import logging

import pytorch_lightning as pl  # or: import lightning as pl
import torch

import msam
from _problem import (
    EPOCHS,
    RHO,
    Example,
    contributions_of,
    criterion,
    make_batches,
    make_model,
    make_optimizer,
    summary,
)


class Automatic(pl.LightningModule):
    """The model and its training step."""

    def __init__(self) -> None:
        super().__init__()
        self.model = make_model()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the closure form of the rule."""
        self.sharpness = msam.MSAM(make_optimizer(self.model), rho=RHO, model=self.model)  # 1
        return self.sharpness.as_optimizer()  # 2

    def training_step(self, batch: Example, _: int) -> torch.Tensor:
        """Return the loss."""
        x, y = batch
        output = self.model(x)
        self.sharpness.observe(contributions_of(self.model, output, y))  # 3
        return criterion(output.logits, y)


def make_trainer(**options: object) -> pl.Trainer:
    """Return a quiet trainer on one CPU."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(accelerator="cpu", devices=1, max_epochs=EPOCHS, **{**quiet, **options})


def train() -> msam.MultimodalModel:
    """Train and return the model."""
    module = Automatic()
    make_trainer().fit(module, torch.utils.data.DataLoader(make_batches(), batch_size=None))
    return module.model


def main() -> None:
    """Train and print a line."""
    print("Lightning, automatic:", summary(train()))


if __name__ == "__main__":
    main()
