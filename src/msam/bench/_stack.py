"""Runs side by side: each keeps its own trainer, record and checkpoint; what costs is done once for all of them."""

import copy
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from msam.bench._lanes import Lanes, Passed
from msam.bench._spender import Spender
from msam.data._loaders import in_epoch
from msam.methods import Method, Run, Stage
from msam.models import MultimodalModel
from msam.shapley import coalitions, normalised
from msam.sharpness import Sharpness
from msam.sharpness._rows import blended, climbed, climbs, done, intended
from msam.train import checkpoint
from msam.train.trainer import CHECKPOINT, Diverged, Trainer
from msam.types import Batch, Output

NEXT = "checkpoint.next.pt"
"""A lane's checkpoint until those of all lanes are written; then all are renamed."""

CHECKPOINT_SECONDS = 10.0
"""Seconds between checkpoints, which are made at the end of an epoch."""


class Stack:
    """Runs of one configuration but for seeds, trained as one.

    Every lane is a `Trainer` whose weights are views of the stack's: it takes its measures, writes its record and describes
    itself in a checkpoint as it does alone. A lane that diverges ends and leaves the others be; its row goes on being
    computed, for nothing, so that the arithmetic of the others stays what it was.

    Arguments:
        trainers: the lanes, opened, at the begin of the same epoch; None for one that has ended before.
        random: the state of torch's generator that each lane would have alone.
        pattern: a model of their architecture, for its code.
    """

    def __init__(self, trainers: Sequence[Trainer | None], random: Sequence[Tensor], pattern: MultimodalModel) -> None:
        self.slots, self.random = list(trainers), random
        lead = self.lead
        self.run = Run(
            model=pattern.train(),
            network=pattern,
            optimizer=lead.run.optimizer,
            epochs=lead.config.epochs,
            num_classes=lead.dataset.num_classes,
            generator=torch.Generator(),
            backward=lead.run.backward,
            train_batches=lead.run.train_batches,
        )
        networks = [trainer.network if trainer else copy.deepcopy(pattern) for trainer in trainers]
        self.lanes = Lanes(networks, pattern, lead.method, self.run, lead.config)
        self.spender = Spender(lead.config, self.lanes)
        self.spender.gather([trainer.run.optimizer if trainer else None for trainer in trainers])
        self.cost = lead.method.passes(len(pattern.modalities)).cost
        self.measuring = len(coalitions(len(pattern.modalities))) / 3 if lead.config.absent == "input" else 0.0
        self.modulates = type(lead.method).modulate is not Method.modulate
        self.saved = time.monotonic()

    @property
    def lead(self) -> Trainer:
        """The first lane that goes on; all are where it is."""
        return next(trainer for trainer in self.slots if trainer is not None)

    def alive(self) -> Iterator[tuple[int, Trainer]]:
        """Yield the lanes that go on, and their rows."""
        yield from ((row, trainer) for row, trainer in enumerate(self.slots) if trainer is not None)

    def go(self) -> None:
        """Train all lanes to their ends.

        Raises:
            ValueError: if the data are not finite.
            OSError: if a record or a checkpoint cannot be written.
        """
        stage = self.lead.stage(0)
        assert stage is not None
        for _, trainer in self.alive():
            trainer.begin(stage)
        while any(self.alive()) and self.lead.at.stage_epoch < stage.epochs:
            self._epoch(stage)
        for _, trainer in self.alive():
            trainer.at.stage, trainer.at.stage_epoch = trainer.at.stage + 1, 0
            trainer.end("finished")

    def _epoch(self, stage: Stage) -> None:
        began = time.perf_counter()
        orders = {row: trainer.begin_epoch(stage) for row, trainer in self.alive()}
        self.run.epoch = self.lead.run.epoch
        self.spender.set_rate(self.lead.run.optimizer)
        whole, start = self._data(orders), 0
        for size in map(len, next(iter(orders.values()))):
            if any(self.alive()):
                self._step(_rows(whole, slice(start, start + size)))
            start += size
        each = (time.perf_counter() - began) / len(self.slots)
        for row, trainer in self.alive():
            began = time.perf_counter()
            try:
                line = trainer.measured(stage)
            except Diverged:
                self.slots[row] = None
                continue
            trainer.at.seconds += each + time.perf_counter() - began
            trainer.end_epoch(line)
        if any(self.alive()):
            self._save(at_once=self.lead.at.stage_epoch == stage.epochs)

    def _data(self, orders: dict[int, list[list[int]]]) -> Batch:
        """Return the samples of an epoch in the order of each lane, `(S, n, ...)`."""
        batches = []
        for row, trainer in enumerate(self.slots):
            trainer, order = (trainer, orders[row]) if trainer else (self.lead, next(iter(orders.values())))
            train = in_epoch(trainer.dataset.train, seed=trainer.config.seed, epoch=trainer.at.epoch + 1)
            batches.append(trainer.prepared(train[[sample for batch in order for sample in batch]]))
        inputs = {name: torch.stack([batch.inputs[name] for batch in batches]) for name in self.run.modalities}
        return Batch(inputs, torch.stack([batch.target for batch in batches]))

    def _step(self, batch: Batch) -> None:
        began = time.perf_counter()
        for _, trainer in self.alive():
            trainer.at.step += 1
            trainer.run.begin_step(trainer.at.step)
        lead = self.lead
        self.run.begin_step(lead.at.step)
        wanted = lead.rule is not None and lead.rule.wants_contributions
        first = self.lanes.passed(batch, measure=wanted or lead.recorded)
        losses = first.losses.tolist()
        self._refuse(batch, losses, "The loss is {}")
        self._modulate(batch, first)
        shares = None if first.worth is None else normalised(first.worth.T).T
        spent, twice = first.gradients, torch.zeros(len(self.slots), dtype=torch.bool)
        if lead.rule is not None and any(self.alive()):
            spent, twice = self._twice(batch, first, shares if wanted else None)
        self.spender.spend(spent)
        seconds = (time.perf_counter() - began) / len(self.slots)
        for row, trainer in self.alive():
            passes = self.cost * (1 + int(twice[row])) + wanted * self.measuring
            trainer.noted(losses[row], None if shares is None else shares[row], seconds, passes)

    def _twice(self, batch: Batch, first: Passed, contributions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Climb, run the pass again, come back; return what is spent, and which lanes climbed."""
        weights, rows = self.lanes.weights, len(self.slots)
        heard = [None] * rows if contributions is None else contributions.tolist()
        shares, radii = [0.0] * rows, [0.0] * rows
        for row, trainer in self.alive():
            shares[row], radii[row] = intended(_rule(trainer), heard[row])
        there, factors = climbs(first.gradients, weights.new_tensor(radii))
        spent = first.gradients
        if there.any():
            with torch.no_grad():
                before = weights.clone()
                weights.copy_(climbed(before, spent, factors))
            second = self.lanes.passed(batch, again=True)
            self._modulate(batch, second, again=True)
            with torch.no_grad():
                weights.copy_(before)
            nearby = torch.where(there, second.losses, 0.0)
            self._refuse(batch, nearby.tolist(), "The loss at the perturbed weights is {}")
            spent = blended(spent, second.gradients, weights.new_tensor(shares), there)
        for row, trainer in self.alive():
            done(_rule(trainer), shares[row], radii[row] if there[row] else 0.0)
        return spent, there

    def _modulate(self, batch: Batch, made: Passed, *, again: bool = False) -> None:
        """Have the method change the gradients of each lane, where it does."""
        if not self.modulates:
            return
        for row, trainer in self.alive():
            trainer.run.perturbed = again
            output = Output(made.output.logits[row], {n: value[row] for n, value in made.output.features.items()})
            with self.lanes.as_gradients(row, made.gradients[row]):
                trainer.method.modulate(trainer.run, output, _lane(batch, row))
            trainer.run.perturbed = False

    def _refuse(self, batch: Batch, losses: Sequence[float], what: str) -> None:
        """End the lanes whose loss is no finite number; the weights are those before the step."""
        for row, trainer in self.alive():
            if not math.isfinite(losses[row]):
                try:
                    trainer.refuse(_lane(batch, row), what.format(losses[row]))
                except Diverged:
                    self.slots[row] = None

    def _save(self, *, at_once: bool) -> None:
        """Write the checkpoints of all lanes; they become the valid ones together, once all of them are written."""
        if not at_once and time.monotonic() - self.saved < CHECKPOINT_SECONDS:
            return
        self.spender.scatter([trainer.run.optimizer if trainer else None for trainer in self.slots])
        for row, trainer in self.alive():
            trainer.writer.sync()
            state = trainer.state()
            own: dict[str, Any] = {"model": {name: value.clone() for name, value in state["model"].items()}}
            checkpoint.save(trainer.folder / NEXT, {**state, **own, "torch": self.random[row]})
        for _, trainer in self.alive():
            os.replace(trainer.folder / NEXT, trainer.folder / CHECKPOINT)
        self.saved = time.monotonic()


def _lane(batch: Batch, row: int) -> Batch:
    return Batch({name: value[row] for name, value in batch.inputs.items()}, batch.target[row])


def _rows(batch: Batch, chosen: slice) -> Batch:
    return Batch({name: value[:, chosen] for name, value in batch.inputs.items()}, batch.target[:, chosen])


def _rule(trainer: Trainer) -> Sharpness:
    assert trainer.rule is not None
    return trainer.rule
