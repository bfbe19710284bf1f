"""This machine: workers stay for the next map, and never outlive who started them."""

import signal

import pytest

from msam.bench.engines import load
from tests.bench.engines import _tasks
from tests.bench.engines._processes import lives, until, with_an_endless_task


def workers_of(engine):
    return {process for _, process in engine.map(_tasks.process, range(4))}


def test_workers_stay_for_the_next_map():
    engine = load("local")(workers=1)
    assert workers_of(engine) == workers_of(engine)


def test_other_folders_and_import_paths_get_other_workers(tmp_path, monkeypatch):
    engine = load("local")(workers=1)
    before = workers_of(engine)
    monkeypatch.syspath_prepend(tmp_path)
    assert not before & workers_of(engine)


def test_a_worker_that_died_while_it_had_nothing_to_do_is_replaced(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    engine = load("local")(workers=1)
    (process,) = workers_of(engine)
    _tasks.kill(process)
    until(lambda: not lives(process))
    assert process not in workers_of(engine)


def test_a_worker_that_has_grown_makes_place_for_another_and_no_task_is_begun_again():
    pytest.importorskip("psutil")  # with which loky looks
    found = [process for _, process in load("local")(workers=1, retries=0).map(_tasks.grow, [1, 350, 1])]
    assert found[0] == found[1] != found[2]


def test_workers_end_with_a_process_that_is_killed(tmp_path):
    _, worker = with_an_endless_task(tmp_path, "local", end=signal.SIGKILL)
    until(lambda: not lives(worker))


def test_ctrl_c_ends_the_workers_at_once(tmp_path):
    said, worker = with_an_endless_task(tmp_path, "local", end=signal.SIGINT)
    assert "KeyboardInterrupt" in said
    assert not lives(worker)
