"""Laws of every method in whole runs: cost, resumption, which data it may see, optimizers and rules beside it."""

import dataclasses

import pytest
import torch

from msam import methods, sharpness
from msam.data import Dataset, TensorSplit
from msam.record import without_volatile
from msam.train import config, parts, train
from msam.train.optimizers import OPTIMIZERS
from tests.contract._methods import METHODS, admits
from tests.train._runs import MSAM, StopAt, settings, trained
from tests.train.world import world

BESIDE = [(o, r) for o in sorted(OPTIMIZERS) for r in ("none", "msam")] + [
    ("sgd", r) for r in sharpness.names() if r != "msam"
]
every_method = pytest.mark.parametrize("name", METHODS)
MAXOUT = {"name": "maxout", "hidden": [8]}


def fusions(name: str) -> list[dict]:
    """Return the fusions in which it is defined for two modalities, extensions included."""
    return [{"name": "late"}, *([MAXOUT] if admits(name, "maxout", 2) else [])]


def method(name: str, fusion: dict, **more) -> dict:
    about = methods.load(name).about
    extended = about.extension if fusion["name"] == "maxout" and not about.early else {}
    return {"name": name, **extended, **more}


@every_method
def test_the_declared_passes_are_those_counted_on_the_encoders(name, tmp_path):
    large = {"name": "tests.train.world", "size": 512}
    for number, fusion in enumerate(fusions(name)):
        used = method(name, fusion)
        record = trained(
            tmp_path / str(number), method=used, fusion=fusion, data=large, batch_size=64, epochs=8, record_every=100
        )
        modalities = len(record.header["modalities"])
        declared = parts.method(config(method=used)).passes(modalities).cost
        assert record.end["passes_per_step"] == pytest.approx(declared, abs=0.08)


@every_method
@pytest.mark.parametrize(("optimizer", "rule"), BESIDE)
def test_it_trains_with_every_optimizer_and_every_rule(name, optimizer, rule, tmp_path):
    kind = methods.load(name)
    own_way = kind.gradients is not methods.Method.gradients or kind.modulate is not methods.Method.modulate
    for number, fusion in enumerate(fusions(name)):
        if rule == "imbsam" and own_way:
            with pytest.raises(ValueError, match="do not go together"):
                trained(tmp_path / "refused", method=method(name, fusion), fusion=fusion, sharpness=rule)
            assert not (tmp_path / "refused" / "record.jsonl").exists()
            continue
        record = trained(
            tmp_path / str(number),
            method=method(name, fusion),
            fusion=fusion,
            optimizer=optimizer,
            sharpness={"name": rule, "tail": [1]} if rule == "imbsam" else rule,
            epochs=3,
        )
        assert record.end["status"] == "finished"
        assert record.epochs[-1]["loss"] == record.epochs[-1]["loss"]


@every_method
@pytest.mark.parametrize("fusion", ["late", "maxout"])
def test_stopped_anywhere_it_goes_on_bit_for_bit(name, fusion, tmp_path):
    chosen = next((f for f in fusions(name) if f["name"] == fusion), None)
    if chosen is None:
        return
    more = {
        "method": method(name, chosen),
        "fusion": chosen,
        "sharpness": MSAM,
        "optimizer": {"name": "adam", "lr": 0.01},
        "schedule": {"name": "cosine"},
        "epochs": 3,
    }
    expected = trained(tmp_path / "undisturbed", **more)
    wanted = settings(**more, checkpoint_every=3)
    steps = expected.end["steps"]
    for number, step in enumerate(sorted({1, 4, 5, steps // 2, steps - 4, steps - 1})):
        folder = tmp_path / str(number)
        with pytest.raises(KeyboardInterrupt):
            train(wanted, folder, watcher=StopAt(step))
        torch.manual_seed(step)  # another process would be anywhere
        resumed = train(wanted, folder, resume=True)
        assert resumed.end["weights"] == expected.end["weights"]
        for mine, other in zip(resumed.steps + resumed.epochs, expected.steps + expected.epochs, strict=True):
            assert without_volatile(mine) == without_volatile(other)


def poisoned(dataset: Dataset, *names: str) -> Dataset:
    """Return the dataset with splits in which every target is another."""
    spoilt = {}
    for name in names:
        split = getattr(dataset, name)
        spoilt[name] = TensorSplit(split.inputs, (split.target + 1) % dataset.num_classes)
    return dataclasses.replace(dataset, **spoilt)


@every_method
def test_what_it_learns_depends_on_train_alone_or_on_validation_measures_never_on_test(name, tmp_path, monkeypatch):
    ends = {}
    listens = methods.load(name).epoch_end is not methods.Method.epoch_end
    for spoilt in ((), ("test",), ("valid", "test")):
        monkeypatch.setattr(parts, "dataset", lambda _config, spoilt=spoilt: poisoned(world(), *spoilt))
        ends[spoilt] = trained(tmp_path / "-".join(["run", *spoilt]), method=name, epochs=6).end
    assert ends["test",]["weights"] == ends[()]["weights"]
    assert listens or ends["valid", "test"]["weights"] == ends[()]["weights"]


@every_method
def test_nothing_but_the_measures_of_validation_reaches_it(name, tmp_path, monkeypatch):
    heard = []
    kind = methods.load(name)
    plain = kind.epoch_end

    def listening(self, run, metrics):
        heard.append(metrics)
        plain(self, run, metrics)

    monkeypatch.setattr(kind, "epoch_end", listening)
    record = trained(tmp_path, method=name, epochs=3)
    assert heard == [line["valid"] for line in record.epochs]
