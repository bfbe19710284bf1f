"""Probes in runs: their lines, and that nothing else is otherwise than without them."""

import random

import numpy as np
import pytest
import torch

from msam import data, methods
from msam.bench.stack import stackable
from msam.record import file, read, without_volatile
from msam.train import config, load_model, probes, train
from msam.train.probes import SAMPLES, measured
from tests.train._runs import MSAM, StopAt, files, settings, trained
from tests.train.probes._models import network
from tests.train.segments import segments
from tests.train.world import world

ALL = ["gradients", "curvature", "landscape"]
SMALL = {"name": "maxout", "hidden": [4], "dropout": 0.3}


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Let a landscape have nine points, to be quick; how many it has by default is tested where it is drawn."""
    monkeypatch.setattr(probes.landscape.measure, "__defaults__", (3, 1.0))


def kinds(record):
    return [(line["probe"], line["epoch"], line["step"]) for line in record.probes]


def content(record):
    return without_volatile([record.steps, record.epochs, record.probes, record.end])


def test_gradients_come_before_the_first_epoch_and_after_every_one_the_others_at_the_end(tmp_path):
    record = trained(tmp_path, probes=ALL, sharpness=MSAM, fusion="shared")
    every = [("gradients", 0, 0), ("gradients", 1, 4), ("gradients", 2, 8)]
    assert kinds(record) == [*every, ("curvature", 2, 8), ("landscape", 2, 8)]
    gradients, curvature, landscape = (record.probes[k] for k in (2, 3, 4))
    assert [line["rho"] for line in curvature["sharpness"]] == [0.05, 0.2]
    assert len(curvature["eigenvalues"]) == 3
    assert set(gradients["modalities"]) == {"audio", "image"}
    assert landscape["losses"][1][1] == pytest.approx(curvature["loss"], rel=1e-4)
    assert {line["samples"] for line in record.probes} == {64}


def test_they_are_measures_of_the_training_data_in_evaluation_mode(tmp_path):
    record = trained(tmp_path, probes=ALL, fusion=SMALL)
    wanted = record.epochs[-1]["train"]
    for line in record.probes[-3:]:
        assert line["loss"] == pytest.approx(wanted["nll"], rel=1e-5)


def test_the_split_logits_loss_is_the_heads_nll(tmp_path):
    record = trained(tmp_path, probes=["gradients"])
    for name, line in record.probes[-1]["modalities"].items():
        assert line["loss"] == pytest.approx(record.epochs[-1]["train"]["modalities"][name]["head_nll"], rel=1e-5)


@pytest.mark.parametrize("sharpness", ["none", MSAM])
def test_a_run_with_probes_is_the_run_without(tmp_path, sharpness):
    more = {"fusion": SMALL, "sharpness": sharpness}  # dropout draws, BatchNorm counts
    plain, probed = trained(tmp_path / "plain", **more), trained(tmp_path / "probed", **more, probes=ALL)
    assert without_volatile([plain.steps, plain.epochs, plain.end]) == without_volatile(
        [probed.steps, probed.epochs, probed.end]
    )
    assert plain.probes == []
    state = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("plain", "probed")]
    assert torch.equal(state[0]["torch"], state[1]["torch"])


def legacy():
    """Return the state of numpy's global generator, which ARPACK's callers once drew from."""
    return np.random.get_state()[1].tolist()  # noqa: NPY002


@pytest.mark.parametrize("name", ALL)
def test_a_probe_leaves_everything_as_it_is(name):
    model, train_split = network("maxout", hidden=(3,), dropout=0.5, dtype=torch.float32), world().train
    model.encoders["image"].eval()
    model.encoders["image"].requires_grad_(False)
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.5)

    def seen():
        state = {name: value.clone() for name, value in model.state_dict().items()}
        flags = [(m.training, type(m)) for m in model.modules()]
        return state, flags, [(p.requires_grad, p.grad.clone(), p.data_ptr()) for p in model.parameters()]

    inputs = {"audio": train_split.inputs["audio"][:, :4], "image": train_split.inputs["image"][:, :3]}
    split = data.TensorSplit(inputs, train_split.target)
    before, randoms = seen(), (torch.get_rng_state(), random.getstate(), legacy())
    measured(name, model, split, rho=0.1)
    after = seen()
    assert all(torch.equal(before[0][key], after[0][key]) for key in before[0])
    assert before[1] == after[1]
    for (wanted, grad, place), (found, other, where) in zip(before[2], after[2], strict=True):
        assert (wanted, place) == (found, where)
        assert torch.equal(grad, other)
    assert torch.equal(randoms[0], torch.get_rng_state())
    assert random.getstate() == randoms[1]
    assert legacy() == randoms[2]


CUT = {"fusion": SMALL, "sharpness": MSAM, "probes": ALL, "checkpoint_every": 3}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(probes.landscape.measure, "__defaults__", (3, 1.0))
        return content(trained(tmp_path_factory.mktemp("whole"), **CUT))


@pytest.mark.parametrize("step", [1, 4, 5, 8])
def test_an_interrupted_run_gives_the_same_lines(tmp_path, undisturbed, step):
    with pytest.raises(KeyboardInterrupt):
        train(settings(**CUT), tmp_path, watcher=StopAt(step))
    assert content(train(settings(**CUT), tmp_path, resume=True)) == undisturbed


@pytest.mark.parametrize("call", [1, 2, 4, 5])
def test_so_does_one_interrupted_inside_a_probe(tmp_path, undisturbed, monkeypatch, call):
    real, calls = probes.measured, []

    def cut(*given, **options):
        calls.append(given[0])
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*given, **options)

    with monkeypatch.context() as patched:
        patched.setattr(probes, "measured", cut)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path, **CUT)
    assert content(train(settings(**CUT), tmp_path, resume=True)) == undisturbed


def test_a_finished_run_is_not_probed_again(tmp_path):
    trained(tmp_path, probes=ALL)
    before = files(tmp_path)
    train(settings(probes=ALL), tmp_path, resume=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", methods.names())
def test_models_of_every_method_are_probed(name, tmp_path):
    short = {"mses": {"patience": 1}, "mslr": {"window": 1}}.get(name, {})
    fusion = "shared" if name == "reconboost" else "late"
    record = trained(tmp_path, method={"name": name} | short, fusion=fusion, probes=ALL, batch_size=32)
    assert record.end["status"] == "finished"
    found = {line["probe"]: line for line in record.probes}
    assert set(found) == set(ALL)
    assert None not in found["curvature"]["eigenvalues"]
    assert list(found["gradients"]["modalities"]) == record.header["modalities"]


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_whatever_the_precision_of_training(tmp_path, precision):
    record = trained(tmp_path, precision=precision, probes=ALL)
    told = {line["probe"]: line["dtype"] for line in record.probes}
    plain = "float64" if precision == "64-true" else "float32"
    assert told == {"gradients": plain, "curvature": "float64", "landscape": plain}
    again = measured("gradients", load_model(tmp_path), world().train)
    last = next(line for line in reversed(record.probes) if line["probe"] == "gradients")
    assert again["loss"] == pytest.approx(last["loss"], rel=1e-6)


def test_samples_of_several_segments_and_samples_that_lack_a_modality(tmp_path):
    record = trained(
        tmp_path,
        data={"name": "tests.train.segments", "lacking": True},
        probes=["gradients"],
        batch_size=8,
        epochs=1,
    )
    assert record.probes[-1]["samples"] == len(segments().train)
    assert record.probes[-1]["loss"] == pytest.approx(record.epochs[-1]["train"]["nll"], rel=1e-5)


class TestSamples:
    class Counted(data.TensorSplit):
        asked: list[int]

        def __getitem__(self, index):
            self.asked.extend(index)
            return super().__getitem__(index)

    def look(self, size, seed):
        model = network(dtype=torch.float32, seed=seed)
        split = self.Counted({"audio": torch.randn(size, 4), "image": torch.randn(size, 3)}, torch.arange(size) % 3)
        object.__setattr__(split, "asked", [])
        line = measured("gradients", model, split, seed=seed)
        return line["samples"], sorted(set(split.asked))

    def test_they_are_512_at_most_the_same_for_every_seed_and_spread_over_the_data(self):
        (count, first), (_, second) = self.look(2000, 0), self.look(2000, 1)
        assert count == SAMPLES == len(first)
        assert first == second
        assert 900 < sum(first) / SAMPLES < 1100

    def test_of_fewer_all_are_taken(self):
        assert self.look(40, 0) == (40, list(range(40)))

    def test_large_inputs_and_large_models_go_through_in_small_batches(self, monkeypatch):
        sizes = []
        monkeypatch.setattr(probes, "in_chunks", lambda order, size: sizes.append(size) or [order])
        for most, width in ((probes.BYTES, 3), (probes.BYTES, 600), (28 * 9, 3)):  # 7 numbers a sample
            monkeypatch.setattr(probes, "BYTES", most)
            split = data.TensorSplit({"audio": torch.randn(9, 4), "image": torch.randn(9, 3)}, torch.arange(9) % 3)
            wide = network("maxout", hidden=(600,), width=width, dtype=torch.float32)
            measured("gradients", wide, split, batch_size=50)
        assert sizes == [128, 25, 9]

    def test_none_at_all_is_refused(self):
        with pytest.raises(ValueError, match="no samples"):
            self.look(0, 0)


def test_an_unknown_probe_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"Unknown probe 'gradient'\. Did you mean 'gradients'\?"):
        measured("gradient", network(), world().train)
    with pytest.raises(ValueError, match=r"`probes` must be one of .*received 'curvatur'\. Did you mean 'curvature'\?"):
        config(probes="curvatur")
    with pytest.raises(ValueError, match="`probes` must be names of probes, as in gradients,landscape, received 3"):
        config(probes=3)


def test_equal_choices_have_equal_names_and_no_probes_is_no_choice():
    assert config(probes="landscape, gradients").run_name() == config(probes=["gradients", "landscape"]).run_name()
    assert config(probes="").run_name() == config(probes=[]).run_name() == config().run_name()
    assert "probes" not in config().chosen()
    assert config().run_name() == "avdigits-late-joint-none-seed0-2dd1c369"


def test_runs_with_probes_are_not_stacked():
    assert stackable(config(data="dial", sharpness="msam"))
    assert not stackable(config(data="dial", sharpness="msam", probes="gradients"))


def test_a_filed_record_keeps_the_lines(tmp_path):
    record = trained(tmp_path, probes=["gradients", "landscape"], epochs=1)
    file(record.path, tmp_path / "filed.jsonl.gz")
    filed = read(tmp_path / "filed.jsonl.gz")
    assert kinds(filed) == kinds(record)
    assert filed.probes[-1]["losses"] == record.probes[-1]["losses"]


def test_a_run_that_diverges_keeps_the_lines_that_it_had(tmp_path):
    with pytest.raises(ValueError, match="diverged"):
        trained(tmp_path, probes=ALL, optimizer={"name": "sgd", "lr": 1e30})
    record = read(tmp_path / "record.jsonl")
    assert record.end["status"] == "diverged"
    assert kinds(record)[0] == ("gradients", 0, 0)
