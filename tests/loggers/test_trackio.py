"""Trackio, in its own database: what lies there is what the record says."""

import json

from msam import record
from msam.loggers._scalars import described, scalars, step_of
from tests.loggers._lines import CONFIG, header, lines, written
from tests.loggers._tools import msam, needs, rows

pytestmark = needs("trackio")


def wanted(made):
    return [(step_of(line), values) for line in made if (values := scalars(line, ("audio", "image")))]


def stored(folder, run="run"):
    """Return `(step, values)` of every row, in the order of their writing."""
    query = "SELECT step, metrics FROM metrics WHERE run_name = ? ORDER BY id"
    return [(step, json.loads(values)) for step, values in rows(folder / "msam.db", query, run)]


def test_values_and_configuration_are_those_of_the_record(tmp_path):
    written(tmp_path / "runs" / "run.jsonl", lines())
    written(tmp_path / "runs" / "other.jsonl", lines("other", epochs=1))
    said = msam(tmp_path, "log", "runs", "--to", "trackio")
    assert "trackio: 2 runs logged, 0 there already   Look at them: TRACKIO_DIR=" in said
    folder = tmp_path / "logs" / "trackio"
    assert stored(folder) == wanted(lines())
    assert stored(folder, "other") == wanted(lines("other", epochs=1))
    query = "SELECT config FROM configs WHERE run_name = 'run'"
    config = json.loads(rows(folder / "msam.db", query)[0][0])
    about = described(header())
    assert {key: config[key] for key in CONFIG} == CONFIG
    assert (config["tags"], config["_Group"]) == (about.tags, about.group)


def test_a_run_that_goes_on_is_the_same_run_and_lies_where_trackio_is_told(tmp_path):
    where = {"TRACKIO_DIR": str(tmp_path / "mine")}
    written(tmp_path / "run.jsonl", lines(status=None)[:4])
    msam(tmp_path, "log", "run.jsonl", "--to", "trackio", **where)
    (tmp_path / "run.jsonl").unlink()
    written(tmp_path / "run.jsonl", lines())
    msam(tmp_path, "log", "run.jsonl", "--to", "trackio", **where)
    assert stored(tmp_path / "mine") == wanted(lines())
    assert len(rows(tmp_path / "mine" / "msam.db", "SELECT DISTINCT run_id FROM metrics")) == 1
    assert "1 there already" in msam(tmp_path, "log", "run.jsonl", "--to", "trackio", **where)


def test_a_real_run_is_followed(tmp_path):
    line = "train --data tests.train.world --epochs 1 --batch_size 16 --threads 1 --out run --log trackio"
    assert "warning" not in msam(tmp_path, *line.split())
    read = record.read(tmp_path / "run" / "record.jsonl")
    expected = wanted([*read.steps, *read.epochs, read.end])
    assert stored(tmp_path / "logs" / "trackio", read.header["run"]) == expected
