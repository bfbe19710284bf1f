"""The recommended recipes: what was chosen, on which seeds, and that any data can be trained with it."""

from pathlib import Path

import pytest

from msam import recipes
from msam.recipes import recommended as setting

ROOT = Path(__file__).parents[2]
FUSIONS = ("late", "early")


def test_seeds_of_choice_tuning_reports_and_confirmation_are_apart():
    chosen, tuned = set(setting.CHOICE_SEEDS), set(range(1000, 1003))
    reported = set(range(20))
    held = set(range(100, 120))
    groups = [chosen, tuned, reported, held]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_losses_of_modalities_without_climbing_are_a_rival_that_costs_less():
    rows = setting.confirmed("late", "dial").rows
    assert setting.CHOSEN["late"]["loss"] == "response"
    still = {**setting.CHOSEN["late"], "rho": 0.0}
    assert any(row["sharpness"] == still for row in rows.values() if "sharpness" in row)
    early = setting.confirmed("early", "dial").rows.values()
    assert not any(row.get("sharpness", {}) != "none" and "rho=0.0" in str(row) for row in early)


@pytest.mark.parametrize("name", ["recommended", "recommended-early"])
def test_it_is_a_recipe_that_trains_any_data(name):
    assert name in recipes.names()[:2]
    fusion = "early" if name.endswith("early") else "late"
    found = recipes.config(name, data="dial", epochs=3)
    assert found.fusion["name"] == fusion
    assert found.sharpness is not None
    assert {k: found.sharpness[k] for k in setting.CHOSEN[fusion]} == setting.CHOSEN[fusion]
    changed = recipes.settings(name)
    changed["sharpness"]["rho"] = 9.0
    assert recipes.settings(name)["sharpness"]["rho"] != 9.0


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_docs_show_what_was_chosen(fusion):
    options = [
        f'{k}="{v}"' if isinstance(v, str) else f"{k}={v}" for k, v in setting.CHOSEN[fusion].items() if k != "name"
    ]
    assert f"msam.MSAM(optimizer, model=model, {', '.join(options)})" in (ROOT / "docs" / "usage.md").read_text()
