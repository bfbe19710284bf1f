"""The recommended setting: chosen on validation by its rule, confirmed elsewhere, told as the records have it."""

import importlib
import sys
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest

from msam import recipes, record
from msam.bench import engines
from msam.recipes import evidence
from msam.recipes import recommended as setting

HOME = Path(__file__).parents[2] / "benchmarks" / "evidence"
MODULES = ("found", "recommended")
WORLD = {**evidence.DIAL, "train_size": 128, "valid_size": 100, "test_size": 100, "bayes_samples": 100}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The candidates and the confirmation, on small worlds and few of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HOME))
        _, made = map(importlib.import_module, MODULES)
        patch.setattr(made, "PLACE", tmp_path_factory.mktemp("recommended"))
        patch.setattr(setting, "DATA", (WORLD,))
        patch.setattr(setting, "FORMS", ({}, {"loss": "response"}))
        patch.setattr(setting, "RADII", (0.1, 5.0))
        patch.setattr(setting, "CHOICE_SEEDS", range(2000, 2002))
        patch.setattr(setting, "HELD_OUT", {"dial": range(100, 102)})
        engine = engines.load("local")(workers=1)
        made.choose(engine)
        told = made.gains(made.candidates())
        best = max(told, key=lambda row: told[row])
        rules = [row["sharpness"] for row in setting.candidates().rows.values()]
        rule = next(r for r in rules if r != "none" and made.row_of(r) == best)
        worst = next(r for r in rules if r != "none" and made.row_of(r) == min(told, key=lambda row: told[row]))
        patch.setattr(setting, "SETTINGS", {**setting.SETTINGS, "sharpness": worst})
        with pytest.raises(ValueError, match=f"candidates on validation choose {best}") as refused:
            made.confirm(engine)
        assert not (made.PLACE / "confirmed").exists()
        patch.setattr(setting, "SETTINGS", {**setting.SETTINGS, "sharpness": rule})
        made.confirm(engine)
        yield SimpleNamespace(module=made, told=told, best=best, rule=rule, refused=refused)
        for name in MODULES:
            sys.modules.pop(name)


def lines(made, part):
    return list(record.find(made.module.PLACE / part))


def of(records, **wanted):
    rules = [(r, r.header["config"]["sharpness"] or {"name": "none"}) for r in records]
    return [r for r, rule in rules if all(rule.get(k) == v for k, v in wanted.items())]


def test_a_gain_is_the_mean_best_validation_accuracy_0_where_it_diverged_less_that_of_joint_training(made):
    records = lines(made, "candidates")

    def mean(found):
        return fmean(
            fmean(
                100 * max(line["valid"]["accuracy"] for line in one.epochs) if one.end["status"] == "finished" else 0.0
                for one in found
                if one.header["config"]["fusion"]["name"] == fusion
            )
            for fusion in ("late", "early")
        )

    joint = mean(of(records, name="none"))
    for loss in ("weighted", "response"):
        for rho in (0.1, 5.0):
            found = of(records, name="msam", loss=loss, rho=rho)
            name = f"joint-msam{'.loss=response' if loss == 'response' else ''}.rho={rho}-sgd"
            assert made.told[name] == pytest.approx(mean(found) - joint)


def test_what_is_confirmed_ran_on_seeds_that_chose_nothing(made):
    chose = {r.header["config"]["seed"] for r in lines(made, "candidates")}
    confirmed = {r.header["config"]["seed"] for r in lines(made, "confirmed")}
    assert confirmed == {100, 101}
    assert not chose & confirmed


def test_seeds_of_choice_tuning_reports_and_confirmation_are_apart():
    chosen, tuned = set(setting.CHOICE_SEEDS), set(range(1000, 1003))
    reported = set(range(20))
    held = set(range(100, 120))
    groups = [chosen, tuned, reported, held]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_the_table_tells_the_test_accuracy_at_the_epoch_that_validation_chose(made):
    table = made.module.confirmed_table()
    for fusion, line in zip(("late", "early"), table[2:], strict=True):
        runs = [r for r in of(lines(made, "confirmed"), name="none") if r.header["config"]["fusion"]["name"] == fusion]
        runs = [r for r in runs if r.header["config"]["method"]["name"] == "joint"]
        best = [max(r.epochs, key=lambda line: line["valid"]["accuracy"]) for r in runs]
        mean = fmean(100 * epoch["test"]["accuracy"] for epoch in best)
        heads = [cell.strip() for cell in table[0].split("|")]
        cells = [cell.strip() for cell in line.split("|")]
        assert cells[heads.index("joint")].startswith(f"{mean:.1f} ±")


def test_the_setting_without_climbing_costs_less_and_is_a_rival(made):
    runs = of(lines(made, "confirmed"), rho=0.0)
    climbing = of(lines(made, "confirmed"), rho=made.rule["rho"], name="msam", loss=made.rule.get("loss", "weighted"))
    assert runs
    assert climbing
    assert max(r.end["passes_per_step"] for r in runs) < min(r.end["passes_per_step"] for r in climbing)
    assert "without climbing" in made.module.confirmed_table()[0]


def test_it_is_a_recipe_that_trains_any_data():
    assert recipes.names()[0] == "recommended"
    found = recipes.config("recommended", data="dial", epochs=3)
    assert found.sharpness is not None
    assert {k: found.sharpness[k] for k in setting.SETTINGS["sharpness"]} == setting.SETTINGS["sharpness"]
    changed = recipes.settings("recommended")
    changed["sharpness"]["rho"] = 9.0
    assert recipes.settings("recommended")["sharpness"]["rho"] != 9.0
