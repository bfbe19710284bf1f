"""The command line: every field a flag, every mistake one message, every command does what its help says."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import msam
from msam import recipes, record
from msam.train import RunConfig, config
from msam.train.config import KINDS, options
from tests.train._runs import files
from tests.train.test_stages import ONE_FILE, StopAt

TINY = "--data dial --data.train_size 40 --data.valid_size 20 --data.test_size 20 --data.bayes_samples 10"
SHORT = f"train {TINY} --epochs 1 --threads 1"


def fails(run, line: str, *words: str, exits: int = 1) -> None:
    code, out, err = run(line)
    assert code == exits, (line, out, err)
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("error:") == 1
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err, (word, err)


def test_the_command_of_the_readme_trains_a_run(msam_, tmp_path):
    line = "train --data avdigits --fusion late --method joint --sharpness msam --sharpness.rho 0.3 --seed 0"
    code, _, err = msam_(f"{line} --epochs 1 --threads 1")
    assert code == 0
    wanted = config(
        data="avdigits", fusion="late", method="joint", sharpness={"name": "msam", "rho": 0.3}, epochs=1, threads=1
    )
    folder = tmp_path / "runs" / wanted.run_name()
    assert f"Record: {Path('runs') / wanted.run_name() / 'record.jsonl'}" in err
    found = record.read(folder / "record.jsonl")
    assert found.config == wanted.model_dump()
    assert found.end["status"] == "finished"
    assert set(files(folder)) == {"record.jsonl", "checkpoint.pt"}


def test_a_file_gives_what_the_flags_do_not(msam_, tmp_path):
    (tmp_path / "run.toml").write_text("epochs = 1\nthreads = 1\n[sharpness]\nname = 'sam'\nrho = 0.1\n")
    code, _, err = msam_(f"train {TINY} --config run.toml --sharpness.rho 0.2 --out here")
    assert (code, err.count("error")) == (0, 0)
    found = record.read("here/record.jsonl").config
    assert found["sharpness"] == {
        "name": "sam",
        "rho": 0.2,
        "monitor": 0,
        "rho_schedule": "constant",
        "memory": "exact",
        "radius": "global",
        "rng": "free",
    }
    assert found["data"]["train_size"] == 40


def test_a_run_is_not_overwritten_but_gone_on_with(msam_, tmp_path):
    settings = config(
        data={"name": "dial", "train_size": 40, "valid_size": 20, "test_size": 20, "bayes_samples": 10},
        epochs=1,
        threads=1,
        batch_size=10,
    )
    with pytest.raises(KeyboardInterrupt):
        msam.train.train(settings, tmp_path / "here", watcher=StopAt(2))
    line = f"{SHORT} --batch_size 10 --out here"
    before = files(tmp_path / "here")
    fails(msam_, line, "holds a run already", "--resume")
    fails(msam_, f"{line} --resume --seed 1", "another configuration", "seed: 1 != 0")
    assert files(tmp_path / "here") == before
    assert msam_(f"{line} --resume")[0] == 0
    assert record.read("here/record.jsonl").end["steps"] == 4
    done = files(tmp_path / "here")
    assert msam_(f"{line} --resume")[0] == 0
    assert files(tmp_path / "here") == done


@pytest.mark.parametrize("kind", ["all", "data", "fusions", "methods", "optimizers", "schedules", "sharpness"])
def test_list_shows_every_name_with_options_and_ranges(msam_, kind):
    code, out, _ = msam_("list" if kind == "all" else f"list {kind}")
    assert code == 0
    for one, part in KINDS.items():
        shown = kind == "all" or kind.startswith(one)
        for name in part.names():
            if name != "none" and shown:
                assert f" {name} " in out
                for key, option in options(one, name).items():
                    assert key in out
                    assert option.range is None or f"[{option.range.describe()}; default:" in " ".join(out.split())


def test_help_mentions_every_field_and_every_option_of_the_chosen_parts(msam_):
    for chosen in (
        "",
        "--method uniform --sharpness msam --optimizer adamw --fusion maxout --schedule cosine --data dial",
    ):
        code, out, _ = msam_(f"train {chosen} --help")
        assert code == 0
        names = dict(zip(chosen.split()[::2], chosen.split()[1::2], strict=True))
        for key, field in RunConfig.model_fields.items():
            assert f"--{key}" in out
            assert field.description is None or field.description.split()[0] in out
        for kind, part in KINDS.items():
            for option in options(kind, names.get(f"--{kind}", part.default)):
                assert f"--{kind}.{option}" in out
            for name in part.names():
                assert name in out
    for word in ("--config", "--out", "--resume", ">= 0", "default: 0.05"):
        assert word in out


def test_the_commands_are_listed_with_a_sentence_each(msam_):
    for line in ("", "--help"):
        code, out, _ = msam_(line)
        assert code == 0
        for command in ("demo", "list", "train", "report"):
            assert f"{command} " in out
    assert msam_("--version")[1].strip() == msam.__version__


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train --bogus 1", ["--bogus"]),
        ("train --sharpnes sam", ["--sharpnes", "Did you mean"]),
        ("train --epochs x", ["--epochs", "x"]),
        ("train --epochs 0", ["`epochs` must be >= 1, received 0."]),
        ("train --method ogm", ["Unknown method 'ogm'", "joint"]),
        ("train --method unifrom", ["Did you mean 'uniform'?"]),
        ("train --method", ["--method", "requires an argument"]),
        ("train --data my_lab.none", ["Unknown dataset 'my_lab.none'", "importable module"]),
        ("train --data a[b].c[/red]", ["a[b].c[/red]"]),
        ("train --sharpness sam --sharpness.rho -0.1", ["`sharpness.rho` must be >= 0, received -0.1."]),
        ("train --sharpness.rho 0.1", ["--sharpness.rho"]),
        ("train --config nowhere.toml", ["No configuration file nowhere.toml."]),
        ("train --config .", ["Cannot read configuration file ."]),
        ("train --fusion.hidden 3", ["--fusion.hidden"]),
        ("train --fusion early --fusion.hidden 3,x", ["`fusion.hidden`", "'x'"]),
        ("train --data avdigits --data.file nowhere.npz", ["nowhere.npz"]),
        ("train --data avdigits --data.train_size 5", ["`data.train_size` must be >= 10, received 5."]),
        ("train --method unimodal --method.modality smell", ["Unknown modality 'smell'", "audio, image"]),
        ("train extra", ["extra"]),
        ("foo", ["foo"]),
        ("list foo", ["foo", "methods"]),
        ("report", ["No file or folder runs"]),
        ("report nowhere", ["nowhere"]),
        ("demo --seeds 0", ["`seeds` must be >= 1, received 0."]),
    ],
)
def test_a_mistake_ends_with_one_message_and_exit_code_1(msam_, tmp_path, line, words):
    fails(msam_, line, *words)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_wrong_is_named_with_what_is_wrong_in_it(msam_, tmp_path):
    for content, words in (
        ("seed = = 1", ["run.toml is not TOML", "line 1"]),
        ("epoch = 1", ["Unknown key 'epoch'", "'epochs'"]),
        ("[method]\nweight = 1", ["Unknown key 'method.weight' of method 'joint'"]),
        ("[optimizer]\nlr = -1", ["`optimizer.lr` must be > 0"]),
        ("method = 'ogm'", ["Unknown method 'ogm'"]),
    ):
        (tmp_path / "run.toml").write_text(content)
        fails(msam_, "train --config run.toml", *words)


def test_an_interruption_says_how_to_go_on(msam_, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("msam.cli.train.train", interrupted)
    fails(msam_, SHORT, "Interrupted. Go on with --resume", exits=130)


def test_a_full_disk_is_one_message_too(msam_, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    fails(msam_, f"{SHORT} --out here", "Cannot write checkpoint", "No space left on device", "--resume")


def test_parts_of_ones_own_beside_the_work_bring_their_flags_along(msam_, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    (tmp_path / "our_work").mkdir()
    (tmp_path / "our_work" / "halved.py").write_text(textwrap.dedent(ONE_FILE))
    try:
        code, out, _ = msam_("train --method our_work.halved --help")
        assert code == 0
        assert "--method.factor" in out
        assert "of the gradients, in [0, 1] [>= 0 and <= 1; default: 0.5]" in " ".join(out.replace("│", " ").split())
        assert msam_(f"{SHORT} --method our_work.halved --method.factor 0.1 --out here")[0] == 0
        assert record.read("here/record.jsonl").config["method"] == {"name": "our_work.halved", "factor": 0.1}
        fails(msam_, f"{SHORT} --method our_work.halved --method.factor 2", "`method.factor` must be >= 0 and <= 1")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "our_work"]:
            del sys.modules[name]


def test_paths_are_printed_as_they_are(msam_, tmp_path):
    code, _, err = msam_(f"{SHORT} --out r[red]uns/[x]")
    assert code == 0
    assert "Record: r[red]uns/[x]/record.jsonl   Look at it: msam report r[red]uns/[x]" in err


@pytest.fixture
def tiny_demo(monkeypatch):
    data = {"name": "dial", "train_size": 60, "valid_size": 30, "test_size": 30, "bayes_samples": 10}
    rows = {"joint": {}, "sam": {"sharpness": "sam"}, "msam": {"sharpness": "msam"}}

    def few(seeds: int) -> list[RunConfig]:
        return [config(row, data=data, epochs=2, threads=1, seed=s) for s in range(seeds) for row in rows.values()]

    monkeypatch.setattr(recipes, "demo", few)


def test_the_demo_trains_reports_and_keeps_what_is_there(msam_, tmp_path, tiny_demo):
    code, out, _ = msam_("demo --out there --seeds 2")
    assert code == 0
    there = tmp_path / "there"
    assert len(list((there / "runs").rglob("record.jsonl"))) == 6
    assert (there / "page.html").stat().st_size > 1000
    assert "Page: there/page.html   Table: there/table.md" in out
    records = {path: path.read_bytes() for path in there.rglob("record.jsonl")}
    assert msam_("demo --out there --seeds 2")[0] == 0
    assert {path: path.read_bytes() for path in there.rglob("record.jsonl")} == records
    code, out, _ = msam_("report there/runs --out again --select last")
    assert code == 0
    assert (tmp_path / "again" / "table.md").exists()
    fails(msam_, "report there/runs --out again --select best", "best_validation", "last")
    assert msam_("report there/runs --out more --formats tex,parquet --theirs")[0] == 0
    written = {f"{name}.{end}" for name in ("table", "paper_late", "paper_datasets") for end in ("tex", "parquet")}
    assert written <= {path.name for path in (tmp_path / "more").iterdir()}
    assert not list((tmp_path / "more").glob("*.png"))
    fails(msam_, "report there/runs --out never --formats md,latex", "Unknown format 'latex'", "tex")


def test_the_installed_command_answers_and_fails_as_it_should(tmp_path):
    script = Path(sys.executable).with_name("msam")
    run = [[script, "list", "methods"], [script, "train", "--method", "ogm"]]
    good, bad = (subprocess.run(r, capture_output=True, text=True, cwd=tmp_path, check=False) for r in run)
    assert (good.returncode, good.stderr) == (0, "")
    assert "joint" in good.stdout
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith("error: Unknown method 'ogm'.")
    assert bad.stderr.count("\n") == 1
