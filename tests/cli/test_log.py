"""`msam log` and `msam train --log`: the same events, live and afterwards."""

import re

import pytest

from msam import record
from tests.loggers.ear import Ear, heard

TINY = "--data tests.train.world --epochs 1 --batch_size 16 --threads 1"
EAR = "tests.loggers.ear"


@pytest.fixture
def here(monkeypatch, request):
    monkeypatch.syspath_prepend(request.config.rootpath)


def test_a_run_is_followed_and_then_there_is_nothing_left_to_log(msam_, here, tmp_path):
    code, _, err = msam_(f"train {TINY} --out runs/one --log tensorboard,{EAR}")
    assert code == 0, err
    (name,) = (p.parent.name for p in (tmp_path / "logs" / "tensorboard").glob("*/events*"))
    assert name == record.read("runs/one/record.jsonl").header["run"]
    assert heard(tmp_path / "logs" / EAR, "end")[0]["status"] == "finished"
    code, out, _ = msam_(f"log --to tensorboard,{EAR}")
    assert code == 0
    assert "tensorboard: 0 runs logged, 1 there already   Look at them: tensorboard --logdir logs/tensorboard" in out
    assert f"{EAR}: 0 runs logged, 1 there already\n" in out


def test_records_are_logged_afterwards_where_it_is_told_to(msam_, here, tmp_path):
    for seed in (0, 1):
        assert msam_(f"train {TINY} --seed {seed}")[0] == 0
    code, out, _ = msam_(f"log runs --to {EAR} --out there --with-test")
    assert (code, out) == (0, f"{EAR}: 2 runs logged, 0 there already\n")
    assert "test/accuracy" in heard(tmp_path / "there" / EAR, "log")[4]["values"]
    assert len({line["group"] for line in heard(tmp_path / "there" / EAR, "begin")}) == 1


def test_test_measures_stay_in_the_record_unless_they_are_asked_for(msam_, here, tmp_path):
    assert msam_(f"train {TINY} --out a --log {EAR}")[0] == 0
    assert msam_(f"train {TINY} --out b --log {EAR} --log-out with --with-test")[0] == 0
    without, with_test = (
        {name for line in heard(tmp_path / out / EAR, "log") for name in line["values"]} for out in ("logs", "with")
    )
    assert with_test - without == {n for n in with_test if n.startswith("test/")}
    assert "test/accuracy" in with_test


def test_a_run_that_has_finished_is_logged_when_it_is_asked_for_again(msam_, here, tmp_path):
    assert msam_(f"train {TINY} --out one")[0] == 0
    assert msam_(f"train {TINY} --out one --resume --log {EAR}")[0] == 0
    assert len(heard(tmp_path / "logs" / EAR, "log")) == 6


@pytest.mark.parametrize("finished", [False, True])
def test_a_logger_that_fails_costs_the_run_a_warning(msam_, here, monkeypatch, finished):
    if finished:
        assert msam_(f"train {TINY} --out one")[0] == 0
    monkeypatch.setattr(Ear, "fails_at", "begin")
    code, _, err = msam_(f"train {TINY} --out one --log {EAR}{' --resume' if finished else ''}")
    assert code == 0
    assert err.count("warning:") == 1
    assert "no begin today" in err
    assert "Record: one/record.jsonl" in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("log --to tensorbord", "Unknown logger 'tensorbord'. Did you mean 'tensorboard'?"),
        ("log --to tensorboard", "No file or folder runs"),
        ("log none --to tensorboard", "No file or folder none"),
        ("log --to ,", "Name at least one logger: mlflow, tensorboard, trackio, wandb"),
        (f"train {TINY} --log nothing.there", "A dotted name must be an importable module"),
        (f"train {TINY} --with-test", "say to what with --log"),
        (f"train {TINY} --log-out there", "say to what with --log"),
    ],
)
def test_a_mistake_ends_with_one_message_before_anything_is_trained(msam_, here, tmp_path, line, said):
    code, _, err = msam_(line)
    assert code == 1
    assert said in err
    assert not (tmp_path / "runs").exists()


def test_what_ships_is_listed_and_explained(msam_):
    _, out, _ = msam_("list loggers")
    assert all(f"msam[{name}]" in out for name in ("tensorboard", "wandb", "mlflow", "trackio"))
    _, out, _ = msam_("log --help")
    assert all(flag in out for flag in ("RUNS", "--to", "--out", "--with-test"))
    _, out, _ = msam_("train --help")
    assert re.search(r"--log .*follow the run with mlflow, tensorboard, trackio, wandb", out)
    assert "log " in msam_("--help")[1]
