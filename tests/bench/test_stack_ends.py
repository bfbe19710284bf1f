"""Lanes that end: finished, diverged, killed; the others do not notice."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from msam.bench import _stack, stack
from msam.bench._datasets import kept
from msam.bench.stack import train_together
from msam.data import TensorSplit
from msam.record import read
from msam.train import train
from msam.train.trainer import Trainer
from tests.bench.stacks import Interrupted, lines, seeds, stopped_in_its_second_epoch

SCRIPT = Path(__file__).parent / "kill_a_stack.py"


def weights(folder):
    return read(folder / "record.jsonl").end["weights"]


def places(folder, count):
    return [folder / str(i) for i in range(count)]


def poisoned(monkeypatch, seed):
    """Have the run of a seed begin with weights that overflow in its first steps."""
    opened = Trainer.open

    def open_(self, *arguments):
        opened(self, *arguments)
        if self.config.seed == seed:
            with torch.no_grad():
                next(self.network.parameters()).fill_(torch.inf)

    monkeypatch.setattr(Trainer, "open", open_)


@pytest.mark.parametrize("rule", ["none", "msam"])
def test_a_lane_that_diverges_ends_and_touches_no_other(rule, monkeypatch, tmp_path):
    configs = seeds(3, sharpness=rule)
    train_together(configs, places(tmp_path / "sound", 3))
    poisoned(monkeypatch, seed=1)
    train_together(configs, places(tmp_path / "poisoned", 3))
    diverged = read(tmp_path / "poisoned" / "1" / "record.jsonl")
    assert (diverged.end["status"], diverged.end["steps"], diverged.epochs) == ("diverged", 1, [])
    for lane in (0, 2):
        sound, other = tmp_path / "sound" / str(lane), tmp_path / "poisoned" / str(lane)
        assert lines(sound) == lines(other)
        assert weights(sound) == weights(other)


def test_it_diverges_where_it_does_alone(tmp_path):
    configs = seeds(2, optimizer={"lr": 1e6}, epochs=3, sharpness="sam", precision="32-true")
    train_together(configs, places(tmp_path, 2))
    for lane, settings in enumerate(configs):
        with pytest.raises(ValueError, match="diverged"):
            train(settings, tmp_path / f"alone{lane}")
        mine, theirs = (read(tmp_path / name / "record.jsonl").end for name in (str(lane), f"alone{lane}"))
        assert (mine["status"], mine["steps"]) == (theirs["status"], theirs["steps"])


def test_a_lane_that_has_ended_is_let_be(monkeypatch, tmp_path):
    configs = seeds(3, epochs=1)
    train_together(configs, places(tmp_path / "whole", 3))
    shutil.copytree(tmp_path / "whole" / "1", tmp_path / "rest" / "1")
    before = (tmp_path / "rest" / "1" / "record.jsonl").stat().st_mtime_ns
    train_together(configs, places(tmp_path / "rest", 3))
    assert (tmp_path / "rest" / "1" / "record.jsonl").stat().st_mtime_ns == before
    assert [weights(tmp_path / "rest" / str(i)) for i in range(3)] == [
        weights(tmp_path / "whole" / str(i)) for i in range(3)
    ]


def test_what_one_process_began_alone_a_stack_goes_on_with(monkeypatch, tmp_path):
    configs = seeds(2, epochs=3)
    train_together(configs, places(tmp_path / "whole", 2))

    def interrupted(self, line, ended=Trainer.end_epoch):
        ended(self, line)
        if self.at.epoch == 2:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "end_epoch", interrupted)
        with pytest.raises(Interrupted):
            train(configs[0], tmp_path / "mixed" / "0")
    train_together(configs, places(tmp_path / "mixed", 2))
    for lane in range(2):
        assert weights(tmp_path / "mixed" / str(lane))
        assert len(read(tmp_path / "mixed" / str(lane) / "record.jsonl").epochs) == 3
    assert weights(tmp_path / "mixed" / "1") == weights(tmp_path / "whole" / "1")


@pytest.mark.parametrize("moment", range(1, 12, 2))
def test_a_stack_that_is_interrupted_at_any_write_goes_on(moment, monkeypatch, tmp_path):
    configs = seeds(3, epochs=3, sharpness="msam", precision="32-true")
    train_together(configs, places(tmp_path / "undisturbed", 3))
    monkeypatch.setattr(_stack, "CHECKPOINT_SECONDS", 0.0)
    left = [moment + 3]  # the first three are the checkpoints that runs begin with
    replace = os.replace

    def counted(source, target):
        left[0] -= 1
        if not left[0]:
            raise Interrupted
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted)
        with pytest.raises(Interrupted):
            train_together(configs, places(tmp_path / "interrupted", 3))
    train_together(configs, places(tmp_path / "interrupted", 3))
    for lane in range(3):
        whole, mended = tmp_path / "undisturbed" / str(lane), tmp_path / "interrupted" / str(lane)
        assert lines(whole) == lines(mended)
        assert weights(whole) == weights(mended)
        assert {f.name for f in mended.iterdir()} == {"record.jsonl", "checkpoint.pt"}


@pytest.mark.parametrize("rate", [0.05, 1e300])
def test_runs_with_other_numbers_of_samples_are_trained_one_by_one(rate, monkeypatch, tmp_path):
    def shorter(settings):
        found = kept(settings)
        train = found.train[range(100 + settings.seed)]
        return replace(found, train=TensorSplit(train.inputs, train.target))

    monkeypatch.setattr(stack, "kept", shorter)
    configs = seeds(2, optimizer={"lr": rate})
    for _ in range(2):  # the second time there is nothing to do
        train_together(configs, places(tmp_path, 2))
    for seed, folder in enumerate(places(tmp_path, 2)):
        record = read(folder / "record.jsonl")
        assert record.end["status"] == ("finished" if rate < 1 else "diverged")
        assert record.header["data"]["sizes"]["train"] == 100 + seed
        assert "lanes" not in record.header["host"]


@pytest.fixture
def left(monkeypatch, tmp_path):
    """Two runs of three epochs, interrupted in the second: checkpoints are those of the first."""
    configs = seeds(2, epochs=3)
    with stopped_in_its_second_epoch(monkeypatch):
        train_together(configs, places(tmp_path, 2))
    return configs, places(tmp_path, 2)


def test_a_lane_of_a_stack_that_was_interrupted_can_be_gone_on_with_alone(left):
    configs, folders = left
    assert len(train(configs[0], folders[0], resume=True).epochs) == 3


def test_what_a_stack_left_behind_replaces_nothing_that_came_later(left):
    configs, folders = left
    shutil.copy(folders[0] / "checkpoint.pt", folders[0] / _stack.NEXT)
    train(configs[0], folders[0], resume=True)
    train_together(configs, folders)
    for folder in folders:
        assert torch.load(folder / "checkpoint.pt", weights_only=True)["at"]["epoch"] == 3
        assert read(folder / "record.jsonl").end["status"] == "finished"


def test_a_stack_that_is_killed_goes_on_and_gives_the_same_records(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    killed = [int(status) for status in done.stdout.split()]
    assert killed.count(signal.SIGKILL) >= 3
    assert killed[-1] == 0
    for lane in range(3):
        whole, mended = tmp_path / "undisturbed" / str(lane), tmp_path / "killed" / str(lane)
        assert lines(whole) == lines(mended)
        assert weights(whole) == weights(mended)
