"""Every line of a record reaches a logger once, however often and wherever it is read."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msam.loggers._ledger import FOLDER
from msam.loggers._session import Session
from tests.loggers._lines import header, lines
from tests.loggers.ear import Ear, heard


def told(folder, made, kind=Ear, **options):
    """Give lines to a session of their own, and return how many were new."""
    session = Session(kind, folder, **options)
    try:
        session.take(made)
    finally:
        session.close()
    return session.logged


def test_a_run_begins_is_logged_and_ends(tmp_path):
    assert told(tmp_path, lines()) == 10
    calls = [line["call"] for line in heard(tmp_path)]
    assert calls == ["begin", *["log"] * 9, "end", "flush", "close"]
    assert [line["step"] for line in heard(tmp_path, "log")] == [1, 2, 3, 3, 4, 5, 6, 6, 6]
    assert heard(tmp_path, "end")[0]["status"] == "finished"


def test_times_are_the_records_start_and_the_seconds_of_its_epochs(tmp_path):
    told(tmp_path, lines())
    began = 1772600767.0
    assert [line["time"] - began for line in heard(tmp_path, "log")] == [0, 0, 0, 0, 10, 10, 10, 10, 21]
    assert heard(tmp_path, "end")[0]["time"] - began == 21


def test_lines_that_are_logged_are_not_logged_again(tmp_path):
    told(tmp_path, lines())
    before = heard(tmp_path)
    assert told(tmp_path, lines()) == 0
    assert heard(tmp_path) == before


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), max_size=4))
def test_each_line_once_however_the_record_was_killed_cut_and_gone_on_with(tmp_path_factory, kills):
    """A kill leaves so many lines; the resumed run keeps some of them, and writes some more."""
    folder, made, written = tmp_path_factory.mktemp("logs"), lines(steps=4), 0
    for back, more in [*kills, (0, len(made))]:
        kept = max(written - back, 0)
        written = min(kept + more, len(made))
        session = Session(Ear, folder)
        session.take(made[:kept])
        session.take(made[kept:written])
        session.close()
    logged = heard(folder, "log")
    assert [(line["step"], "epoch" in line["values"]) for line in logged] == [
        (k, e) for first in (0, 4) for k, e in [*((first + i, False) for i in range(1, 5)), (first + 4, True)]
    ] + [(8, False)]
    assert len(heard(folder, "end")) == 1


def test_a_run_that_is_gone_on_with_gets_back_what_it_was_to_remember(tmp_path):
    told(tmp_path, lines()[:4])
    told(tmp_path, lines())
    first, second = heard(tmp_path, "begin")
    assert first["memory"] == {}
    assert second["memory"] == {"calls": 5}


def test_a_run_of_the_same_name_that_started_at_another_time_is_logged_beside_it(tmp_path):
    other = lines(started="2026-03-04T07:00:00+01:00")
    assert told(tmp_path, lines()) == told(tmp_path, other) == 10
    assert {line["name"] for line in heard(tmp_path, "begin")} == {"run", "run-20260304T060000"}
    assert told(tmp_path, lines()) == told(tmp_path, other) == 0


def test_a_logger_that_no_longer_has_the_run_is_told_all_of_it_again(tmp_path, monkeypatch):
    told(tmp_path, lines())
    monkeypatch.setattr(Ear, "knows", lambda self, memory: False)
    assert told(tmp_path, lines()) == 10
    assert [line["memory"] for line in heard(tmp_path, "begin")] == [{}, {}]


def test_lines_that_a_logger_failed_at_are_given_to_it_again(tmp_path, monkeypatch):
    told(tmp_path, lines()[:4])
    monkeypatch.setattr(Ear, "fails_at", "end")
    with pytest.raises(RuntimeError, match="no end today"):
        told(tmp_path, lines())
    monkeypatch.setattr(Ear, "fails_at", "")
    assert told(tmp_path, lines()) == 6


def test_test_measures_are_logged_of_a_whole_run_or_not_at_all(tmp_path):
    told(tmp_path, lines()[:4])
    with pytest.raises(ValueError, match="without test measures and was asked for with"):
        told(tmp_path, lines(), with_test=True)
    assert told(tmp_path, lines()) == 6
    assert not any(name.startswith("test/") for line in heard(tmp_path, "log") for name in line["values"])
    assert told(tmp_path / "with", lines(), with_test=True) == 10
    assert any("test/accuracy" in line["values"] for line in heard(tmp_path / "with", "log"))
    with pytest.raises(ValueError, match="with test measures and was asked for without"):
        told(tmp_path / "with", lines())


def test_two_at_once_do_not_log_one_run(tmp_path):
    session = Session(Ear, tmp_path)
    session.take(lines()[:2])
    with pytest.raises(ValueError, match="Another process is logging run run"):
        told(tmp_path, lines())
    assert told(tmp_path, lines("other")) == 10
    session.close()
    assert told(tmp_path, lines()) == 8


def test_what_does_not_begin_with_a_header_is_refused(tmp_path):
    with pytest.raises(ValueError, match="first line of a record must be of kind 'header', found 'step'"):
        told(tmp_path, lines()[1:])
    assert heard(tmp_path) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"lines": 3}', '{"other": 1}'])
def test_a_damaged_ledger_is_named_and_not_written_over(tmp_path, content):
    told(tmp_path, lines()[:4])
    ledger = tmp_path / FOLDER / "run.json"
    ledger.write_text(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged .* Delete it to have the run logged anew"):
        told(tmp_path, lines())
    assert ledger.read_text() == content
    ledger.unlink()
    assert told(tmp_path, lines()) == 10


def test_the_ledger_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    told(tmp_path, lines()[:4])
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        told(tmp_path, lines())
    assert json.loads((tmp_path / FOLDER / "run.json").read_text())["lines"] == 4
    assert {file.name for file in (tmp_path / FOLDER).iterdir()} <= {"run.json", "run.lock"}


def test_a_run_that_does_not_say_when_it_started_is_known_by_its_name(tmp_path):
    without = [header("run", started=None), *lines()[1:]]
    assert told(tmp_path, without) == 10
    assert told(tmp_path, without) == 0
