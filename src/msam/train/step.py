"""The gradients of one step: the method makes them, the sharpness rule asks for them again."""

import math
from contextlib import nullcontext
from typing import Literal, NamedTuple

from torch import Tensor

from msam import shapley
from msam.methods import Method, Run
from msam.sharpness import Sharpness
from msam.train import parts
from msam.train.config import RunConfig
from msam.train.engine import Engine
from msam.types import Batch, Output


class NotFinite(Exception):
    """A loss is no finite number; the message says which."""


class Made(NamedTuple):
    """What a step made beside the gradients.

    Attributes:
        output: of the first pass.
        shares: contributions `(M,)`, where the rule asked for them.
    """

    output: Output
    shares: Tensor | None


class Stepper:
    """Makes the gradients of a step, first pass and later ones.

    Arguments:
        method: makes gradients.
        config: says how contributions are measured.
        engine: runs backward passes.

    Attributes:
        loss: of the first pass of the current step.
        nearby: of its later passes.
    """

    def __init__(self, method: Method, config: RunConfig, engine: Engine) -> None:
        self.method, self.config, self.engine = method, config, engine
        self.run: Run
        self.loss = self.nearby = 0.0

    def backward(self, loss: Tensor, retain_graph: bool = False) -> None:
        """Run a backward pass and add its loss to those of the step; it is what methods call."""
        if self.run.perturbed:
            self.nearby += float(loss.detach())
        else:
            self.loss += float(loss.detach())
        self.engine.backward(loss, retain_graph)

    def step(self, rule: Sharpness | None, batch: Batch) -> Made:
        """Leave the gradients of a step in `.grad`.

        Raises:
            NotFinite: if a loss is no finite number.
        """
        self.loss = self.nearby = 0.0
        whole = rule is not None and parts.whole_step(rule, self.method)
        made = self._whole(rule, batch) if rule is not None and whole else self._in_passes(rule, batch)
        self.run.perturbed = False
        if not math.isfinite(self.nearby):
            raise NotFinite(f"The loss at the perturbed weights is {self.nearby}")
        return made

    def contributions(self, output: Output, batch: Batch, reduction: Literal["batch", "none"] = "batch") -> Tensor:
        """Return the contributions of a batch, `(M,)`, or of its samples, `(M, N)`."""
        network = self.run.network
        given = output.features if self.config.absent == "feature" else batch.inputs
        logits = shapley.coalition_logits(network, given, absent=self.config.absent)
        return shapley.contributions(logits, batch.target, self.config.contributions, reduction)

    def _in_passes(self, rule: Sharpness | None, batch: Batch) -> Made:
        """Have the method make the gradients, and make them again wherever the rule climbs to."""
        run = self.run

        def again() -> None:
            run.perturbed = True
            self.method.gradients(run, batch)

        with rule.replayable() if rule else nullcontext():
            output = self.method.gradients(run, batch)
            self._check_first()
            shares = self.contributions(output, batch) if rule and rule.wants_contributions else None
            if rule is not None:
                rule.complete(again, shares)
        return Made(output, shares)

    def _whole(self, rule: Sharpness, batch: Batch) -> Made:
        """Have the rule run all passes: it looks at the samples' losses, or runs some encoders once."""
        run = self.run
        heard: list[Tensor] = []

        def losses(output: Output) -> Tensor:
            run.perturbed = rule.slots.taken
            loss = self.method.loss(run, output, batch)
            return loss if output.extra_loss is None else loss + output.extra_loss

        def contributions(output: Output) -> Tensor:
            heard.append(self.contributions(output, batch, "none" if rule.by_sample else "batch"))
            return heard[0]

        output: Output = rule.backward(
            run.model,
            batch.inputs,
            losses,
            contributions if rule.wants_contributions else None,
            present=batch.present,
            target=batch.target,
            backward=self.backward,
        )
        self._check_first()
        shares = heard[0] if heard else None
        return Made(output, shares.mean(1) if shares is not None and shares.dim() == 2 else shares)

    def _check_first(self) -> None:
        if not math.isfinite(self.loss):
            raise NotFinite(f"The loss is {self.loss}")
