"""The evidence's grids: equal budgets, seeds apart, and controls that awareness has to beat."""

import pytest

from msam.bench import tune as tuning
from msam.bench._plans import plans
from msam.bench.grid import cell
from msam.data.dial import world
from msam.recipes import evidence, load_grid

NAMES = pytest.mark.parametrize("name", evidence.GRIDS)


@NAMES
def test_every_row_can_be_tuned_with_the_budget_that_is_stated(name):
    grid, budget = evidence.GRIDS[name](), evidence.BUDGETS[name]
    seeds = tuning.tuning_seeds(budget.seeds)
    made = plans(grid.rows, trials=budget.trials, seeds=seeds, sampler="sobol", spaces={})
    assert len(made) == len(grid.rows)
    assert {len(row.plan.seeds) * row.plan.trials for row in made} == {budget.trials * budget.seeds}
    assert {row.plan.epochs for row in made} == {20}


@NAMES
def test_seeds_and_worlds_that_choose_are_not_those_that_are_reported(name):
    grid = evidence.GRIDS[name]()
    tuning.seeds_apart(tuning.tuning_seeds(evidence.BUDGETS[name].seeds), grid.seeds)
    assert len(grid.seeds) == (10 if "avdigits" in name else 20)


@NAMES
def test_joint_training_stands_in_every_grid_and_radii_share_one_space(name):
    grid = load_grid(f"{evidence.PREFIX}{name}")()
    assert any("-joint-none-" in row for row in grid.rows)
    spaces = {row["search"]["sharpness.rho"] for row in grid.rows.values() if "sharpness.rho" in row["search"]}
    assert spaces == {evidence.RADIUS}
    assert {row["search"]["optimizer.lr"] for row in grid.rows.values()} == {evidence.RATE}


def test_in_the_worlds_that_are_reported_either_modality_is_the_fast_one():
    drawn = [
        world(seed=cell(evidence.dial().rows["dial-late-joint-none-sgd"], s).data["seed"], shuffle=True)
        for s in range(20)
    ]
    fast = [made.dealt.index(1) for made in drawn]
    assert 5 <= sum(fast) <= 15


def test_awareness_has_a_control_for_every_way_not_to_look():
    rules = [row["sharpness"] for row in evidence.dial().rows.values() if isinstance(row.get("sharpness"), dict)]
    told = {(rule.get("scope"), rule["modality"]) for rule in rules if "modality" in rule}
    assert told == {(s, m) for s in ("all", "dominant") for m in ("weakest", "random", "modality_0", "modality_1")}
