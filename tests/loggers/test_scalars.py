"""What is logged, by its names: every number of a line, test measures only on demand."""

import math

import pytest

from msam.loggers._scalars import described, scalars, step_of
from tests.loggers._lines import CONFIG, epoch, header, lines, step
from tests.train._runs import MSAM, settings, trained

NAMES = ("audio", "image")


class TestSteps:
    def test_have_loss_contributions_share_and_radius(self):
        assert scalars(step(2), NAMES) == {
            "step/loss": 0.5,
            "contribution/audio": 0.52,
            "contribution/image": 0.48,
            "share": 0.52,
            "radius": 0.1,
        }

    def test_what_is_not_known_has_no_scalar(self):
        assert set(scalars(step(2, share=None, radius=None, contributions=None), NAMES)) == {"step/loss"}

    def test_what_the_method_decides_is_logged_however_deep_it_lies(self):
        noted = {"coefficients": {"audio": 0.5, "image": 1}, "weights": [0.25, 0.75], "chosen": "audio", "on": True}
        assert {k: v for k, v in scalars(step(1, method=noted), NAMES).items() if k.startswith("method")} == {
            "method/coefficients/audio": 0.5,
            "method/coefficients/image": 1.0,
            "method/weights/0": 0.25,
            "method/weights/1": 0.75,
        }

    def test_numbers_that_are_not_finite_are_logged_as_they_are(self):
        assert math.isnan(scalars(step(1, loss=math.nan), NAMES)["step/loss"])


class TestEpochs:
    def test_have_the_measures_of_each_split_by_kind_and_modality(self):
        found = scalars(epoch(1, 3), NAMES)
        assert found["valid/accuracy"] == 0.81
        assert found["train/shapley/image"] == 0.8
        assert found["valid/contribution/audio"] == 0.25
        assert (found["epoch"], found["epoch/loss"], found["lr"], found["seconds"]) == (1.0, 0.5, 0.05, 10.0)
        assert not any("head" in name for name in found)

    def test_have_test_measures_only_on_demand(self):
        without, with_test = scalars(epoch(1, 3), NAMES), scalars(epoch(1, 3), NAMES, with_test=True)
        assert not any("test" in name for name in without)
        assert {k: v for k, v in with_test.items() if not k.startswith("test/")} == without
        assert with_test["test/accuracy"] == 0.7
        assert {k.removeprefix("test/") for k in with_test if k.startswith("test/")} == {
            k.removeprefix("valid/") for k in with_test if k.startswith("valid/")
        }

    def test_means_of_steps_without_lines_have_their_names(self):
        means = {"share": 0.6, "contributions": {"audio": 0.6, "image": 0.4}, "dominance": {"audio": 1.0, "image": 0.0}}
        found = scalars(epoch(1, 3, means=means), NAMES)
        assert (found["mean/share"], found["mean/contribution/image"], found["mean/dominance/audio"]) == (0.6, 0.4, 1.0)

    def test_auxiliary_ones_do_not_mix_with_those_that_count(self):
        found = scalars(epoch(1, 3, auxiliary=True), NAMES)
        assert found["auxiliary/valid/accuracy"] == 0.81
        assert not any(name.startswith(("valid", "train", "epoch/")) for name in found)


def test_the_end_has_what_the_run_cost():
    found = scalars(lines()[-1])
    assert (found["end/passes_per_step"], found["end/seconds"]) == (2.0, 21.0)
    assert step_of(lines()[-1]) == 6


class TestProbes:
    def test_have_their_name_before_what_they_found(self):
        found = scalars(
            {
                "kind": "probe",
                "probe": "gradients",
                "epoch": 1,
                "step": 24,
                "samples": 512,
                "loss": 1.5,
                "logits": "split",
                "shared": None,
                "modalities": {"audio": {"cosine": -0.75}, "image": {"cosine": 0.5}},
            }
        )
        assert found == {
            "probe/gradients/loss": 1.5,
            "probe/gradients/cosine/audio": -0.75,
            "probe/gradients/cosine/image": 0.5,
        }

    def test_have_lists_by_position_and_no_pictures(self):
        rises = [{"rho": 0.05, "joint": 0.5, "modalities": {"audio": 0.25}}]
        line = {
            "kind": "probe",
            "probe": "p",
            "eigenvalues": [3.0, 2.0],
            "sharpness": rises,
            "losses": [[1.0] * 21] * 21,
        }
        assert scalars(line) == {
            "probe/p/eigenvalues/0": 3.0,
            "probe/p/eigenvalues/1": 2.0,
            "probe/p/sharpness/0/rho": 0.05,
            "probe/p/sharpness/0/joint": 0.5,
            "probe/p/sharpness/0/modalities/audio": 0.25,
        }


