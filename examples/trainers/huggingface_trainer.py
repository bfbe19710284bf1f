"""Hugging Face's Trainer: `training_step` runs both passes, the Trainer clips, steps and schedules as always.

The numbered lines matter: 1 keeps what the coalitions of each micro-batch answer, 2 runs the micro-batches of a step
once more when the Trainer is about to step, 3 puts the rule beside the optimizer that the Trainer is given.
"""

import tempfile

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

import msam
from _problem import EPOCHS, RHO, criterion, make_batches, make_model, make_optimizer, summary
from msam import shapley


class WithLoss(nn.Module):
    """A model as the Trainer wants it: from columns to the loss and what is needed beside it."""

    def __init__(self, model: msam.MultimodalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, audio: Tensor, image: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss, and the logits of all coalitions of modalities."""
        output = self.model({"audio": audio, "image": image})
        coalitions = shapley.coalition_logits(self.model, output.features)
        return {"loss": criterion(output.logits, labels), "coalitions": coalitions}


class SharpTrainer(Trainer):
    """A Trainer that asks for every gradient twice."""

    def __init__(self, *args: object, sharpness: msam.MSAM, **options: object) -> None:
        super().__init__(*args, optimizers=(sharpness.optimizer, None), **options)
        self.sharpness = sharpness
        self.micro_batches: list[dict[str, Tensor]] = []
        self.coalitions: list[Tensor] = []

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: object, **options: object) -> Tensor:
        """Return the loss; keep what contributions are made of."""
        outputs = model(**inputs)
        self.coalitions.append(outputs["coalitions"])  # 1
        return outputs["loss"]

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *args: object) -> Tensor:
        """Run the first pass of a micro-batch, and after the last one the second pass of all of them."""
        loss = super().training_step(model, inputs, *args)
        self.micro_batches.append(inputs)
        if self.accelerator.sync_gradients:
            labels = torch.cat([batch["labels"] for batch in self.micro_batches]).to(loss.device)
            contributions = shapley.contributions(torch.cat(self.coalitions, dim=1), labels)
            with self.sharpness.perturbed(contributions):
                for batch in self.micro_batches:
                    super().training_step(model, batch, *args)  # 2
            self.micro_batches, self.coalitions = [], []
        return loss


def train(micro_batches: int = 1) -> msam.MultimodalModel:
    """Train and return the model."""
    model = make_model()
    sharpness = msam.MSAM(make_optimizer(model), rho=RHO, model=model)  # 3
    rows = [{**{n: v[i] for n, v in x.items()}, "labels": y[i]} for x, y in make_batches() for i in range(len(y))]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=16 // micro_batches,
            gradient_accumulation_steps=micro_batches,
            train_sampling_strategy="sequential",
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        SharpTrainer(WithLoss(model), arguments, train_dataset=rows, sharpness=sharpness).train()
    return model


def main() -> None:
    """Train and print a line."""
    print("Trainer of transformers:", summary(train()))


if __name__ == "__main__":
    main()
