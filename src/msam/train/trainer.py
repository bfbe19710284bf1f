"""The training loop, once. It knows methods, rules and optimizers by what they do, never by their names."""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from msam.data import Dataset, Split
from msam.data._loaders import batches, in_chunks, in_epoch, part_of, shuffled
from msam.methods import Run, Stage
from msam.record import Writer
from msam.train import checkpoint, parts
from msam.train.config import RunConfig
from msam.train.engine import Engine
from msam.train.header import header, weights_digest
from msam.train.metrics import evaluate, unsound_input
from msam.train.passes import Counter, samples
from msam.train.position import Position
from msam.train.progress import Watcher
from msam.train.step import NotFinite, Stepper
from msam.train.summary import means, told
from msam.types import Batch

RECORD, CHECKPOINT = "record.jsonl", "checkpoint.pt"


class Trainer:
    """One run: its parts, where it stands, and the step.

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
        self._stage(0)
        self.counter = Counter.of(self.run)

    def go(self, writer: Writer, saved: Mapping[str, Any] | None = None) -> None:
        """Train to the end, from the start or from a checkpoint.

        Raises:
            ValueError: if the loss is no longer finite.
            OSError: if record or checkpoint cannot be written.
        """
        self.writer = writer
        if saved is None:
            writer.write("header", **header(self.config, self.dataset, self.network))
            self._save()
        else:
            self._restore(saved)
        if self.watcher:
            self.watcher.started(self.config.run_name(), self._planned_steps(), self.at.step)
        try:
            self._stages()
        finally:
            if self.watcher:
                self.watcher.finished()

    def _stages(self) -> None:
        while (stage := self._stage(self.at.stage)) is not None:
            self._begin(stage)
            while self.at.stage_epoch < stage.epochs:
                self._epoch(stage)
            self.at.stage, self.at.stage_epoch = self.at.stage + 1, 0
        self._end("finished")

    def _planned_steps(self) -> int:
        steps, k = 0, 0
        while (stage := self._stage(k)) is not None:
            steps, k = steps + stage.epochs * len(self._order(stage.part)), k + 1
        return steps

    def _stage(self, k: int) -> Stage | None:
        """Ask for a stage; what it draws at random leaves no trace, so that a resumed run may ask again."""
        with torch.random.fork_rng(devices=[self.engine.device] if self.engine.device.type == "cuda" else []):
            return self.method.stage(self.run, k)

    def _begin(self, stage: Stage) -> None:
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
        order = self._order(stage.part)
        self.run.epoch = at.epoch + 1
        scheduled = self._set_rates()
        for module in (*self.network.encoders.values(), *self.network.heads.values(), self.network.fusion):
            module.train(_trains(module))
        train = in_epoch(self.dataset.train, seed=self.config.seed, epoch=at.epoch + 1)
        for batch in batches(train, order[at.batch :]):
            self._step(self._prepared(batch))
            at.batch += 1
            every = self.config.checkpoint_every
            if every and at.step % every == 0 and at.batch < len(order):
                at.seconds += time.perf_counter() - began
                began = time.perf_counter()
                self._save()
        line: dict[str, Any] = {
            "epoch": at.epoch + 1,
            "step": at.step,
            "loss": sum(at.losses) / len(at.losses),
            "lr": scheduled,
            **({"auxiliary": True} if stage.auxiliary else {}),
            **({"means": means(at.steps, self.network.modalities)} if at.steps else {}),
            **{name: self._measures(name, split) for name, split in self._splits()},
        }
        self.method.epoch_end(self.run, line["valid"])
        if at.stage_epoch + 1 == stage.epochs:
            self.method.stage_end(self.run)
        at.seconds += time.perf_counter() - began
        at.epoch, at.stage_epoch, at.scheduled = at.epoch + 1, at.stage_epoch + 1, at.scheduled + 1
        at.batch, at.losses, at.steps = 0, [], []
        self.writer.write("epoch", **line, seconds=at.seconds)
        self._save()
        if self.watcher:
            self.watcher.measured(line)

    def _step(self, batch: Batch) -> None:
        began, before = time.perf_counter(), self.counter.cost
        run, rule, at = self.run, self.rule, self.at
        at.step += 1
        every = self.config.record_every
        recorded = every > 0 and (at.step - 1) % every == 0
        run.begin_step(at.step)
        self.optimizer.zero_grad()
        with self.counter.counting(samples(batch)):
            try:
                output, shares = self.stepper.step(rule, batch)
            except NotFinite as found:
                self._refuse(batch, str(found))
        if recorded and shares is None:
            shares = self.stepper.contributions(output, batch)
        self.optimizer.step()
        at.losses.append(self.stepper.loss)
        at.stepping += time.perf_counter() - began
        at.passes += self.counter.cost - before
        share = rule.last["share"] if rule else None
        if recorded and shares is not None:
            self._write_step(shares)
        elif not every and rule is not None:
            at.steps.append(told(rule.last, shares))
        if self.watcher:
            self.watcher.stepped(self.stepper.loss, share)

    def _write_step(self, shares: torch.Tensor) -> None:
        values, last = shares.tolist(), self.rule.last if self.rule else {}
        self.writer.write(
            "step",
            step=self.at.step,
            epoch=self.run.epoch,
            loss=self.stepper.loss,
            contributions=[round(v, 6) for v in values],
            dominant=self.network.modalities[values.index(max(values))],
            share=last.get("share"),
            radius=last.get("radius"),
            **({"method": dict(self.run.notes)} if self.run.notes else {}),
        )

    def _refuse(self, batch: Batch, what: str) -> NoReturn:
        """Say why the loss is not finite: the data, or the training."""
        unsound = unsound_input(batch)
        if unsound:
            raise ValueError(f"{unsound} at step {self.at.step} (epoch {self.run.epoch}). Clean the data.")
        self._diverged(what)

    def _diverged(self, what: str) -> NoReturn:
        self._end("diverged")
        raise ValueError(
            f"{what} at step {self.at.step} (epoch {self.run.epoch}): the run has diverged. Lower `optimizer.lr` or "
            "`sharpness.rho`. The record holds the steps before."
        )

    def _end(self, status: str) -> None:
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
            self.network, split, value=self.config.contributions, absent=self.config.absent, prepare=self._prepared
        )
        if not math.isfinite(measured["nll"]):
            self._diverged(f"The NLL of the {name} split is {measured['nll']}")
        return measured

    def _splits(self) -> Iterator[tuple[str, Split]]:
        yield from (("train", self.dataset.train), ("valid", self.dataset.valid), ("test", self.dataset.test))

    def _prepared(self, batch: Batch) -> Batch:
        """Bring a batch to the device; `present` has one column for each modality of the model, which may have fewer."""
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
        return map(self._prepared, batches(train, order))

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

    def _save(self) -> None:
        self.writer.sync()
        checkpoint.save(
            self.folder / CHECKPOINT,
            {
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
            },
        )

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


def _trains(module: nn.Module) -> bool:
    """Tell whether any parameter of a module trains; one without parameters does."""
    flags = [p.requires_grad for p in module.parameters()]
    return any(flags) or not flags
