"""The training loop, once. It knows methods, rules and optimizers by what they do, never by their names."""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from msam.data import Dataset, Split
from msam.data._loaders import batches, in_chunks, in_epoch, part_of, shuffled
from msam.methods import Run, Stage
from msam.record import Writer
from msam.train import checkpoint, parts, probes
from msam.train.config import RunConfig
from msam.train.engine import Engine
from msam.train.header import header, weights_digest
from msam.train.metrics import evaluate, unsound_input, unsound_target
from msam.train.passes import Counter, samples
from msam.train.position import Position
from msam.train.progress import Watcher
from msam.train.step import NotFinite, Stepper
from msam.train.summary import means, step_line, told
from msam.types import Batch

RECORD, CHECKPOINT = "record.jsonl", "checkpoint.pt"


class Diverged(ValueError):
    """The loss is no longer finite; the record's end says so."""


class Trainer:
    """One run: its parts, where it stands, and the step.

    `go` is the whole of it. What it is made of serves whoever trains several runs side by side: `open`, `begin`, then for
    every epoch `begin_epoch`, `noted` for every step, `end_epoch`, `save`; at last `end`.

    Arguments:
        config: what to train.
        folder: where checkpoints go.
        watcher: is told of every step and epoch.
        dataset: the configuration's, where it is loaded already.
    """

    def __init__(
        self, config: RunConfig, folder: Path, watcher: Watcher | None = None, dataset: Dataset | None = None
    ) -> None:
        self.config, self.folder, self.watcher = config, folder, watcher
        self.dataset = dataset or parts.dataset(config)
        self.task = parts.task(self.dataset)
        self.engine = Engine(config.accelerator, config.precision, config.threads)
        torch.manual_seed(config.seed)
        self.method = parts.method(config)
        self.network = parts.model(config, self.dataset)
        self.schedule = parts.schedule(config)
        self.at = Position()
        self.stepper = Stepper(self.method, config, self.engine)
        self.run = Run(
            model=self.engine.setup_model(self.network),
            network=self.network,
            optimizer=self._new_optimizer(),
            epochs=config.epochs,
            num_classes=self.dataset.num_classes,
            generator=torch.Generator().manual_seed(config.seed),
            backward=self.stepper.backward,
            train_batches=self._train_batches,
        )
        self.stepper.run = self.run
        self.stage(0)
        self.counter = Counter.of(self.run)

    def go(self, writer: Writer, saved: Mapping[str, Any] | None = None) -> None:
        """Train to the end, from the start or from a checkpoint.

        Raises:
            Diverged: if the loss is no longer finite.
            ValueError: if the data are not.
            OSError: if record or checkpoint cannot be written.
        """
        self.open(writer, saved)
        if self.watcher:
            self.watcher.started(self.config.run_name(), self._planned_steps(), self.at.step)
        try:
            self._stages()
        finally:
            if self.watcher:
                self.watcher.finished()

    def open(self, writer: Writer, saved: Mapping[str, Any] | None = None, lanes: int = 1) -> None:
        """Begin the record and save the start, or stand where a checkpoint was made; `lanes` is for the header."""
        self.writer = writer
        if saved is None:
            writer.write("header", **header(self.config, self.dataset, self.network, lanes))
            self.save()
        else:
            self._restore(saved)

    def _stages(self) -> None:
        if not self.at.step:
            self._probe("epoch")
        while (stage := self.stage(self.at.stage)) is not None:
            self.begin(stage)
            while self.at.stage_epoch < stage.epochs:
                self._epoch(stage)
            self.at.stage, self.at.stage_epoch = self.at.stage + 1, 0
        self._probe("end")
        self.end("finished")

    def _planned_steps(self) -> int:
        steps, k = 0, 0
        while (stage := self.stage(k)) is not None:
            steps, k = steps + stage.epochs * len(self._order(stage.part)), k + 1
        return steps

    def stage(self, k: int) -> Stage | None:
        """Ask for a stage; what it draws at random leaves no trace, so that a resumed run may ask again."""
        with torch.random.fork_rng(devices=[self.engine.device] if self.engine.device.type == "cuda" else []):
            return self.method.stage(self.run, k)

    def begin(self, stage: Stage) -> None:
        """Freeze what does not train; if the stage has not begun yet, let the method prepare it, and grant its wishes."""
        self.run.stage, self.run.epoch, self.run.step = self.at.stage, self.at.epoch + 1, self.at.step
        fresh = self.at.stage_epoch == 0 and self.at.batch == 0
        if fresh:
            self.method.stage_begin(self.run)
        for group in self.network.parameter_groups():
            for parameter in group["params"]:
                parameter.requires_grad_(stage.trains(group))
        if fresh and stage.new_optimizer:
            self.run.optimizer = self._new_optimizer()
        if fresh and stage.schedule_from is not None:
            self.at.scheduled = stage.schedule_from

    def _set_rates(self) -> float:
        """Set every group's learning rate by the schedule and the method; return the schedule's factor on the first."""
        factor = self.schedule(self.at.scheduled)
        for group in self.run.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor * self.method.rate(self.run, group)
        return self.run.optimizer.param_groups[0]["initial_lr"] * factor

    def _epoch(self, stage: Stage) -> None:
        at, began = self.at, time.perf_counter()
        order = self.begin_epoch(stage)
        train = in_epoch(self.dataset.train, seed=self.config.seed, epoch=at.epoch + 1)
        for batch in batches(train, order[at.batch :]):
            self._step(self.prepared(batch))
            at.batch += 1
            every = self.config.checkpoint_every
            if every and at.step % every == 0 and at.batch < len(order):
                at.seconds += time.perf_counter() - began
                began = time.perf_counter()
                self.save()
        line = self.measured(stage)
        at.seconds += time.perf_counter() - began
        self.end_epoch(line)
        self._probe("epoch")
        self.save()
        if self.watcher:
            self.watcher.measured(line)

    def begin_epoch(self, stage: Stage) -> list[list[int]]:
        """Set learning rates, and modules to training; return the batches of the epoch as lists of sample numbers."""
        self.run.epoch = self.at.epoch + 1
        self.scheduled = self._set_rates()
        for module in (*self.network.encoders.values(), *self.network.heads.values(), self.network.fusion):
            module.train(parts.trains(module))
        return self._order(stage.part)

    def measured(self, stage: Stage) -> dict[str, Any]:
        """Return the epoch's line, its measures taken, and let the method conclude the epoch.

        Raises:
            Diverged: if the NLL of a split is no longer finite.
        """
        at = self.at
        line: dict[str, Any] = {
            "epoch": at.epoch + 1,
            "step": at.step,
            "loss": sum(at.losses) / len(at.losses),
            "lr": self.scheduled,
            **({"auxiliary": True} if stage.auxiliary else {}),
            **({"means": means(at.steps, self.network.modalities)} if at.steps else {}),
            **{name: self._measures(name, getattr(self.dataset, name)) for name in ("train", "valid", "test")},
        }
        self.method.epoch_end(self.run, line["valid"])
        if at.stage_epoch + 1 == stage.epochs:
            self.method.stage_end(self.run)
        return line

    def end_epoch(self, line: Mapping[str, Any]) -> None:
        """Write the epoch's line and stand at the begin of the next."""
        at = self.at
        at.epoch, at.stage_epoch, at.scheduled = at.epoch + 1, at.stage_epoch + 1, at.scheduled + 1
        at.batch, at.losses, at.steps = 0, [], []
        self.writer.write("epoch", **line, seconds=at.seconds)

    def _step(self, batch: Batch) -> None:
        began, before = time.perf_counter(), self.counter.cost
        self.at.step += 1
        self.run.begin_step(self.at.step)
        self.optimizer.zero_grad()
        with self.counter.counting(samples(batch)):
            try:
                output, shares = self.stepper.step(self.rule, batch)
            except NotFinite as found:
                self.refuse(batch, str(found))
        if self.recorded and shares is None:
            shares = self.stepper.contributions(output, batch)
        self.optimizer.step()
        self.noted(self.stepper.loss, shares, time.perf_counter() - began, self.counter.cost - before)

    @property
    def recorded(self) -> bool:
        """Whether the current step has a line of its own in the record."""
        every = self.config.record_every
        return every > 0 and (self.at.step - 1) % every == 0

    def noted(self, loss: float, shares: torch.Tensor | None, seconds: float, passes: float) -> None:
        """Take note of a step that is done: its loss, contributions `(M,)` where they are known, and what it took."""
        at, rule = self.at, self.rule
        at.losses.append(loss)
        at.stepping += seconds
        at.passes += passes
        if self.recorded and shares is not None:
            self._write_step(loss, shares)
        elif not self.config.record_every and rule is not None:
            at.steps.append(told(rule.last, shares))
        if self.watcher:
            self.watcher.stepped(loss, rule.last["share"] if rule else None)

    def _write_step(self, loss: float, shares: torch.Tensor) -> None:
        last, notes = self.rule.last if self.rule else {}, dict(self.run.notes)
        told_ = step_line(loss, shares.tolist(), self.network.modalities, last, notes)
        self.writer.write("step", step=self.at.step, epoch=self.run.epoch, **told_)

    def refuse(self, batch: Batch, what: str) -> NoReturn:
        """Say why the loss is not finite.

        Raises:
            ValueError: if it is the data.
            Diverged: if it is the training.
        """
        unsound = unsound_input(batch) or unsound_target(batch)
        if unsound:
            raise ValueError(f"{unsound} at step {self.at.step} (epoch {self.run.epoch}). Clean the data.")
        self._diverged(what)

    def _diverged(self, what: str) -> NoReturn:
        self.end("diverged")
        raise Diverged(
            f"{what} at step {self.at.step} (epoch {self.run.epoch}): the run has diverged. Lower `optimizer.lr` or "
            "`sharpness.rho`. The record holds the steps before."
        )

    def end(self, status: str) -> None:
        """Write the end of the record, "finished" or "diverged"."""
        at = self.at
        self.writer.write(
            "end",
            status=status,
            epochs=at.epoch,
            steps=at.step,
            seconds=at.seconds,
            seconds_per_step=at.stepping / max(at.step, 1),
            passes_per_step=round(at.passes / max(at.step, 1), 6),
            weights=weights_digest(self.network),
        )
        self.writer.sync()

    def _measures(self, name: str, split: Split) -> dict[str, Any]:
        measured = evaluate(
            self.network,
            split,
            value=self.config.contributions,
            absent=self.config.absent,
            task=self.task.name,
            prepare=self.prepared,
        )
        if not math.isfinite(measured["nll"]):
            self._diverged(f"The NLL of the {name} split is {measured['nll']}")
        return measured

    def _probe(self, when: probes.When) -> None:
        """Write what the probes find that are due."""
        for found in probes.lines(when, self.config, self.network, self.dataset.train, self.prepared):
            self.writer.write("probe", epoch=self.at.epoch, step=self.at.step, **found)

    def prepared(self, batch: Batch) -> Batch:
        """Bring a batch to the device: the target in its task's type, in `present` a column for each of our modalities."""
        batch = batch._replace(target=self.task.whole(self.task.canonical(batch.target)))
        if batch.present is not None and self.network.modalities != self.dataset.modalities:
            columns = [self.dataset.modalities.index(name) for name in self.network.modalities]
            batch = batch._replace(present=batch.present[:, columns])
        return self.engine.to_device(batch)

    def _order(self, part: tuple[float, float]) -> list[list[int]]:
        config, train = self.config, self.dataset.train
        return shuffled(train, config.batch_size, seed=config.seed, epoch=self.at.epoch, part=part)

    def _train_batches(self, start: float, stop: float) -> Iterator[Batch]:
        train = self.dataset.train
        order = in_chunks(part_of(len(train), start, stop, seed=self.config.seed), self.config.batch_size)
        return map(self.prepared, batches(train, order))

    def _new_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer, and the rule that is bound to it."""
        made = parts.optimizer(self.config, self.network)
        for group in made.param_groups:
            group["initial_lr"] = group["lr"]
        self.optimizer = self.engine.setup_optimizer(made)
        self.rule = parts.rule(self.config, made, self.network)
        if self.rule is not None:
            parts.whole_step(self.rule, self.method)  # refuses a pair that cannot be, before anything is written
        return made

    def save(self) -> None:
        """Write a checkpoint; the record up to it is on disk before."""
        self.writer.sync()
        checkpoint.save(self.folder / CHECKPOINT, self.state())

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; tensors are those that train, not copies."""
        return {
            "config": self.config.model_dump(),
            "record": self.writer.position,
            "at": vars(self.at),
            "model": self.network.state_dict(),
            "optimizer": self.run.optimizer.state_dict(),
            "rule": self.rule.state_dict() if self.rule else None,
            "state": checkpoint.packed(self.run.state),
            "generator": self.run.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.at = Position(**saved["at"])
        self.network.load_state_dict(saved["model"])
        self.run.optimizer.load_state_dict(saved["optimizer"])
        if self.rule:
            self.rule.load_state_dict(saved["rule"])
        checkpoint.unpack(self.run.state, saved["state"])
        self.run.generator.set_state(saved["generator"])
        torch.set_rng_state(saved["torch"])
        if saved["cuda"]:
            torch.cuda.set_rng_state_all(saved["cuda"])
