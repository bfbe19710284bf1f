"""The training loop, once. It knows methods, rules and optimizers by what they do, never by their names."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from msam import data, methods, models, shapley, sharpness
from msam.data._loaders import Dataset, batches, shuffled
from msam.methods import Method, Run, Stage
from msam.record import Record, Writer, read
from msam.sharpness import Sharpness
from msam.train import checkpoint
from msam.train.config import RunConfig
from msam.train.engine import Engine
from msam.train.header import header, weights_digest
from msam.train.metrics import evaluate
from msam.train.optimizers import OPTIMIZERS, scheduler
from msam.types import Batch, Output

RECORD, CHECKPOINT = "record.jsonl", "checkpoint.pt"


class Watcher(Protocol):
    """Whoever wants to see a run go by."""

    def started(self, name: str, steps: int, done: int) -> None:
        """A run of `steps` steps begins, `done` of them already behind it."""

    def stepped(self, loss: float, share: float | None) -> None:
        """One step is done."""

    def measured(self, line: Mapping[str, Any]) -> None:
        """An epoch is done; `line` is its line in the record."""

    def finished(self) -> None:
        """The run is over, well or not."""


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


def train(config: RunConfig, folder: str | Path, *, resume: bool = False, watcher: Watcher | None = None) -> Record:
    """Train one run and return its record, which lies in `folder/record.jsonl` beside `folder/checkpoint.pt`.

    Seeds torch's global generator with `config.seed`. An interrupted run goes on with `resume=True` from its last
    checkpoint, bit for bit: the final weights and the record (time and host aside) are those of an undisturbed run.

    Arguments:
        config: what to train, from `msam.train.config.config`.
        folder: made if it does not exist.
        resume: go on with the run in `folder` if there is one; a finished one is returned as it is.
        watcher: is told of every step and epoch.

    Raises:
        FileExistsError: if `folder` holds a run and `resume` is False.
        ValueError: if the checkpoint is damaged or of another configuration, or the loss is no longer finite.
        OSError: if record or checkpoint cannot be written; what was there is intact.
    """
    folder = Path(folder)
    saved = _saved(folder, config, resume=resume)
    if saved is not None and saved["finished"]:
        return read(folder / RECORD)
    folder.mkdir(parents=True, exist_ok=True)
    if saved is None:
        (folder / RECORD).unlink(missing_ok=True)
    trainer = _Trainer(config, folder, watcher)
    with closing(Writer(folder / RECORD, keep=saved["record"] if saved else None)) as writer:
        trainer.go(writer, saved)
    return read(folder / RECORD)


def load_model(folder: str | Path) -> models.MultimodalModel:
    """Return the model of a run's checkpoint, in evaluation mode.

    Raises:
        FileNotFoundError: if there is no checkpoint in `folder`.
        ValueError: if it is damaged.
    """
    from msam.train.config import config as checked

    saved = checkpoint.load(Path(folder) / CHECKPOINT)
    config = checked(saved["config"])
    dataset = _dataset(config)
    network = _method(config).build(_network(config, dataset), dataset.num_classes)
    network.load_state_dict(saved["model"])
    return network.eval()


class _Trainer:
    def __init__(self, config: RunConfig, folder: Path, watcher: Watcher | None) -> None:
        self.config, self.folder, self.watcher = config, folder, watcher
        self.dataset = _dataset(config)
        self.engine = Engine(config.accelerator, config.precision, config.threads)
        torch.manual_seed(config.seed)
        self.method = _method(config)
        network = self.method.build(_network(config, self.dataset), self.dataset.num_classes)
        self.network = network
        model = self.engine.setup_model(network)
        self.at = Position()
        self.run = Run(
            model=model,
            network=network,
            optimizer=self._new_optimizer(),
            epochs=config.epochs,
            num_classes=self.dataset.num_classes,
            generator=torch.Generator().manual_seed(config.seed),
            backward=self._backward,
            train_batches=self._train_batches,
        )
        self.loss = math.nan

    def go(self, writer: Writer, saved: Mapping[str, Any] | None) -> None:
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
        while (stage := self.method.stage(self.run, self.at.stage)) is not None:
            self._begin(stage)
            while self.at.stage_epoch < stage.epochs:
                self._epoch()
            self.at.stage, self.at.stage_epoch = self.at.stage + 1, 0
        at = self.at
        self.writer.write(
            "end",
            status="finished",
            epochs=at.epoch,
            steps=at.step,
            seconds=at.seconds,
            seconds_per_step=at.stepping / max(at.step, 1),
            passes_per_step=at.backwards / max(at.step, 1),
            weights=weights_digest(self.network),
        )
        self._save(finished=True)

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
        for index, batch in zip(order[at.batch :], batches(self.dataset.train, order[at.batch :]), strict=True):
            self._step(self.engine.to_device(batch))
            at.batch += 1
            every = self.config.checkpoint_every
            if every and at.step % every == 0 and at.batch < len(order):
                at.seconds += time.perf_counter() - began
                began = time.perf_counter()
                self._save()
            del index
        line = {
            "epoch": at.epoch + 1,
            "step": at.step,
            "loss": sum(at.losses) / len(at.losses),
            "lr": self.run.optimizer.param_groups[0]["lr"],
            **{name: self._measures(split) for name, split in self._splits()},
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
        self.loss = 0.0
        output = self.method.gradients(run, batch)
        self._refuse_non_finite(batch)
        at.losses.append(self.loss)
        wanted = recorded or (rule is not None and rule.uses_contributions)
        shares = self._contributions(output, batch) if wanted else None
        if rule is not None:
            with rule.perturbed(shares) as climbing:
                if climbing:
                    run.perturbed = True
                    self.method.gradients(run, batch)
            run.perturbed = False
        self.optimizer.step()
        at.stepping += time.perf_counter() - began
        at.backwards += self.engine.backwards - backwards
        share = rule.last["share"] if rule else None
        if recorded and shares is not None:
            values = shares.tolist()
            self.writer.write(
                "step",
                step=at.step,
                epoch=run.epoch,
                loss=at.losses[-1],
                contributions=[round(v, 6) for v in values],
                dominant=self.network.modalities[values.index(max(values))],
                share=share,
                radius=rule.last["radius"] if rule else None,
            )
        if self.watcher:
            self.watcher.stepped(at.losses[-1], share)

    def _contributions(self, output: Output, batch: Batch) -> torch.Tensor:
        given = output.features if self.config.absent == "feature" else batch.inputs
        logits = shapley.coalition_logits(self.network, given, absent=self.config.absent)
        return shapley.contributions(logits, batch.target, self.config.contributions)

    def _refuse_non_finite(self, batch: Batch) -> None:
        if math.isfinite(self.loss):
            return
        where = f"at step {self.at.step} (epoch {self.run.epoch})"
        for name, value in batch.inputs.items():
            bad = int((~torch.isfinite(value)).sum()) if value.is_floating_point() else 0
            if bad:
                raise ValueError(f"Input {name!r} holds {bad} values that are NaN or infinite {where}. Clean the data.")
        raise ValueError(
            f"The loss is {self.loss} {where}: the run has diverged. Lower `optimizer.lr` or `sharpness.rho`. "
            "The record holds the steps before."
        )

    def _backward(self, loss: torch.Tensor) -> None:
        if not self.run.perturbed:
            self.loss += float(loss.detach())
        self.engine.backward(loss)

    def _measures(self, split: data.Split) -> dict[str, Any]:
        return evaluate(
            self.network,
            split,
            value=self.config.contributions,
            absent=self.config.absent,
            to_device=self.engine.to_device,
        )

    def _splits(self) -> Iterator[tuple[str, data.Split]]:
        yield from (("train", self.dataset.train), ("valid", self.dataset.valid), ("test", self.dataset.test))

    def _order(self) -> list[list[int]]:
        return shuffled(self.dataset.train, self.config.batch_size, seed=self.config.seed, epoch=self.at.epoch)

    def _train_batches(self, fraction: float) -> Iterator[Batch]:
        order = shuffled(self.dataset.train, self.config.batch_size, seed=self.config.seed + 1, epoch=self.at.epoch)
        part = order[: max(1, math.ceil(fraction * len(order)))]
        return map(self.engine.to_device, batches(self.dataset.train, part))

    def _new_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer, with the rule and the schedule that are bound to it."""
        config = self.config
        made = OPTIMIZERS[config.optimizer["name"]](self.network.parameter_groups(), **_options(config.optimizer))
        self.optimizer = self.engine.setup_optimizer(made)
        self.schedule = scheduler(made, config.schedule["name"], epochs=config.epochs, **_options(config.schedule))
        self.rule: Sharpness | None = None
        if config.sharpness:
            rule: Any = sharpness.load(config.sharpness["name"])
            self.rule = rule(made, model=self.network, **_options(config.sharpness))
        return made

    def _save(self, *, finished: bool = False) -> None:
        self.writer.sync()
        checkpoint.save(
            self.folder / CHECKPOINT,
            {
                "config": self.config.model_dump(),
                "finished": finished,
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
        checkpoint.unpack(self.run.state, saved["state"])
        self.run.generator.set_state(saved["generator"])
        torch.set_rng_state(saved["torch"])
        if saved["cuda"]:
            torch.cuda.set_rng_state_all(saved["cuda"])


def _saved(folder: Path, config: RunConfig, *, resume: bool) -> dict[str, Any] | None:
    """Return the checkpoint to go on from, or None to start; nothing on disk is changed."""
    exists = (folder / RECORD).exists() or (folder / CHECKPOINT).exists()
    if exists and not resume:
        raise FileExistsError(
            f"{folder} holds a run already. Go on with --resume, or choose another folder with --out."
        )
    if not (folder / CHECKPOINT).exists() or not (folder / RECORD).exists():
        return None
    saved = checkpoint.load(folder / CHECKPOINT)
    lines = checkpoint.differing(config.model_dump(), saved["config"])
    if lines:
        raise ValueError(
            f"The checkpoint in {folder} is of another configuration (asked for != found): {'; '.join(lines)}. "
            "Resume with the same configuration, or choose another folder with --out."
        )
    return saved


def _options(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "name"}


def _dataset(config: RunConfig) -> Dataset:
    return data.load(config.data["name"])(**_options(config.data))


def _method(config: RunConfig) -> Method:
    return methods.load(config.method["name"])(**_options(config.method))


def _network(config: RunConfig, dataset: Dataset) -> models.MultimodalModel:
    return models.build(
        dataset.encoders, dataset.shapes, dataset.num_classes, config.fusion["name"], **_options(config.fusion)
    )
