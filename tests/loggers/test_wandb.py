"""Weights & Biases, offline: what lies in its file is what the record says."""

import json

import pytest

from msam import record
from msam.loggers import wandb
from msam.loggers._scalars import described, scalars, step_of
from tests.loggers._lines import CONFIG, header, lines, written
from tests.loggers._tools import msam, needs, wandb_history, wandb_records

ONLINE = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "NETRC")


def by_step(made):
    """Return the rows that lines give: those of one step share theirs."""
    found = {}
    for line in made:
        values = scalars(line, ("audio", "image"))
        if values:
            found.setdefault(step_of(line), {"_step": step_of(line)}).update(values)
    return list(found.values())


def files(folder):
    return sorted(folder.glob("logs/wandb/wandb/offline-run-*/run-*.wandb"))


@needs("wandb")
class TestOffline:
    def test_values_configuration_and_names_are_those_of_the_record(self, tmp_path):
        written(tmp_path / "run.jsonl", lines())
        said = msam(tmp_path, "log", "run.jsonl", "--to", "wandb")
        assert "wandb: 1 run logged, 0 there already   Look at them: wandb sync logs/wandb/wandb/offline-run-*" in said
        (file,) = files(tmp_path)
        records = list(wandb_records(file))
        assert wandb_history(records) == by_step(lines())
        (run,) = (r.run for r in records if r.HasField("run"))
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert {key: config[key] for key in CONFIG} == CONFIG
        about = described(header())
        assert (run.display_name, run.run_group, run.project) == ("run", about.group, "msam")
        assert sorted(run.tags) == sorted(about.tags.values())
        (end,) = (r.exit for r in records if r.HasField("exit"))
        assert end.exit_code == 0

    def test_a_run_that_goes_on_has_the_same_id_and_each_line_once(self, tmp_path):
        written(tmp_path / "run.jsonl", lines(status=None)[:4])
        msam(tmp_path, "log", "run.jsonl", "--to", "wandb")
        (tmp_path / "run.jsonl").unlink()
        written(tmp_path / "run.jsonl", lines(status="diverged"))
        msam(tmp_path, "log", "run.jsonl", "--to", "wandb", WANDB_PROJECT="mine")
        assert "0 runs logged, 1 there already" in msam(tmp_path, "log", "run.jsonl", "--to", "wandb")
        found = [list(wandb_records(file)) for file in files(tmp_path)]
        assert [wandb_history(records) for records in found] == [by_step(lines()[:4]), by_step(lines()[4:])]
        runs = [r.run for records in found for r in records if r.HasField("run")]
        assert len({run.run_id for run in runs}) == 1
        assert {run.project for run in runs} == {"msam", "mine"}
        assert [r.exit.exit_code for records in found for r in records if r.HasField("exit")] == [1, 1]

    def test_a_real_run_is_followed(self, tmp_path):
        line = "train --data tests.train.world --epochs 1 --batch_size 16 --threads 1 --out run --log wandb"
        assert "warning" not in msam(tmp_path, *line.split())
        (file,) = files(tmp_path)
        read = record.read(tmp_path / "run" / "record.jsonl")
        assert wandb_history(list(wandb_records(file))) == by_step([*read.steps, *read.epochs, read.end])


class TestMode:
    @pytest.fixture(autouse=True)
    def _nobody(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        for name in ONLINE:
            monkeypatch.delenv(name, raising=False)

    def test_is_offline_for_who_has_not_logged_in(self):
        assert wandb.mode() == "offline"

    def test_is_online_for_who_has(self, monkeypatch, tmp_path):
        (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
        assert wandb.mode() == "online"
        monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.my-lab.org")
        assert wandb.mode() == "offline"

    def test_is_online_with_a_key(self, monkeypatch):
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        assert wandb.mode() == "online"

    def test_is_what_it_is_told_to_be(self, monkeypatch, tmp_path):
        (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
        monkeypatch.setenv("WANDB_MODE", "disabled")
        assert wandb.mode() == "disabled"

    def test_a_netrc_that_cannot_be_read_counts_for_nothing(self, tmp_path):
        (tmp_path / ".netrc").write_text("no netrc at all")
        assert wandb.mode() == "offline"
