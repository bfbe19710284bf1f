"""Every method and every rule trains on labels and on numbers, or says why not."""

import math
from dataclasses import replace

import pytest

from msam import data, methods, sharpness
from msam.train import config, train

SMALL = {"name": "dial", "train_size": 64, "valid_size": 24, "test_size": 24, "bayes_samples": 50}
SPLITS = ("train", "valid", "test")
CLASSES_ONLY = {"pmr": "prototype for every class", "reconboost": "integer classes", "imbsam": "class of every sample"}
LABELS_TOO = {
    **dict.fromkeys(("agm", "cggm", "mlb", "ogm_ge"), r"from integer classes \(N,\) or from labels \(N, K\)"),
    "mslr": "ratios of accuracies",
}
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


def test_mslr_trains_on_numbers_where_it_takes_no_ratios(tmp_path):
    for strategy in ("keep", "smooth"):
        world, method = {**SMALL, "task": "regression"}, {"name": "mslr", "strategy": strategy, "rates": (1.0, 0.5)}
        assert train(config(data=world, epochs=2, method=method), tmp_path / strategy).end["status"] == "finished"


def one_label():
    """Return data with one label, `(N,)`: is the class of the dial even?"""
    plain = data.load("dial")(**{k: v for k, v in SMALL.items() if k != "name"})
    splits = {name: replace(part, target=part.target % 2 == 0) for name in SPLITS if (part := getattr(plain, name))}
    return replace(plain, **splits, num_classes=1, task="multi-label")


@pytest.mark.parametrize("part", [*({"method": name} for name in methods.names()), {"sharpness": "imbsam"}], ids=str)
def test_one_label_may_leave_its_dimension_out(part, tmp_path, monkeypatch):
    monkeypatch.setattr("msam.train.parts.dataset", lambda _: one_label())
    name = next(iter(part.values()))
    part = {"method": {"name": "unimodal", "modality": "modality_1"}} if name == "unimodal" else part
    settings = config(data="dial", epochs=2, batch_size=32, **part)
    if name in CLASSES_ONLY:
        with pytest.raises(ValueError, match=CLASSES_ONLY[name]):
            train(settings, tmp_path)
    else:
        assert 0 <= train(settings, tmp_path).epochs[-1]["valid"]["accuracy"] <= 1
