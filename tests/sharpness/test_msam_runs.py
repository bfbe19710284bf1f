"""M-SAM's options in whole runs: what the record says, what a step costs, and that a run goes on where it stopped."""

import math

import pytest
import torch

from msam import sharpness
from msam.record import without_volatile
from msam.train import config, load_model, train
from tests.train._runs import StopAt, settings, trained

RHO = 0.2
MAXOUT = {"name": "maxout", "hidden": [8]}
THREE_BACKWARDS = (2 + 2 * 3) / 3  # two forwards, and one backward counts as two of them
COSTS = [
    ({}, 2.0),
    ({"scope": "dominant"}, 1.5),
    ({"scope": "dominant+fusion"}, 1.5),
    ({"weighting": "sample"}, THREE_BACKWARDS),
    ({"loss": "response"}, THREE_BACKWARDS),
    ({"loss": "masked"}, THREE_BACKWARDS),
    ({"loss": "masked", "weighting": "sample", "scope": "dominant"}, THREE_BACKWARDS),
    ({"every": 4}, 1.25),
    ({"every": 4, "scope": "dominant"}, 1.25),
    ({"share": "one"}, 2.0),
    ({"share": 0.25, "compensate": True}, 2.0),
    ({"contributions_every": 3}, 2.0),
    ({"contributions_every": 3, "scope": "dominant"}, 1.5),
    ({"memory": "low", "rng": "replay", "rho_schedule": "inverse_sqrt"}, 2.0),
]
options_and_costs = pytest.mark.parametrize(("options", "cost"), COSTS, ids=lambda v: str(v))


def rule(**options) -> dict:
    return {"name": "msam", "rho": RHO, **options}


@pytest.mark.parametrize("fusion", [{"name": "late"}, MAXOUT], ids=["late", "maxout"])
@options_and_costs
def test_a_run_finishes_and_costs_what_the_option_says(options, cost, fusion, tmp_path):
    record = trained(tmp_path, sharpness=rule(**options), fusion=fusion)
    assert record.end["status"] == "finished"
    assert record.end["passes_per_step"] == pytest.approx(cost, abs=1e-6)
    assert record.epochs[-1]["loss"] < record.epochs[0]["loss"]


@options_and_costs
def test_stopped_within_an_epoch_it_goes_on_bit_for_bit(options, cost, tmp_path):
    more = {"sharpness": rule(**options), "optimizer": {"name": "adam", "lr": 0.01}, "fusion": MAXOUT}
    expected = trained(tmp_path / "undisturbed", **more)
    wanted = settings(**more, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(wanted, tmp_path / "stopped", watcher=StopAt(6))
    torch.manual_seed(1)
    resumed = train(wanted, tmp_path / "stopped", resume=True)
    assert resumed.end["weights"] == expected.end["weights"]
    assert list(map(without_volatile, resumed.steps)) == list(map(without_volatile, expected.steps))


class TestTheRecord:
    def steps(self, tmp_path, **options) -> list[dict]:
        return trained(tmp_path, sharpness=rule(**options)).steps

    @pytest.mark.parametrize(
        "options", [{}, {"scope": "dominant"}, {"weighting": "sample"}, {"loss": "response"}], ids=str
    )
    def test_the_share_is_the_largest_contribution(self, options, tmp_path):
        for line in self.steps(tmp_path, **options):
            assert line["share"] == pytest.approx(max(line["contributions"]), abs=1e-6)
            assert line["radius"] == RHO

    def test_a_fixed_share_stands_there_and_a_compensated_radius(self, tmp_path):
        for line in self.steps(tmp_path / "fixed", share=0.25):
            assert (line["share"], line["radius"]) == (0.25, RHO)
        for line in self.steps(tmp_path / "compensated", compensate=True):
            assert line["radius"] == pytest.approx(RHO / line["share"])

    def test_kept_contributions_give_one_share_for_several_steps(self, tmp_path):
        shares = [line["share"] for line in self.steps(tmp_path, contributions_every=3)]
        assert shares[0] == shares[1] == shares[2] != shares[3]
        assert shares[3] == shares[4] == shares[5]

    def test_the_radius_follows_its_schedule_and_is_zero_where_nothing_climbs(self, tmp_path):
        radii = [line["radius"] for line in self.steps(tmp_path / "schedule", rho_schedule="inverse_sqrt")]
        assert radii == pytest.approx([RHO / math.sqrt(t) for t in range(1, 9)])
        assert [line["radius"] for line in self.steps(tmp_path / "every", every=4)] == [RHO, 0, 0, 0] * 2


@pytest.mark.parametrize("scope", ["dominant", "dominant+fusion"])
@pytest.mark.parametrize("method", ["joint", "uniform"])
def test_encoders_that_run_once_change_the_cost_of_a_run_and_not_its_weights(method, scope, tmp_path, monkeypatch):
    more = {"sharpness": rule(scope=scope), "method": method, "precision": "64-true", "fusion": MAXOUT, "epochs": 3}
    cheap = trained(tmp_path / "cheap", **more)
    monkeypatch.setattr(sharpness.MSAM, "prefers_backward", False)
    whole = trained(tmp_path / "whole", **more)
    assert (cheap.end["passes_per_step"], whole.end["passes_per_step"]) == pytest.approx((1.5, 2.0))
    mine, other = load_model(tmp_path / "cheap").state_dict(), load_model(tmp_path / "whole").state_dict()
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-11)


def test_a_method_that_changes_gradients_in_its_own_way_goes_with_a_scope_in_whole_passes(tmp_path):
    record = trained(tmp_path, sharpness=rule(scope="dominant"), method="ogm_ge")
    assert record.end["passes_per_step"] == pytest.approx(2.0)


@pytest.mark.parametrize("options", [{"weighting": "sample"}, {"loss": "response"}, {"loss": "masked"}], ids=str)
def test_a_method_that_changes_gradients_in_its_own_way_is_refused_where_losses_are_split(options, tmp_path):
    with pytest.raises(ValueError, match="do not go together"):
        trained(tmp_path / "run", sharpness=rule(**options), method="ogm_ge")
    assert not (tmp_path / "run" / "record.jsonl").exists()


def test_options_are_read_as_the_command_line_writes_them():
    read = config(sharpness={"name": "msam", "share": "0.25", "compensate": "true", "every": "3"}).sharpness
    assert (read["share"], read["compensate"], read["every"]) == (0.25, True, 3)
    assert config(sharpness={"name": "msam", "share": "one"}).sharpness["share"] == "one"
    with pytest.raises(ValueError, match=r"sharpness\.scope.*Did you mean 'dominant'"):
        config(sharpness={"name": "msam", "scope": "dominnat"})


@pytest.mark.parametrize("share", ["two", "1.5"])
def test_a_share_that_is_none_is_refused_before_anything_is_written(share, tmp_path):
    with pytest.raises(ValueError, match="share"):
        trained(tmp_path / "run", sharpness=rule(share=share))
    assert not (tmp_path / "run" / "record.jsonl").exists()
