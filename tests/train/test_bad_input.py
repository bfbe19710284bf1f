"""What is bad ends in one clear error; what was there stays intact."""

import errno
import itertools
import math

import numpy as np
import pytest
import torch

from msam.record import read, without_volatile
from msam.train import checkpoint, train
from tests.train._runs import MSAM, WORLD, files, settings, trained


def flawed(flaw: str, **more):
    return settings(data=WORLD | {"flaw": flaw}, **more)


def weights(folder):
    return checkpoint.load(folder / "checkpoint.pt")["model"]


@pytest.mark.parametrize("flaw", ["nan", "infinite"])
@pytest.mark.parametrize("every", [0, 1])
def test_nan_in_the_inputs_is_named_with_modality_and_step(tmp_path, flaw, every):
    pattern = r"Input 'image' holds 1 values that are NaN or infinite at step \d \(epoch 1\)"
    with pytest.raises(ValueError, match=pattern) as error:
        train(flawed(flaw, checkpoint_every=every, fusion={"name": "maxout", "hidden": [8]}), tmp_path)
    step = int(str(error.value).split("step ")[1][0])
    record = read(tmp_path / "record.jsonl")
    assert [line["step"] for line in record.steps] == list(range(1, step))
    assert record.end is None
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_nan_in_what_is_only_measured_is_named_too(tmp_path):
    with pytest.raises(ValueError, match="Input 'audio' holds 1 values that are NaN or infinite of a split of 21"):
        train(flawed("nan_valid"), tmp_path)
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


@pytest.mark.parametrize("rule", [None, MSAM], ids=["none", "msam"])
def test_a_run_that_diverges_says_so_in_its_record_and_is_not_gone_on_with(tmp_path, rule):
    wild = settings(optimizer={"lr": 1e9}, sharpness=rule, checkpoint_every=1)
    with pytest.raises(ValueError, match=r"at step (\d+) \(epoch 1\): the run has diverged\. Lower `optimizer\.lr`"):
        train(wild, tmp_path)
    record = read(tmp_path / "record.jsonl")
    assert record.end["status"] == "diverged"
    assert record.end["steps"] == len(record.steps) + 1
    assert all(math.isfinite(line["loss"]) for line in record.steps)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=rf"has diverged at step {record.end['steps']} and would do so again"):
        train(wild, tmp_path, resume=True)
    assert files(tmp_path) == before


def test_a_loss_that_is_not_finite_at_the_perturbed_weights_is_divergence(tmp_path):
    with pytest.raises(ValueError, match=r"The loss at the perturbed weights is (inf|nan) at step 1"):
        trained(tmp_path, sharpness={"name": "sam", "rho": 1e30})
    assert read(tmp_path / "record.jsonl").end["status"] == "diverged"


def test_a_model_that_measures_as_not_finite_has_diverged(tmp_path):
    with pytest.raises(ValueError, match=r"The NLL of the train split is (inf|nan) at step 1 "):
        trained(tmp_path, optimizer={"lr": 1e30}, batch_size=64)
    assert read(tmp_path / "record.jsonl").end["status"] == "diverged"
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_a_missing_modality_is_named(tmp_path):
    with pytest.raises(ValueError, match="Modality 'image' is missing from the batch"):
        train(flawed("missing"), tmp_path)


def test_a_batch_of_one_sample(tmp_path):
    assert train(flawed("lone"), tmp_path / "late").end["steps"] == 2
    with pytest.raises(ValueError, match="batch of one sample"):
        train(flawed("lone", fusion={"name": "maxout", "hidden": [8]}), tmp_path / "maxout")
    last = trained(tmp_path / "joins", data=WORLD | {"size": 65}, fusion={"name": "maxout", "hidden": [8]})
    assert last.end["steps"] == 8


def test_a_class_without_samples_is_measured_without_nan(tmp_path):
    record = train(flawed("absent_class"), tmp_path)
    for split in ("train", "valid", "test"):
        measured = record.epochs[-1][split]
        assert all(math.isfinite(measured[key]) for key in ("accuracy", "macro_f1", "nll", "imbalance"))
    assert record.epochs[-1]["test"]["macro_f1"] > 0.5


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no samples"):
        train(flawed("empty_test"), tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"not a zip", "truncated"])
def test_a_data_file_that_is_missing_or_damaged_is_refused_before_anything_is_written(tmp_path, content):
    file = tmp_path / "digits.npz"
    if content == "truncated":
        np.savez(file, speech=np.zeros(3))
        content = file.read_bytes()[:-30]
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"digits\.npz"):
        train(settings(data={"name": "avdigits", "file": str(file)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_refused_leaves_no_folder(tmp_path):
    for more in ({"method": {"name": "unimodal", "modality": "smell"}}, {"data": {"name": "dial", "modes": [1]}}):
        with pytest.raises(ValueError, match=r"smell|modes"):
            trained(tmp_path / "run", **more)
    assert not (tmp_path / "run").exists()


def test_an_accelerator_the_machine_lacks_is_named(tmp_path, monkeypatch):
    missing = next(n for n, there in (("cuda", torch.cuda.is_available()), ("mps", False)) if not there)
    with pytest.raises(ValueError, match=f"`accelerator` must be one of this machine, received '{missing}'"):
        trained(tmp_path / "run", accelerator=missing)


@pytest.mark.parametrize("fails_at", [1, 2, 5, 8])
def test_a_disk_that_is_full_for_the_record_leaves_whole_lines_and_the_run_can_go_on(tmp_path, monkeypatch, fails_at):
    expected = trained(tmp_path / "undisturbed")
    from msam import record

    writes, plain = itertools.count(), record.Writer.__init__

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            if next(writes) == fails_at:
                self.file.write(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    def opened(self, *given, **more):
        plain(self, *given, **more)
        self._file = Full(self._file)

    with monkeypatch.context() as patch:
        patch.setattr(record.Writer, "__init__", opened)
        with pytest.raises(OSError, match=r"Cannot write to record .*No space left on device.*make room") as error:
            trained(tmp_path / "full")
    assert error.value.errno == errno.ENOSPC
    assert (tmp_path / "full" / "record.jsonl").read_bytes().endswith(b"}\n")
    resumed = train(settings(), tmp_path / "full", resume=True)
    assert resumed.end["weights"] == expected.end["weights"]
    assert without_volatile(resumed.steps + resumed.epochs) == without_volatile(expected.steps + expected.epochs)


@pytest.mark.parametrize("fails_at", [0, 1, 2])
@pytest.mark.parametrize("way", ["save", "fsync", "replace"])
def test_a_disk_that_is_full_for_a_checkpoint_leaves_the_one_before(tmp_path, monkeypatch, fails_at, way):
    expected = trained(tmp_path / "undisturbed")
    folder, calls = tmp_path / "full", itertools.count()
    owner = torch if way == "save" else checkpoint.os
    plain, kept = getattr(owner, way), {}

    def full(*given, **more):
        if way == "fsync" and not (folder / ".checkpoint.pt.tmp").exists():
            return plain(*given, **more)
        if next(calls) == fails_at:
            kept.update({k: v for k, v in files(folder).items() if k == "checkpoint.pt"})
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(owner, way, full)
        with pytest.raises(OSError, match=r"Cannot write checkpoint .*No space left.*make room"):
            trained(folder)
    left = files(folder)
    assert set(left) == {"record.jsonl", *kept}
    assert all(left[name] == content for name, content in kept.items())
    assert train(settings(), folder, resume=True).end["weights"] == expected.end["weights"]
