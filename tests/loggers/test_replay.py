"""Records logged afterwards: thousands with one command, each line once, and what is damaged is named."""

import gzip
import json
import subprocess
import sys

import pytest

from msam import record
from msam.loggers import Logger, Replayed, load, names, replay
from msam.loggers._find import find
from tests.loggers._lines import EAR, lines, written
from tests.loggers.ear import Ear, heard


def logged(tmp_path, *paths, **options):
    return replay(*(paths or (tmp_path / "runs",)), to=[EAR], out=tmp_path / "logs", quiet=True, **options)[EAR]


def runs(tmp_path, count, **more):
    return [written(tmp_path / "runs" / f"{k}" / "record.jsonl", lines(f"run{k}", **more)) for k in range(count)]


def test_all_records_of_a_folder_are_logged_and_the_same_command_again_logs_none(tmp_path):
    runs(tmp_path, 3)
    assert logged(tmp_path) == Replayed(3, 0, "")
    assert {line["name"] for line in heard(tmp_path / "logs" / EAR, "begin")} == {"run0", "run1", "run2"}
    before = heard(tmp_path / "logs" / EAR)
    assert logged(tmp_path) == Replayed(0, 3, "")
    assert heard(tmp_path / "logs" / EAR) == before


def test_what_has_come_since_is_logged_and_no_more(tmp_path):
    runs(tmp_path, 1)
    written(tmp_path / "runs" / "late.jsonl", lines("late", status=None)[:4])
    assert logged(tmp_path) == Replayed(2, 0, "")
    (tmp_path / "runs" / "late.jsonl").unlink()
    written(tmp_path / "runs" / "late.jsonl", lines("late"))
    assert logged(tmp_path) == Replayed(1, 1, "")
    assert len(heard(tmp_path / "logs" / EAR, "log", run="late")) == 9


def test_a_filed_record_is_the_record(tmp_path):
    (path,) = runs(tmp_path, 1)
    record.file(path, tmp_path / "filed" / "run0.jsonl.gz")
    assert logged(tmp_path, tmp_path / "filed") == Replayed(1, 0, "")
    assert logged(tmp_path, path) == Replayed(0, 1, "")
    assert len(heard(tmp_path / "logs" / EAR, "log")) == 9


def test_lines_of_kinds_that_are_not_known_are_let_be(tmp_path):
    made = lines()
    written(tmp_path / "runs" / "run.jsonl", [*made[:2], {"kind": "news", "step": 1, "value": 3.0}, *made[2:]])
    assert logged(tmp_path) == Replayed(1, 0, "")
    assert len(heard(tmp_path / "logs" / EAR, "log")) == 9


def test_a_damaged_record_is_named_and_the_others_are_logged(tmp_path):
    paths = runs(tmp_path, 4)
    paths[1].write_bytes(b'{"kind":"header"\n')
    paths[2].write_bytes(paths[2].read_bytes().replace(b'"step":2,', b'"step":2', 1))
    (tmp_path / "runs" / "z.jsonl.gz").write_bytes(gzip.compress(b"{}\n")[:-4])
    with pytest.raises(ValueError, match="could not be logged; all others are") as told:
        logged(tmp_path)
    assert [name in str(told.value) for name in ("runs/0/", "runs/1/", "runs/2/", "runs/3/", "z.jsonl.gz")] == [
        False,
        True,
        True,
        False,
        True,
    ]
    assert {line["name"] for line in heard(tmp_path / "logs" / EAR, "begin")} == {"run0", "run3"}


def test_a_damaged_record_is_not_logged_by_half(tmp_path):
    (path,) = runs(tmp_path, 1)
    path.write_bytes(path.read_bytes() + b"no json\n")
    with pytest.raises(ValueError, match="is not JSON"):
        logged(tmp_path)
    assert heard(tmp_path / "logs" / EAR) == []


def test_a_tool_that_fails_three_times_in_a_row_is_not_tried_any_more(tmp_path, monkeypatch):
    runs(tmp_path, 6)
    monkeypatch.setattr(Ear, "fails_at", "begin")
    with pytest.raises(ValueError, match="no begin today") as told:
        logged(tmp_path)
    assert str(told.value).count("no begin today") == 3
    assert "3 more: not tried, as the last 3 failed" in str(told.value)
    monkeypatch.setattr(Ear, "fails_at", "")
    assert logged(tmp_path) == Replayed(6, 0, "")


def test_nothing_to_log_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="No file or folder"):
        logged(tmp_path)


def test_hidden_folders_are_left_out(tmp_path):
    written(tmp_path / "runs" / ".work" / "record.jsonl", lines("under-way"))
    runs(tmp_path, 1)
    assert logged(tmp_path) == Replayed(1, 0, "")


class TestNames:
    def test_the_folder_is_the_registry(self):
        assert names() == ["mlflow", "tensorboard", "trackio", "wandb"]

    def test_a_module_of_ones_own_is_a_logger(self):
        assert load(EAR) is Ear

    def test_a_package_that_is_not_installed_is_named_with_its_extra(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"'wandb' needs the package wandb.*pip install 'msam\[wandb\]'"):
            load("wandb")

    def test_every_logger_says_what_it_needs_and_how_to_look(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.delenv("TRACKIO_DIR", raising=False)
        for name in names():
            kind = find(name)
            assert issubclass(kind, Logger)
            assert (kind.package, kind.extra) == (name, name)
            assert str(tmp_path) in kind.look(tmp_path)


def test_no_tool_is_imported_before_it_is_asked_for():
    script = (
        "import sys, json, msam.cli, msam.loggers; msam.loggers.names();"
        "print(json.dumps([m for m in ('tensorboard', 'wandb', 'mlflow', 'trackio') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == []
