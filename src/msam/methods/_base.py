"""What a method is: it makes gradients. The loop, the rules and the optimizers are not its business."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from msam import checks
from msam.methods._about import About
from msam.models import MultimodalModel
from msam.tasks import per_sample_loss
from msam.types import Batch, Output

Made = TypeVar("Made")


class Backward(Protocol):
    """`backward(loss, retain_graph=False)`: what a run does instead of `loss.backward()`."""

    def __call__(self, loss: Tensor, retain_graph: bool = False) -> None:
        """Add the gradients of a scalar to `.grad`."""
        ...


@dataclass
class Run:
    """What a method may see and touch while a run goes on.

    Attributes:
        model: the model to call, wrapped by the engine where there is one.
        network: the same model unwrapped: its modalities, encoders, fusion, heads.
        optimizer: the optimizer that will step.
        epochs: epochs of the configuration; stages may hold more or fewer.
        num_classes: number of logits.
        generator: the run's own source of randomness, saved in checkpoints.
        backward: call it on a loss instead of `loss.backward()`; precision and devices are its business.
        train_batches: `(start, stop)`, fractions in [0, 1] -> batches of the training samples whose place in one fixed
            random order lies between them; the same samples in every epoch.
        state: what the method remembers from step to step: tensors, plain values, things with a `state_dict`, and
            mappings of these. It is saved in checkpoints.
        notes: what the method wants to have written in the step's line of the record; empty at every step's begin.
        epoch: current epoch, from 1; when a stage begins, its first.
        step: steps done so far, the current one included.
        stage: position of the current stage, from 0.
        perturbed: True in the second pass of a sharpness rule: coefficients, weights and noise of the first pass are
            to be reused (`once`), and running scores left as they are.
    """

    model: nn.Module
    network: MultimodalModel
    optimizer: torch.optim.Optimizer
    epochs: int
    num_classes: int
    generator: torch.Generator
    backward: Backward
    train_batches: Callable[[float, float], Iterator[Batch]]
    state: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    epoch: int = 1
    step: int = 0
    stage: int = 0
    perturbed: bool = False
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

    def begin_step(self, step: int) -> None:
        """Forget what the step before noted and kept."""
        self.step, self.perturbed = step, False
        self.notes.clear()
        self._kept.clear()

    def once(self, key: str, make: Callable[[], Made]) -> Made:
        """Return `make()` in the first pass of a step, and what the first pass made in the second."""
        if not self.perturbed:
            self._kept[key] = make()
        made: Made = self._kept[key]
        return made

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the model's modalities, in order."""
        return self.network.modalities


@dataclass(frozen=True)
class Stage:
    """A stretch of training.

    What does not train keeps its parameters, and is in evaluation mode: its BatchNorm statistics rest, it drops
    nothing out.

    Attributes:
        epochs: how many, at least 1.
        roles: which roles of parameters train ("encoder", "head", "fusion"), None for all.
        modalities: which modalities' encoders and heads train, None for all.
        part: which part of the training samples, as `Run.train_batches` counts them.
        auxiliary: whether its epochs serve the method's own ends (teachers, estimates) and are never the ones reported.
        new_optimizer: start with a fresh optimizer and a rule bound to it.
        schedule_from: epoch (from 0) at which the schedule of learning rates stands when the stage begins; None lets it go
            on from where it is.
    """

    epochs: int
    roles: frozenset[str] | None = None
    modalities: frozenset[str] | None = None
    part: tuple[float, float] = (0.0, 1.0)
    auxiliary: bool = False
    new_optimizer: bool = False
    schedule_from: int | None = None

    def trains(self, group: Mapping[str, Any]) -> bool:
        """Tell whether a parameter group (with its role and modality) trains in this stage."""
        in_role = self.roles is None or group["role"] in self.roles
        in_modality = self.modalities is None or group["modality"] is None or group["modality"] in self.modalities
        return in_role and in_modality


class Passes(NamedTuple):
    """What one step costs, in passes of every encoder over one batch, averaged over encoders and steps.

    Attributes:
        forward: forward passes, with or without a graph.
        backward: backward passes.
    """

    forward: float = 1.0
    backward: float = 1.0

    @property
    def cost(self) -> float:
        """Forward-backward passes, a backward counted as two forwards.

        >>> Passes(forward=1, backward=2).cost
        1.6666666666666667
        """
        return (self.forward + 2 * self.backward) / 3


@dataclass(frozen=True)
class Method:
    """A way to make gradients. The defaults are joint training; a method overrides what it needs.

    Concrete methods are frozen dataclasses, one per file, not subclassed further. Their fields are their
    hyper-parameters and, with the ranges written as `Annotated[float, Range(...)]`, their command line.

    Raises:
        ValueError: on construction, if a hyper-parameter is out of its range or not among its words, or if
            `last_epoch` comes before `first_epoch`, where a method has such a window.
    """

    about: ClassVar[About] = About()
    """What the catalogue says of it."""

    stackable: ClassVar[bool] = False
    """Whether runs can be stacked: it has one stage, and makes one `loss` of each batch, without a state; `modulate` may
    do what it likes to the gradients."""

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        checks.arguments_in_range(type(self), given)
        checks.arguments_among_words(type(self), given)
        first, last = given.get("first_epoch"), given.get("last_epoch")
        if first is not None and last is not None and last < first:
            raise ValueError(
                f"`last_epoch` must be >= `first_epoch` ({first}), received {last}: the method would never act."
            )

    def passes(self, modalities: int) -> Passes:
        """Return what one step costs with so many modalities, averaged over the run."""
        return Passes()

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Return the model to train, with heads or teachers added; before it is wrapped and has an optimizer.

        Raises:
            ValueError: if the method is not defined for such a model: saying what is.
        """
        return model

    def stage(self, run: Run, k: int) -> Stage | None:
        """Return the k-th stage of training, None when there is no more; pure in `k` and `run.state`.

        Things with a `state_dict` are put into `run.state` here, at `k = 0`, if they are not there yet: a run that is gone
        on with asks for stage 0, loads what was saved into them, and then asks for the stage it was in. Stages are also
        asked for ahead, to know how long the run is.

        Raises:
            ValueError: if the run ends before `first_epoch`, where a method has such a window.
        """
        first = getattr(self, "first_epoch", 1)
        if first > run.epochs:
            raise ValueError(
                f"`first_epoch` must be <= the epochs of the run ({run.epochs}), received {first}: the method would "
                "never act."
            )
        return Stage(run.epochs) if k == 0 else None

    def stage_begin(self, run: Run) -> None:
        """Prepare stage `run.stage`; called once, before its first epoch and before it has an optimizer of its own."""

    def stage_end(self, run: Run) -> None:
        """Conclude stage `run.stage`; called once, after its last epoch."""

    def rate(self, run: Run, group: Mapping[str, Any]) -> float:
        """Return the factor on the scheduled learning rate of a parameter group (with its role and modality).

        Asked for at the begin of every epoch; pure in `run.state`.
        """
        return 1.0

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
