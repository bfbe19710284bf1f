"""Several segments of a sample folded into the batch, N = 5 B here: through every method, rule and measure."""

import pytest
import torch
from torch import nn

from msam import methods, models
from msam.train import evaluate
from msam.train.metrics import EVALUATION_BATCH, EVALUATION_BYTES, _at_once
from msam.train.passes import Counter
from msam.types import Batch
from tests.train._runs import trained
from tests.train.segments import SEGMENTS, segments

WORLD = {"name": "tests.train.segments"}
FUSIONS = [{"name": "late"}, {"name": "psp", "segments": 5, "locations": 4}]
SHORT = {"mses": {"patience": 1}, "mslr": {"window": 1}}


def run(folder, **more):
    return trained(folder, **{"data": WORLD, "epochs": 2, "batch_size": 8} | more)


def network(name="late", **options):
    made = segments()
    return models.build(made.encoders, made.shapes, 3, name, **options).eval(), made


@pytest.mark.parametrize("name", methods.names())
def test_every_method_trains_on_segments(name, tmp_path):
    record = run(
        tmp_path,
        method={"name": name} | SHORT.get(name, {}),
        fusion="shared" if name == "reconboost" else "late",
    )
    assert record.end["status"] == "finished"
    assert record.epochs[-1]["test"]["nll"] < 3


@pytest.mark.parametrize("rule", ["sam", "msam"])
@pytest.mark.parametrize("fusion", FUSIONS, ids=["late", "psp"])
def test_a_step_costs_what_it_does_with_one_target_a_sample(rule, fusion, tmp_path):
    record = run(tmp_path, sharpness=rule, fusion=fusion, epochs=1)
    assert record.end["passes_per_step"] == pytest.approx(2)


@pytest.mark.parametrize("options", [{"weighting": "sample"}, {"loss": "response"}, {"scope": "dominant"}])
def test_msams_options_take_segments_as_samples(options, tmp_path):
    assert run(tmp_path, sharpness={"name": "msam", "rho": 0.05} | options, epochs=1).end["status"] == "finished"


@pytest.mark.parametrize("absent", ["feature", "input"])
def test_measures_are_over_segments(absent):
    net, made = network()
    found = evaluate(net, made.test, absent=absent)
    batch = made.test[range(13)]
    assert len(batch.target) == 13 * SEGMENTS
    with torch.no_grad():
        logits = net(batch.inputs).logits
    assert found["accuracy"] == pytest.approx(float((logits.argmax(1) == batch.target).double().mean()))
    assert found["nll"] == pytest.approx(float(nn.functional.cross_entropy(logits, batch.target)), rel=1e-5)
    assert sum(kind["contribution"] for kind in found["modalities"].values()) == pytest.approx(1)


def test_it_learns_what_every_second_holds(tmp_path):
    record = run(tmp_path, epochs=30, optimizer={"name": "adam", "lr": 0.01}, schedule="constant")
    assert record.epochs[-1]["test"]["accuracy"] > 0.8


@pytest.mark.parametrize("fusion", FUSIONS, ids=["late", "psp"])
def test_all_segments_of_a_sample_without_sound_are_without_it(fusion):
    net, _ = network(**fusion)
    batch = segments(lacking=True).test[range(6)]
    features = net.encode(batch.inputs, present=batch.present)
    silent = (features["audio"].flatten(1) == 0).all(1).reshape(6, SEGMENTS)
    assert silent.tolist() == [[sample % 3 == 0] * SEGMENTS for sample in range(6)]
    with torch.no_grad():
        there = net(batch.inputs, batch.present).logits
        other = {**batch.inputs, "audio": batch.inputs["audio"].where(batch.inputs["audio"] != 1e3, -5.0)}
        assert torch.equal(there, net(other, batch.present).logits)


def test_runs_go_through_with_samples_that_lack_a_modality(tmp_path):
    record = run(tmp_path, data=WORLD | {"lacking": True}, sharpness="msam")
    assert record.end["status"] == "finished"


def test_a_pass_is_counted_by_what_goes_in():
    net, _ = network()
    counter = Counter(net.encoders.values(), 2)
    with counter.counting(4):
        net(segments().train[range(4)].inputs).logits.sum().backward()
    assert (counter.forward, counter.backward) == (1, 1)


class TestSamplesAtOnce:
    def split(self, values, ahead):
        class Large:
            reads_ahead = ahead

            def __getitem__(self, index):
                return Batch({"video": torch.empty(len(index), values)}, torch.zeros(len(index)))

        return Large()

    def test_large_ones_from_disk_are_measured_in_smaller_batches(self):
        assert _at_once(self.split(2**18, True)) == EVALUATION_BYTES // 2**20
        assert _at_once(self.split(2**26, True)) == 2

    def test_small_ones_and_those_in_memory_are_not(self):
        assert _at_once(self.split(10, True)) == EVALUATION_BATCH
        assert _at_once(self.split(2**18, False)) == EVALUATION_BATCH