@pytest.mark.parametrize("kind", ["header", "news"])
def test_other_kinds_of_lines_are_let_be(kind):
    assert scalars({"kind": kind, "step": 1, "loss": 0.5, "test": {"accuracy": 1.0}}, NAMES, with_test=True) == {}


def test_every_number_of_a_real_run_has_a_name_of_its_own(tmp_path):
    record = trained(tmp_path / "run", sharpness=MSAM, method="ogm_ge")

    def numbers(value):
        if isinstance(value, dict):
            return [n for key, inner in value.items() if key not in ("step", "kind") for n in numbers(inner)]
        if isinstance(value, list):
            return [n for inner in value for n in numbers(inner)]
        return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []

    for line in (*record.steps, *record.epochs):
        counted = numbers({k: v for k, v in line.items() if not (line["kind"] == "step" and k == "epoch")})
        assert sorted(scalars(line, NAMES, with_test=True).values()) == sorted(counted)
    assert any(name.startswith("method/") for name in scalars(record.steps[0], NAMES))


class TestTheRun:
    def test_has_the_name_the_tags_and_the_configuration_of_its_header(self):
        run = described(header("a-name"))
        assert run.name == "a-name"
        assert run.tags == {"dataset": "avdigits", "fusion": "late", "method": "joint", "sharpness": "msam"}
        assert run.config == CONFIG
        assert run.started == 1772600767.0

    def test_hyperparameters_are_on_one_level_and_lose_nothing(self):
        assert described(header(encoders={"audio": "mlp"})).hyperparameters == {
            "data.name": "avdigits",
            "data.seed": 0,
            "data.keep": 0.4,
            "data.root": "none",
            "fusion.name": "late",
            "method.name": "joint",
            "sharpness.name": "msam",
            "sharpness.rho": 0.1,
            "sharpness.compensate": False,
            "optimizer.name": "sgd",
            "optimizer.lr": 0.05,
            "encoders.audio": "mlp",
            "seed": 3,
            "epochs": 2,
        }
        assert described(header(sharpness=None, encoders={})).hyperparameters["sharpness"] == "none"
        assert described(header(encoders={})).hyperparameters["encoders"] == "{}"

    def test_runs_that_differ_in_their_seeds_alone_are_of_one_group(self):
        group = described(header("a")).group
        assert group.startswith("avdigits-late-joint-msam-")
        assert described(header("b", seed=9, record_every=0, threads=2)).group == group
        assert described(header("c", sharpness={"name": "msam", "rho": 0.2})).group != group
        assert described(header("d", epochs=3)).group != group
        assert described(header("e", data=CONFIG["data"] | {"seed": 1})).group != group

    def test_a_world_that_is_drawn_with_the_seed_does_not_split_the_group(self):
        one, other = (described(header(data={"name": "dial", "seed": seed})).group for seed in (0, 1))
        assert one == other

    def test_real_headers_are_understood(self, tmp_path):
        record = trained(tmp_path / "run", epochs=1)
        run = described(record.header)
        assert run.name == settings(epochs=1).run_name()
        assert run.tags["sharpness"] == "none"
        assert run.modalities == NAMES

    @pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "a\\b", None, 3])
    def test_a_name_that_is_no_file_name_is_refused(self, name):
        with pytest.raises(ValueError, match="name"):
            described(header(name))

    def test_a_header_without_a_configuration_is_refused(self):
        with pytest.raises(ValueError, match="`config`"):
            described({"kind": "header", "run": "a"})
