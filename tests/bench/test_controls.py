"""M-SAM never stands alone: twice the steps, SAM at its mean radius, a constant share, the unimodal nets' sum."""

import pytest

from msam import bench
from msam.bench import controls, grid
from msam.bench.controls import mean_share
from tests.bench.grids import WORLD, tiny
from tests.bench.inline import Inline


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    made = tiny(seeds=2)
    return made, bench.run(made.cells(), tmp_path_factory.mktemp("grid"), engine=Inline(), quiet=True)


def test_every_row_with_msam_gets_its_controls_with_its_own_settings(ran):
    made, records = ran
    share = mean_share(r for r in records if r.config["sharpness"] and r.config["method"]["name"] == "joint")
    found = {
        name: found[0] for name in controls(made, records).rows if (found := controls(made, records).cells_of(name))
    }
    row = "dial-late-joint-msam-sgd"
    twice, smaller, constant, ensemble = (found[f"{row} ({c})"] for c in ("twice", "smaller", "constant", "ensemble"))
    assert (twice.epochs, twice.sharpness, twice.method["name"]) == (4, None, "joint")
    assert (smaller.sharpness["name"], smaller.sharpness["rho"]) == ("sam", pytest.approx(share * 0.05, rel=1e-3))
    assert (constant.sharpness["name"], constant.sharpness["share"], constant.sharpness["rho"]) == ("msam", share, 0.05)
    assert (ensemble.method["name"], ensemble.sharpness, ensemble.epochs) == ("ensemble", None, 2)
    assert found["dial-late-ogm_ge-msam-sgd (twice)"].method["name"] == "ogm_ge"
    assert all(f"ogm_ge-msam-sgd ({c})" not in found for c in ("ensemble",))


def test_the_mean_share_is_that_of_the_training_steps_to_two_digits(ran):
    _, records = ran
    shares = [e["means"]["share"] for r in records for e in r.epochs if "means" in e]
    assert mean_share(records) == round(sum(shares) / len(shares), 2)
    assert 0.5 <= mean_share(records) <= 1


def test_test_numbers_do_not_move_the_controls(ran):
    made, records = ran
    before = controls(made, records).rows
    for record in records:
        for epoch in record.epochs:
            epoch["test"] = {"accuracy": 0.123, "nll": 9.0, "macro_f1": 0.0, "modalities": {}}
    assert controls(made, records).rows == before


def test_the_base_optimizer_of_a_control_is_that_of_the_grids_own_row():
    made = tiny(seeds=1)
    rows = dict(made.rows)
    rows["dial-late-joint-none-sgd"] = {**rows["dial-late-joint-none-sgd"], "optimizer": {"name": "sgd", "lr": 0.2}}
    found = controls(made.with_rows(rows), [])
    assert found.cells_of("dial-late-joint-msam-sgd (twice)")[0].optimizer["lr"] == 0.2


def test_what_a_row_may_tune_changes_neither_its_runs_nor_its_controls(ran):
    made, records = ran
    own = {name: {**row, "search": {"optimizer.lr": None}} for name, row in made.rows.items()}
    with_spaces = made.with_rows(own)
    assert with_spaces.cells() == made.cells()
    assert controls(with_spaces, records).rows == controls(made, records).rows


def test_a_control_is_of_the_data_of_its_own_row():
    worlds = [WORLD, {**WORLD, "train_size": 64}]
    found = controls(grid(data=worlds, sharpness=["none", "msam"], seeds=1, epochs=1), [])
    sizes = {found.cells_of(name)[0].data["train_size"] for name in found.rows if name.endswith("(twice)")}
    assert sizes == {96, 64}


def test_a_share_that_is_fixed_or_split_by_samples_has_no_constant_control(ran):
    made, _ = ran
    made = grid(data=WORLD, sharpness={"name": "msam", "weighting": "sample"}, seeds=1, epochs=1, batch_size=16)
    records = bench.run(made.cells(), ran[1][0].path.parent / "more", engine=Inline(), quiet=True)
    assert [name.rpartition(" ")[2] for name in controls(made, records).rows] == ["(twice)", "(smaller)", "(ensemble)"]


def test_a_grid_may_go_without_and_one_without_msam_needs_none(ran):
    _, records = ran
    assert not controls(grid(data=WORLD, sharpness="msam", seeds=1, controls=False), records).rows
    assert not controls(grid(data=WORLD, sharpness="sam", seeds=1), records).rows


def test_where_msam_compensates_for_its_share_its_radius_to_first_order_is_rho(ran):
    made = grid(
        data=WORLD, sharpness={"name": "msam", "rho": 0.2, "compensate": True}, seeds=1, epochs=1, batch_size=16
    )
    records = bench.run(made.cells(), ran[1][0].path.parent / "compensated", engine=Inline(), quiet=True)
    smaller = controls(made, records).cells_of("dial-late-joint-msam-sgd (smaller)")[0]
    assert smaller.sharpness["rho"] == 0.2
