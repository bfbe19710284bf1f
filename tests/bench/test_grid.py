"""A grid is every combination that is defined, each with every seed."""

import re

import pytest

from msam import methods
from msam.bench import cell, grid
from tests.bench.grids import WORLD, tiny


def test_every_combination_gets_every_seed_and_a_name():
    made = tiny(seeds=3)
    assert list(made.rows) == [
        "dial-late-joint-none-sgd",
        "dial-late-joint-msam-sgd",
        "dial-late-ogm_ge-none-sgd",
        "dial-late-ogm_ge-msam-sgd",
    ]
    cells = made.cells()
    assert len(cells) == len({c.run_name() for c in cells}) == 12
    assert {(c.method["name"], c.sharpness and c.sharpness["name"], c.seed) for c in cells} == {
        (m, s, n) for m in ("joint", "ogm_ge") for s in (None, "msam") for n in range(3)
    }


def test_seeds_come_first_so_that_an_early_end_is_a_fair_one():
    assert [c.seed for c in tiny(seeds=2).cells()] == [0] * 4 + [1] * 4


def test_a_row_by_name_has_every_seed_and_nothing_else():
    made = tiny(seeds=[4, 9])
    assert [(c.method["name"], c.seed) for c in made.cells_of("dial-late-ogm_ge-none-sgd")] == [
        ("ogm_ge", 4),
        ("ogm_ge", 9),
    ]


def test_a_world_is_drawn_from_the_seed_unless_one_is_named():
    assert [c.data["seed"] for c in tiny(seeds=[3, 8]).cells_of("dial-late-joint-none-sgd")] == [3, 8]
    assert cell({"data": {**WORLD, "seed": 5}}, 3).data["seed"] == 5


def test_other_data_are_the_same_for_every_seed():
    one, other = grid(seeds=2).cells()
    assert one.data == other.data
    assert one.seed != other.seed


def test_cells_share_one_thread_and_records_per_epoch():
    assert all((c.threads, c.record_every) == (1, 0) for c in tiny().cells())


def test_a_method_beyond_its_definition_takes_its_extension_or_is_left_out_with_the_reason():
    made = grid(data=WORLD, fusion=["late", "early"], method=["agm", "reconboost"], seeds=1)
    assert list(made.rows) == [
        "dial-late-agm-none-sgd",
        "dial-late-reconboost-none-sgd",
        "dial-early-agm-none-sgd",
    ]
    assert made.left_out == ("reconboost is not defined for early fusion of 2 modalities.",)
    extension = methods.load("ogm_ge").about.extension
    early = grid(data=WORLD, fusion="early", method="ogm_ge", seeds=1).cells()[0]
    assert extension.items() <= early.method.items()


def test_unimodal_stands_for_one_row_per_modality():
    made = grid(data={**WORLD, "modalities": 3}, method="unimodal", seeds=1)
    assert [c.method["modality"] for c in made.cells()] == ["modality_0", "modality_1", "modality_2"]


def test_options_are_told_where_a_part_stands_twice():
    made = grid(data=WORLD, sharpness=[{"name": "sam", "rho": r} for r in (0.1, 0.2)], seeds=1)
    assert list(made.rows) == ["dial-late-joint-sam.rho=0.1-sgd", "dial-late-joint-sam.rho=0.2-sgd"]


def test_what_tuning_chose_lies_over_every_row():
    made = tiny()
    chosen = {
        name: {"optimizer": {"lr": 0.01}, "sharpness": {"rho": 0.3}} if "msam" in name else {} for name in made.rows
    }
    tuned = made.tuned(chosen)
    assert {c.optimizer["lr"] for c in tuned.cells_of("dial-late-joint-msam-sgd")} == {0.01}
    assert {c.sharpness["rho"] for c in tuned.cells_of("dial-late-joint-msam-sgd")} == {0.3}
    assert {c.optimizer["lr"] for c in tuned.cells_of("dial-late-joint-none-sgd")} == {0.05}


def test_tuned_rows_beside_untuned_ones_are_refused():
    with pytest.raises(ValueError, match=r"3 of 4 rows were not tuned, e\.g\. 'dial-late-joint-msam-sgd'"):
        tiny().tuned({"dial-late-joint-none-sgd": {}})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "ogm"}, "Unknown method 'ogm'. Did you mean 'ogm_ge'"),
        ({"sharpness": {"name": "msam", "rho": -1}}, "`sharpness.rho` must be >= 0, received -1.0"),
        ({"epoch": 3}, "Unknown key 'epoch'. Did you mean 'epochs'"),
        ({"seeds": 0}, "`seeds` must be at least one, received 0"),
        ({"method": ["joint", "joint"]}, "Two rows are called 'avdigits-late-joint-none-sgd'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(given, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        grid(**given)


def test_a_seed_among_the_settings_is_refused():
    with pytest.raises(ValueError, match="`seed` is given by the grid, run by run; received 3"):
        tiny().with_settings({"seed": 3}).cells()
