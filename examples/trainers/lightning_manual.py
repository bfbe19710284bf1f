"""Lightning, manual optimization: the two passes stand in `training_step`; for scalers, clipping and accumulation.

The numbered lines matter: 1 keeps the rule beside the plain optimizer, which is what Lightning gets, 2 opens the
block, 3 calls `manual_backward` in both passes, clips once, after the block, and steps without a closure.
"""

import pytorch_lightning as pl  # or: import lightning as pl
import torch

import msam
from _problem import RHO, Example, contributions_of, criterion, make_batches, make_model, make_optimizer, summary
from lightning_automatic import make_trainer


class Manual(pl.LightningModule):
    """The model and its training step."""

    def __init__(self, largest: float | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = make_model()
        self.largest = largest

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the plain optimizer."""
        optimizer = make_optimizer(self.model)
        self.sharpness = msam.MSAM(optimizer, rho=RHO, model=self.model)  # 1
        return optimizer

    def training_step(self, batch: Example, _: int) -> None:
        """Run both passes and the step."""
        x, y = batch
        optimizer = self.optimizers()
        optimizer.zero_grad()
        output = self.model(x)
        self.manual_backward(criterion(output.logits, y))
        with self.sharpness.perturbed(contributions_of(self.model, output, y)):  # 2
            self.manual_backward(criterion(self.model(x).logits, y))  # 3
        if self.largest is not None:
            self.clip_gradients(optimizer, self.largest, "norm")
        optimizer.step()


def train() -> msam.MultimodalModel:
    """Train and return the model."""
    module = Manual()
    make_trainer().fit(module, torch.utils.data.DataLoader(make_batches(), batch_size=None))
    return module.model


def main() -> None:
    """Train and print a line."""
    print("Lightning, manual:", summary(train()))


if __name__ == "__main__":
    main()
