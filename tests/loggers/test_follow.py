"""A run that is followed: what loggers hear, and that the run does not hear of them."""

import threading
import time

import pytest

from msam import record
from msam.loggers import Follower, _follow, replay
from msam.train import train
from tests.loggers._lines import EAR, lines, written
from tests.loggers.ear import Ear, heard
from tests.train._runs import MSAM, StopAt, settings

STEPS = 8
RUN = {"sharpness": MSAM, "checkpoint_every": 3}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(_follow, "LOOK", 0.01)


def followed(folder, out, *, watcher=None, resume=False, say=pytest.fail, **options):
    with Follower([EAR], out, say=say, **options) as follower:
        return train(settings(**RUN), folder, resume=resume, watcher=watcher, listeners=[follower])


def logged(out):
    return heard(out / EAR, "log", "end")


def test_what_is_logged_live_equals_what_is_logged_afterwards(tmp_path):
    followed(tmp_path / "run", tmp_path / "live", with_test=True)
    replay(tmp_path / "run", to=[EAR], out=tmp_path / "after", with_test=True, quiet=True)
    assert logged(tmp_path / "live") == logged(tmp_path / "after")
    assert len(logged(tmp_path / "live")) == STEPS + 2 + 2


def test_lines_are_logged_while_the_run_goes_on(tmp_path):
    class Waits(StopAt):
        def stepped(self, loss, share):
            super(StopAt, self).stepped(loss, share)
            until = time.monotonic() + 20
            while len(logged(tmp_path / "logs")) < sum(kind == "stepped" for kind, _ in self.heard) - 1:
                assert time.monotonic() < until, "the logger does not follow"
                time.sleep(0.01)

    followed(tmp_path / "run", tmp_path / "logs", watcher=Waits(0))


def test_the_record_is_that_of_a_run_that_nobody_followed(tmp_path):
    alone = train(settings(**RUN), tmp_path / "alone")
    seen = followed(tmp_path / "seen", tmp_path / "logs")
    assert record.without_volatile(seen.steps + seen.epochs) == record.without_volatile(alone.steps + alone.epochs)
    assert seen.end["weights"] == alone.end["weights"]


@pytest.mark.parametrize("stop", [1, 2, 5, 8])
def test_a_run_that_is_killed_and_resumed_has_each_line_logged_once(tmp_path, stop):
    with pytest.raises(KeyboardInterrupt):
        followed(tmp_path / "run", tmp_path / "logs", watcher=StopAt(stop))
    before = len(logged(tmp_path / "logs"))
    assert before == stop + (stop > 4)
    followed(tmp_path / "run", tmp_path / "logs", resume=True)
    replay(tmp_path / "run", to=[EAR], out=tmp_path / "whole", quiet=True)
    live, whole = ([(line["call"], line.get("step")) for line in logged(tmp_path / out)] for out in ("logs", "whole"))
    assert live == whole
    values = [
        [{k: v for k, v in line["values"].items() if "seconds" not in k} for line in heard(tmp_path / out / EAR, "log")]
        for out in ("logs", "whole")
    ]
    assert values[0] == values[1]


@pytest.mark.parametrize("call", ["begin", "log", "flush", "end", "close"])
def test_a_logger_that_fails_is_named_once_and_the_run_goes_on(tmp_path, monkeypatch, call):
    monkeypatch.setattr(Ear, "fails_at", call)
    said = []
    done = followed(tmp_path / "run", tmp_path / "logs", say=said.append)
    assert done.end["status"] == "finished"
    (message,) = said
    assert f"Logger {EAR} has failed: no {call} today. The run is not affected" in message
    assert (
        f"`msam log {tmp_path / 'run' / 'record.jsonl'} --to {EAR} --out {tmp_path / 'logs'}` logs the rest" in message
    )


def test_by_default_it_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Ear, "fails_at", "begin")
    with pytest.warns(UserWarning, match="no begin today"), Follower([EAR], tmp_path / "logs") as follower:
        train(settings(**RUN), tmp_path / "run", listeners=[follower])


def test_a_slow_logger_does_not_hold_up_the_writing_of_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(Ear, "seconds", 0.05)
    with Follower([EAR], tmp_path / "logs", say=pytest.fail) as follower:
        writer = record.Writer(tmp_path / "run.jsonl", listeners=[follower])
        began = time.monotonic()
        for line in lines(steps=20, epochs=1):
            writer.write(line["kind"], **{k: v for k, v in line.items() if k != "kind"})
        writer.close()
        took = time.monotonic() - began
    assert took < 0.05 * 22
    assert len(logged(tmp_path / "logs")) == 23


def test_a_logger_that_hangs_is_waited_for_no_longer_than_patience_lasts(tmp_path, monkeypatch):
    monkeypatch.setattr(_follow, "PATIENCE", 0.1)
    release, said = threading.Event(), []
    monkeypatch.setattr(Ear, "begin", lambda self, run, memory: release.wait(30) and self.missing)
    try:
        followed(tmp_path / "run", tmp_path / "logs", say=said.append)
        assert "not done 0.1 seconds after the run" in said[0]
    finally:
        release.set()
        for thread in threading.enumerate():
            if thread.name == EAR:
                thread.join()


def test_one_that_fails_does_not_keep_the_others_from_theirs(tmp_path, monkeypatch):
    said = []
    (tmp_path / "lab").mkdir()
    source = "from tests.loggers import ear\n\n\nclass Other(ear.Ear):\n    fails_at = 'log'\n"
    (tmp_path / "lab" / "other.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with Follower(["lab.other", EAR], tmp_path / "logs", say=said.append) as follower:
        train(settings(**RUN), tmp_path / "run", listeners=[follower])
    assert len(said) == 1
    assert "Logger lab.other" in said[0]
    assert len(logged(tmp_path / "logs")) == STEPS + 4


def test_a_finished_run_is_not_opened_again(tmp_path):
    train(settings(**RUN), tmp_path / "run")
    with Follower([EAR], tmp_path / "logs", say=pytest.fail) as follower:
        train(settings(**RUN), tmp_path / "run", resume=True, listeners=[follower])
    assert not follower.heard


def test_without_a_logger_or_with_one_that_is_not_known_nothing_begins(tmp_path):
    with pytest.raises(ValueError, match="Name at least one logger: mlflow, tensorboard, trackio, wandb"):
        Follower([], tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'tensorboard'"):
        Follower(["tensorbord"], tmp_path)


def test_a_record_that_was_written_elsewhere_may_be_followed_too(tmp_path):
    path = written(tmp_path / "run.jsonl", lines()[:3])
    with Follower([EAR], tmp_path / "logs", say=pytest.fail) as follower:
        follower.opened(path, path.stat().st_size)
    assert len(logged(tmp_path / "logs")) == 2
