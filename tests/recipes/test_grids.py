"""Grids that ship: complete, checked, and of what their names say."""

import pytest

from msam import methods, recipes, sharpness
from msam.recipes import GRIDS, load_grid


@pytest.mark.parametrize("name", GRIDS)
def test_every_cell_is_a_checked_configuration_with_a_name_of_its_own(name):
    made = load_grid(name)(seeds=2)
    cells = made.cells()
    assert len(cells) == 2 * len(made.rows)
    assert len({c.run_name() for c in cells}) == len({str(c.chosen()) for c in cells}) == len(cells)
    assert {c.seed for c in cells} == {0, 1}
    assert len({c.epochs for c in cells}) == 1
    assert {(c.threads, c.record_every) for c in cells} == {(1, 0)}


@pytest.mark.parametrize("name", ["avdigits", "dial"])
def test_a_whole_grid_has_every_method_and_every_rule_with_one_optimizer(name):
    cells = load_grid(name)(seeds=1).cells()
    late = [c for c in cells if c.fusion["name"] == "late"]
    assert {c.method["name"] for c in late if c.sharpness is None} == set(methods.names())
    assert {c.sharpness["name"] for c in late if c.sharpness} == set(sharpness.names())
    assert len({str(c.optimizer) for c in cells}) == 1


def test_what_early_fusion_does_not_define_is_left_out_and_named():
    assert load_grid("avdigits")(seeds=1).left_out == ("reconboost is not defined for early fusion of 2 modalities.",)


def test_dials_seeds_are_worlds():
    assert {c.data["seed"] for c in load_grid("dial")(seeds=[3, 5]).cells()} == {3, 5}


def test_pairs_put_every_method_beside_none_sam_and_msam():
    cells = load_grid("pairs")(seeds=1).cells()
    found = {(c.method["name"], c.sharpness and c.sharpness["name"]) for c in cells}
    assert found == {(m, r) for m in set(methods.names()) - {"unimodal", "ensemble"} for r in (None, "sam", "msam")}


def test_rows_of_the_papers_grids_are_its_recipes():
    made = load_grid("paper/cremad")(seeds=[4])
    assert [f"paper/{name}" for name in made.rows] == [n for n in recipes.names() if n.startswith("paper/cremad-")]
    found = made.cells_of("cremad-late-msam")[0]
    expected = recipes.config("paper/cremad-late-msam", seed=4, threads=1, record_every=0)
    differing = {k for k, v in found if v != getattr(expected, k)}
    assert differing <= {"record_every"}
