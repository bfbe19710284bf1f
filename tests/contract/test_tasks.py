"""Every method and every rule trains on labels and on numbers, or says why not."""

import math

import pytest

from msam import methods, sharpness
from msam.train import config, train

SMALL = {"name": "dial", "train_size": 64, "valid_size": 24, "test_size": 24, "bayes_samples": 50}
CLASSES_ONLY = {"pmr": "prototype for every class", "reconboost": "integer classes", "imbsam": "class of every sample"}
LABELS_TOO = dict.fromkeys(("agm", "cggm", "mlb", "ogm_ge"), r"from integer classes \(N,\) or from labels \(N, K\)")
REFUSED = {"multi-label": CLASSES_ONLY, "regression": {**CLASSES_ONLY, **LABELS_TOO}}
every_task = pytest.mark.parametrize("task", list(REFUSED))


def tried(tmp_path, name: str, task: str, **parts):
    settings = config(data={**SMALL, "task": task}, epochs=2, batch_size=32, **parts)
    if name in REFUSED[task]:
        with pytest.raises(ValueError, match=REFUSED[task][name]):
            train(settings, tmp_path)
        return
    record = train(settings, tmp_path)
    assert record.header["task"] == task
    assert record.end["status"] == "finished"
    first, last = (line["train"]["nll"] for line in (record.epochs[0], record.epochs[-1]))
    assert math.isfinite(last)
    if task == "multi-label" or name in methods.names():
        assert last < first + 0.05


@every_task
@pytest.mark.parametrize("name", methods.names())
def test_methods(name, task, tmp_path):
    tried(tmp_path, name, task, method={"name": name, "modality": "modality_1"} if name == "unimodal" else name)


@every_task
@pytest.mark.parametrize("name", sharpness.names())
def test_rules(name, task, tmp_path):
    tried(tmp_path, name, task, sharpness=name)
