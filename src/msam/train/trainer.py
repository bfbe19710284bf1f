"""The training loop, once. It knows methods, rules and optimizers by what they do, never by their names."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from msam import shapley
from msam.data import Split
from msam.data._loaders import batches, shuffled
from msam.methods import Run, Stage
from msam.record import Writer
from msam.train import checkpoint, parts
from msam.train.config import RunConfig
from msam.train.engine import Engine
from msam.train.header import header, weights_digest
from msam.train.metrics import evaluate, unsound_input
from msam.train.progress import Watcher
from msam.types import Batch, Output

RECORD, CHECKPOINT = "record.jsonl", "checkpoint.pt"


@dataclass
class Position:
    """Where a run stands: all that a checkpoint needs beside the states of its parts."""

    stage: int = 0
    stage_epoch: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    stepping: float = 0.0
    backwards: int = 0


class Trainer:
    """One run: its parts, where it stands, and the step.

    Arguments:
        config: what to train.
        folder: where checkpoints go.
        watcher: is told of every step and epoch.
    """

    def __init__(self, config: RunConfig, folder: Path, watcher: Watcher | None = None) -> None:
        self.config, self.folder, self.watcher = config, folder, watcher
        self.dataset = parts.dataset(config)
        self.engine = Engine(config.accelerator, config.precision, config.threads)
        torch.manual_seed(config.seed)
        self.method = parts.method(config)
        self.network = parts.model(config, self.dataset)
        self.at = Position()
        self.run = Run(
            model=self.engine.setup_model(self.network),
            network=self.network,
            optimizer=self._new_optimizer(),
            epochs=config.epochs,
            num_classes=self.dataset.num_classes,
            generator=torch.Generator().manual_seed(config.seed),
            backward=self._backward,
            train_batches=self._train_batches,
        )
        self.loss = self.nearby_loss = 0.0

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
            self.watcher.started(self.config.run_name(), self.config.epochs * len(self._order()), self.at.step)
        try:
            self._stages()
        finally:
            if self.watcher:
                self.watcher.finished()

    def _stages(self) -> None:
        while (stage := self._stage(self.at.stage)) is not None:
            self._begin(stage)
            while self.at.stage_epoch < stage.epochs:
                self._epoch()
            self.at.stage, self.at.stage_epoch = self.at.stage + 1, 0
        self._end("finished")

    def _stage(self, k: int) -> Stage | None:
        """Ask for a stage; what it draws at random leaves no trace, so that a resumed run may ask again."""
        with torch.random.fork_rng(devices=[self.engine.device] if self.engine.device.type == "cuda" else []):
            return self.method.stage(self.run, k)

    def _begin(self, stage: Stage) -> None:
        """Freeze what does not train; a fresh optimizer if the stage asks for one and has not begun."""
        for group in self.network.parameter_groups():
            for parameter in group["params"]:
                parameter.requires_grad_(stage.trains(group))
        if stage.new_optimizer and self.at.stage_epoch == 0 and self.at.batch == 0:
            self.run.optimizer = self._new_optimizer()

    def _epoch(self) -> None:
        at, began = self.at, time.perf_counter()
        order = self._order()
        self.run.epoch = at.epoch + 1
        self.network.train()
        for batch in batches(self.dataset.train, order[at.batch :]):
            self._step(self._prepared(batch))
            at.batch += 1
            every = self.config.checkpoint_every
            if every and at.step % every == 0 and at.batch < len(order):
                at.seconds += time.perf_counter() - began
                began = time.perf_counter()
                self._save()
        line = {
            "epoch": at.epoch + 1,
            "step": at.step,
            "loss": sum(at.losses) / len(at.losses),
            "lr": self.run.optimizer.param_groups[0]["lr"],
            **{name: self._measures(name, split) for name, split in self._splits()},
        }
        self.method.epoch_end(self.run, line["valid"])
        self.schedule.step()
        at.seconds += time.perf_counter() - began
        at.epoch, at.stage_epoch, at.batch, at.losses = at.epoch + 1, at.stage_epoch + 1, 0, []
        self.writer.write("epoch", **line, seconds=at.seconds)
        self._save()
        if self.watcher:
            self.watcher.measured(line)

    def _step(self, batch: Batch) -> None:
        began, backwards = time.perf_counter(), self.engine.backwards
        run, rule, at = self.run, self.rule, self.at
        at.step += 1
        recorded = (at.step - 1) % self.config.record_every == 0
        run.step, run.perturbed = at.step, False
        self.optimizer.zero_grad()
        self.loss = self.nearby_loss = 0.0
        output = self.method.gradients(run, batch)
        if not math.isfinite(self.loss):
            self._refuse(batch)
        wanted = recorded or (rule is not None and rule.uses_contributions)
        shares = self._contributions(output, batch) if wanted else None
        if rule is not None:
            with rule.perturbed(shares) as climbing:
                if climbing:
                    run.perturbed = True
                    self.method.gradients(run, batch)
            run.perturbed = False
            if not math.isfinite(self.nearby_loss):
                self._diverged(f"The loss at the perturbed weights is {self.nearby_loss}")
        self.optimizer.step()
        at.losses.append(self.loss)
        at.stepping += time.perf_counter() - began
        at.backwards += self.engine.backwards - backwards
        share = rule.last["share"] if rule else None
        if recorded and shares is not None:
            values = shares.tolist()
            self.writer.write(
                "step",
                step=at.step,
                epoch=run.epoch,
                loss=self.loss,
                contributions=[round(v, 6) for v in values],
                dominant=self.network.modalities[values.index(max(values))],
                share=share,
                radius=rule.last["radius"] if rule else None,
            )
        if self.watcher:
            self.watcher.stepped(self.loss, share)

    def _contributions(self, output: Output, batch: Batch) -> torch.Tensor:
        given = output.features if self.config.absent == "feature" else batch.inputs
        logits = shapley.coalition_logits(self.network, given, absent=self.config.absent)
        return shapley.contributions(logits, batch.target, self.config.contributions)

    def _refuse(self, batch: Batch) -> NoReturn:
        """Say why the loss is not finite: the data, or the training."""
        unsound = unsound_input(batch)
        if unsound:
            raise ValueError(f"{unsound} at step {self.at.step} (epoch {self.run.epoch}). Clean the data.")
        self._diverged(f"The loss is {self.loss}")

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
            passes_per_step=at.backwards / max(at.step, 1),
            weights=weights_digest(self.network),
        )
        self.writer.sync()

    def _backward(self, loss: torch.Tensor) -> None:
        if self.run.perturbed:
            self.nearby_loss += float(loss.detach())
        else:
            self.loss += float(loss.detach())
        self.engine.backward(loss)

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

    def _order(self) -> list[list[int]]:
        return shuffled(self.dataset.train, self.config.batch_size, seed=self.config.seed, epoch=self.at.epoch)

    def _train_batches(self, fraction: float) -> Iterator[Batch]:
        order = shuffled(self.dataset.train, self.config.batch_size, seed=self.config.seed + 1, epoch=self.at.epoch)
        part = order[: max(1, math.ceil(fraction * len(order)))]
        return map(self._prepared, batches(self.dataset.train, part))

    def _new_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer, with the rule and the schedule that are bound to it."""
        made = parts.optimizer(self.config, self.network)
        self.optimizer = self.engine.setup_optimizer(made)
        self.schedule = parts.schedule(self.config, made)
        self.rule = parts.rule(self.config, made, self.network)
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
                "schedule": self.schedule.last_epoch,
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
        self.schedule.last_epoch = saved["schedule"]
        if self.rule:
            self.rule.load_state_dict(saved["rule"])
        self._stage(0)
        checkpoint.unpack(self.run.state, saved["state"])
        self.run.generator.set_state(saved["generator"])
        torch.set_rng_state(saved["torch"])
        if saved["cuda"]:
            torch.cuda.set_rng_state_all(saved["cuda"])
