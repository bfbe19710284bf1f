"""The recommended setting: chosen on validation by its rule, confirmed elsewhere, told as the records have it."""

import importlib
import sys
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest

from msam import record
from msam.bench import engines
from msam.recipes import evidence
from msam.recipes import recommended as setting

HOME = Path(__file__).parents[2] / "benchmarks" / "evidence"
MODULES = ("found", "recommended")
FUSIONS = ("late", "early")
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
        told = {fusion: made.gains(made.candidates(fusion)) for fusion in FUSIONS}
        rules = [row["sharpness"] for row in setting.candidates("late").rows.values() if row["sharpness"] != "none"]

        def of(fusion, rank):
            row = rank(told[fusion], key=lambda row: told[fusion][row])
            return next(rule for rule in rules if made.row_of(rule) == row)

        patch.setattr(setting, "CHOSEN", {"late": of("late", max), "early": of("early", min)})
        with pytest.raises(ValueError, match=f"For early fusion .* choose {made.row_of(of('early', max))}"):
            made.confirm(engine)
        assert not (made.PLACE / "confirmed").exists()
        patch.setattr(setting, "CHOSEN", {fusion: of(fusion, max) for fusion in FUSIONS})
        made.confirm(engine)
        yield SimpleNamespace(module=made, told=told)
        for name in MODULES:
            sys.modules.pop(name)


def lines(made, part):
    return list(record.find(made.module.PLACE / part))


def of(records, **wanted):
    rules = [(r, r.header["config"]["sharpness"] or {"name": "none"}) for r in records]
    return [r for r, rule in rules if all(rule.get(k) == v for k, v in wanted.items())]


def test_a_gain_is_the_mean_best_validation_accuracy_0_where_it_diverged_less_that_of_joint_training(made):
    records = lines(made, "candidates")

    def mean(fusion, **rule):
        found = [r for r in of(records, **rule) if r.header["config"]["fusion"]["name"] == fusion]
        assert len(found) == 2
        return fmean(
            100 * max(line["valid"]["accuracy"] for line in one.epochs) if one.end["status"] == "finished" else 0.0
            for one in found
        )

    for fusion in FUSIONS:
        for loss in ("weighted", "response"):
            for rho in (0.1, 5.0):
                gain = mean(fusion, name="msam", loss=loss, rho=rho) - mean(fusion, name="none")
                name = f"joint-msam{'.loss=response' if loss == 'response' else ''}.rho={rho}-sgd"
                assert made.told[fusion][name] == pytest.approx(gain)


def test_what_is_confirmed_ran_on_seeds_that_chose_nothing(made):
    chose = {r.header["config"]["seed"] for r in lines(made, "candidates")}
    confirmed = {r.header["config"]["seed"] for r in lines(made, "confirmed")}
    assert confirmed == {100, 101}
    assert not chose & confirmed


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_table_tells_the_test_accuracy_at_the_epoch_that_validation_chose(made, fusion):
    heads, _, line = ([cell.strip() for cell in row.split("|")] for row in made.module.confirmed_table(fusion))
    runs = [r for r in of(lines(made, "confirmed"), name="none") if r.header["config"]["fusion"]["name"] == fusion]
    runs = [r for r in runs if r.header["config"]["method"]["name"] == "joint"]
    best = [max(r.epochs, key=lambda line: line["valid"]["accuracy"]) for r in runs]
    mean = fmean(100 * epoch["test"]["accuracy"] for epoch in best)
    assert line[heads.index("joint")].startswith(f"{mean:.1f} ±")
