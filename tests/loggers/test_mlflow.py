"""MLflow, in its own database: what lies there is what the record says."""

import math

from msam import record
from msam.loggers._scalars import described, scalars, step_of
from tests.loggers._lines import header, lines, written
from tests.loggers._tools import msam, needs, rows

pytestmark = needs("mlflow")
NAMES = ("audio", "image")
START = 1772600767000


def wanted(made):
    return sorted((name, step_of(line), value) for line in made for name, value in scalars(line, NAMES).items())


def metrics(database):
    return sorted(rows(database, "SELECT key, step, value FROM metrics"))


def test_values_parameters_tags_and_times_are_those_of_the_record(tmp_path):
    written(tmp_path / "runs" / "run.jsonl", lines())
    made = lines("other", status="diverged")
    made[1]["loss"] = math.nan
    written(tmp_path / "runs" / "other.jsonl", made)
    said = msam(tmp_path, "log", "runs", "--to", "mlflow")
    assert "mlflow: 2 runs logged, 0 there already   Look at them: mlflow ui --backend-store-uri sqlite:///" in said
    database = tmp_path / "logs" / "mlflow" / "mlflow.db"
    runs = dict(rows(database, "SELECT name, run_uuid FROM runs"))
    of_run = "FROM {} WHERE run_uuid = ?"
    found = rows(database, f"SELECT key, step, value {of_run.format('metrics')}", runs["run"])
    assert sorted(found) == wanted(lines())
    about = described(header())
    params = dict(rows(database, f"SELECT key, value {of_run.format('params')}", runs["run"]))
    assert params == {name: str(value) for name, value in about.hyperparameters.items()}
    tags = dict(rows(database, f"SELECT key, value {of_run.format('tags')}", runs["run"]))
    assert tags.items() >= {**about.tags, "group": about.group, "commit": "5aea07b", "data": "66c8"}.items()
    ended = rows(database, "SELECT name, status, start_time, end_time FROM runs ORDER BY name")
    assert ended == [("other", "FAILED", START, START + 21000), ("run", "FINISHED", START, START + 21000)]
    query = f"SELECT timestamp {of_run.format('metrics')} AND key = 'step/loss' ORDER BY step"
    assert [t - START for (t,) in rows(database, query, runs["run"])] == [0, 0, 0, 10000, 10000, 10000]
    query = f"SELECT step {of_run.format('metrics')} AND is_nan"
    assert rows(database, query, runs["other"]) == [(1,)]


def test_a_run_that_goes_on_is_the_same_run_and_one_that_was_deleted_is_logged_anew(tmp_path):
    where = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mine.db", "MLFLOW_EXPERIMENT_NAME": "mine"}
    database = tmp_path / "mine.db"
    written(tmp_path / "run.jsonl", lines(status=None)[:4])
    msam(tmp_path, "log", "run.jsonl", "--to", "mlflow", **where)
    assert rows(database, "SELECT status FROM runs") == [("RUNNING",)]
    (tmp_path / "run.jsonl").unlink()
    written(tmp_path / "run.jsonl", lines())
    msam(tmp_path, "log", "run.jsonl", "--to", "mlflow", **where)
    assert rows(database, "SELECT name, status FROM runs") == [("run", "FINISHED")]
    assert metrics(database) == wanted(lines())
    assert ("mine",) in rows(database, "SELECT name FROM experiments")
    assert "1 there already" in msam(tmp_path, "log", "run.jsonl", "--to", "mlflow", **where)
    database.unlink()
    assert "1 run logged" in msam(tmp_path, "log", "run.jsonl", "--to", "mlflow", **where)
    assert metrics(database) == wanted(lines())


def test_a_real_run_is_followed(tmp_path):
    line = "train --data tests.train.world --epochs 1 --batch_size 16 --threads 1 --out run --log mlflow"
    assert "warning" not in msam(tmp_path, *line.split())
    read = record.read(tmp_path / "run" / "record.jsonl")
    assert metrics(tmp_path / "logs" / "mlflow" / "mlflow.db") == wanted([*read.steps, *read.epochs, read.end])
