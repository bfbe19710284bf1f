"""What a method is: it makes gradients. The loop, the rules and the optimizers are not its business."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msam import checks
from msam.models import MultimodalModel
from msam.types import Batch, Output


@dataclass
class Run:
    """What a method may see and touch while a run goes on.

    Attributes:
        model: the model to call, wrapped by the engine where there is one.
        network: the same model unwrapped: its modalities, encoders, fusion, heads.
        optimizer: the optimizer that will step.
        epochs: epochs of the whole run.
        num_classes: number of logits.
        generator: the run's own source of randomness, saved in checkpoints.
        backward: call it on a loss instead of `loss.backward()`; precision and devices are its business.
        train_batches: a fraction in (0, 1] -> batches of that part of the training data, in order.
        state: what the method remembers from step to step: tensors, plain values, things with a `state_dict`.
        epoch: current epoch, from 1.
        step: steps done so far.
        perturbed: True in the second pass of a sharpness rule: coefficients, weights and noise of the first pass are
            to be reused, and running scores left as they are.
    """

    model: nn.Module
    network: MultimodalModel
    optimizer: torch.optim.Optimizer
    epochs: int
    num_classes: int
    generator: torch.Generator
    backward: Callable[[Tensor], None]
    train_batches: Callable[[float], Iterator[Batch]]
    state: dict[str, Any] = field(default_factory=dict)
    epoch: int = 1
    step: int = 0
    perturbed: bool = False


@dataclass(frozen=True)
class Stage:
    """A stretch of training. What does not train keeps its parameters; its BatchNorm statistics go on.

    Attributes:
        epochs: how many, at least 1.
        roles: which roles of parameters train ("encoder", "head", "fusion"), None for all.
        modalities: which modalities' encoders and heads train, None for all.
        new_optimizer: start with a fresh optimizer, rule and schedule instead of those so far.
    """

    epochs: int
    roles: frozenset[str] | None = None
    modalities: frozenset[str] | None = None
    new_optimizer: bool = False

    def trains(self, group: Mapping[str, Any]) -> bool:
        """Tell whether a parameter group (with its role and modality) trains in this stage."""
        in_role = self.roles is None or group["role"] in self.roles
        in_modality = self.modalities is None or group["modality"] is None or group["modality"] in self.modalities
        return in_role and in_modality


@dataclass(frozen=True)
class Method:
    """A way to make gradients. The defaults are joint training; a method overrides what it needs.

    Concrete methods are frozen dataclasses, one per file, not subclassed further. Their fields are their
    hyper-parameters and, with the ranges written as `Annotated[float, Range(...)]`, their command line.

    Raises:
        ValueError: on construction, if a hyper-parameter is out of its range.
    """

    passes: ClassVar[float] = 1.0
    """Forward-backward passes of the whole model that one step costs."""

    def __post_init__(self) -> None:
        checks.arguments_in_range(type(self), {f.name: getattr(self, f.name) for f in fields(self)})

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Return the model to train, with heads or teachers added; before it is wrapped and has an optimizer."""
        return model

    def stage(self, run: Run, k: int) -> Stage | None:
        """Return the k-th stage of training, None when there is no more; pure in `k` and `run.state`.

        Things with a `state_dict` are put into `run.state` here, at `k = 0`, if they are not there yet: a run that is gone
        on with asks for stage 0, loads what was saved into them, and then asks for the stage it was in.
        """
        return Stage(run.epochs) if k == 0 else None

    def loss(self, run: Run, output: Output, batch: Batch) -> Tensor:
        """Return the loss of every sample, `(N,)`."""
        return per_sample_loss(output.logits, batch.target)

    def modulate(self, run: Run, output: Output, batch: Batch) -> None:
        """Change the gradients that one backward pass has made."""

    def gradients(self, run: Run, batch: Batch) -> Output:
        """Make the gradients of one batch; the output still has its features."""
        output: Output = run.model(batch.inputs, batch.present)
        loss = self.loss(run, output, batch).mean()
        run.backward(loss if output.extra_loss is None else loss + output.extra_loss)
        self.modulate(run, output, batch)
        return output

    def epoch_end(self, run: Run, metrics: Mapping[str, Any]) -> None:
        """Take note of the validation metrics at the end of an epoch."""


def per_sample_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return one loss per sample, `(N,)`.

    Cross-entropy for integer classes `(N,)`, mean binary cross-entropy for integer or bool labels `(N, K)`, squared
    error (mean over outputs) for a floating target of the shape of the logits, or `(N,)` with one logit.

    Raises:
        ValueError: if shapes do not fit.

    >>> per_sample_loss(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor([1.3863, 1.3863])
    """
    kind = nn.functional
    if target.is_floating_point():
        wanted = target.unsqueeze(1) if target.dim() == 1 else target
        if wanted.shape == logits.shape:
            return kind.mse_loss(logits, wanted, reduction="none").mean(1)
    elif target.dim() == 1 and len(target) == len(logits):
        return kind.cross_entropy(logits, target, reduction="none")
    elif target.shape == logits.shape:
        return kind.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none").mean(1)
    raise ValueError(
        "`target` must be (N,) integer classes, (N, C) integer labels or floating of the shape of the logits, "
        f"received {tuple(target.shape)} of {target.dtype} for logits {tuple(logits.shape)}."
    )
