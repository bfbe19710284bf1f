"""`msam diagnose`: of a run's folder or its checkpoint, printed, and written as numbers and as a page."""

import json
import shutil

import pytest
import torch

from msam.diagnosis import of_run
from msam.train import config, evaluate, load_model, parts, train

QUICK = "--resamples 100 --no-sharpness"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of which every third sample lacks its picture."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(config(data={"name": "tests.train.world", "flaw": "present"}, epochs=3, batch_size=8), folder)
    return folder


def test_it_prints_and_writes_what_it_finds(msam_, run, tmp_path):
    code, out, err = msam_(f"diagnose {run} --out seen --unimodal 1 --resamples 100")
    assert code == 0, err
    assert "Diagnosis: 4 coalitions" in err
    assert "Who carries the predictions" in out
    assert "What to try" in out
    assert f"Page: {'seen'}/diagnosis.html   Numbers: seen/diagnosis.json" in out
    numbers = json.loads((tmp_path / "seen" / "diagnosis.json").read_text())
    assert list(numbers["modalities"]) == ["audio", "image"]
    assert numbers["samples"] == 21
    assert "<h1>Diagnosis of one on valid</h1>" in (tmp_path / "seen" / "diagnosis.html").read_text()


def test_a_checkpoint_says_the_same_as_its_folder(msam_, run):
    for path, out in ((run, "a"), (run / "checkpoint.pt", "b")):
        assert msam_(f"diagnose {path} --out {out} {QUICK}")[0] == 0
    with open("a/diagnosis.json") as a, open("b/diagnosis.json") as b:
        assert a.read() == b.read()


def test_without_a_place_it_lies_beside_the_record(msam_, run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    assert msam_(f"diagnose copy {QUICK}")[0] == 0
    assert (tmp_path / "copy" / "diagnosis.html").is_file()


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_its_numbers_are_those_of_the_run_on_any_split(run, split):
    settings = config(data={"name": "tests.train.world", "flaw": "present"}, epochs=3, batch_size=8)
    measured = evaluate(load_model(run), getattr(parts.dataset(settings), split))
    found = of_run(run, split=split, resamples=100, sharp=False, progress=False)
    assert found.accuracy.value == pytest.approx(measured["accuracy"])
    for name, one in found.modalities.items():
        assert one.zeroed.value == pytest.approx(measured["modalities"][name]["zeroed"]), name


@pytest.mark.parametrize(
    ("task", "measure", "words"), [("multi-label", "accuracy", "Label accuracy"), ("regression", "r2", "R²")]
)
def test_labels_and_numbers_of_a_run_are_diagnosed_as_the_run_measures_them(msam_, tmp_path, task, measure, words):
    data = {"name": "dial", "task": task, "train_size": 256, "valid_size": 200, "bayes_samples": 10}
    settings = config(data=data, epochs=2)
    train(settings, tmp_path / "run")
    code, out, err = msam_(f"diagnose run {QUICK}")
    assert code == 0, err
    assert f"{words} " in out
    numbers = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    measured = evaluate(load_model(tmp_path / "run"), parts.dataset(settings).valid)
    assert numbers["task"] == task
    assert numbers["accuracy"]["value"] == pytest.approx(measured[measure], abs=1e-6)
    for name, one in numbers["modalities"].items():
        for kind in ("zeroed", "shapley", "head"):
            assert one[kind]["value"] == pytest.approx(measured["modalities"][name][kind], abs=1e-5), (name, kind)


def test_a_model_of_fewer_modalities_than_its_data(tmp_path):
    settings = {"data": {"name": "tests.train.world", "flaw": "present"}, "epochs": 1}
    train(config(settings, method={"name": "unimodal", "modality": "image"}), tmp_path / "image")
    found = of_run(tmp_path / "image", resamples=100, sharp=False, progress=False)
    assert list(found.modalities) == ["image"]


def test_a_run_in_double_precision(tmp_path):
    train(config(data="tests.train.world", epochs=1, precision="64-true"), tmp_path / "run")
    found = of_run(tmp_path / "run", resamples=100, progress=False)
    assert found.modalities["audio"].sharpness is not None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("diagnose nowhere", "No checkpoint nowhere. Give the folder of a run, which holds checkpoint.pt."),
        ("diagnose {run} --split validation", "valid"),
        ("diagnose {run} --absent nothing", "feature"),
        ("diagnose {run} --resamples 3", "`resamples` must be >= 100, received 3"),
    ],
)
def test_mistakes_end_with_one_message(msam_, run, line, said):
    code, _, err = msam_(line.format(run=run))
    assert code == 1
    assert said in err


def test_other_data_than_those_of_the_run_are_refused(msam_, run, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "copy")
    record = (tmp_path / "copy" / "record.jsonl").read_text().splitlines()
    header = json.loads(record[0])
    header["data"]["fingerprint"] = "0" * 64
    (tmp_path / "copy" / "record.jsonl").write_text("\n".join([json.dumps(header), *record[1:]]) + "\n")
    code, _, err = msam_(f"diagnose copy {QUICK}")
    assert code == 1
    assert "fingerprints differ" in err


def test_weights_that_are_not_finite_are_said(msam_, run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    saved = torch.load(run / "checkpoint.pt", weights_only=True)
    saved["model"] = {k: v * torch.nan if v.is_floating_point() else v for k, v in saved["model"].items()}
    torch.save(saved, tmp_path / "copy" / "checkpoint.pt")
    code, _, err = msam_(f"diagnose copy {QUICK}")
    assert code == 1
    assert "the model gives logits that are NaN or infinite" in err
    assert "Look at the weights" in err
