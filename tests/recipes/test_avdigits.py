"""Recipes are complete, fair, and say what the committed tuning chose."""

from collections import defaultdict
from pathlib import Path

import pytest

from msam import methods, recipes, record

RESULTS = Path(__file__).parents[2] / "results" / "avdigits-late"


def test_every_row_gets_the_same_number_of_trials_on_the_same_seeds():
    spaces = recipes.trials()
    assert len({len(space) for space in spaces.values()}) == 1
    assert len({tuple(sorted(c.seed for c in space)) for space in spaces.values()}) == 1


def test_seeds_that_chose_settings_are_not_those_reported():
    tuned = {c.seed for space in recipes.trials().values() for c in space}
    assert tuned.isdisjoint(c.seed for c in recipes.comparison(10))


@pytest.mark.parametrize("row", recipes.SETTINGS)
def test_the_settings_of_a_row_are_those_with_the_best_validation_accuracy(row):
    scores = defaultdict(list)
    for run in record.find(RESULTS / "tuning" / row):
        optimizer, rho = run.config["optimizer"], (run.config["sharpness"] or {}).get("rho")
        scores[optimizer["lr"], optimizer["weight_decay"], rho].append(max(e["valid"]["accuracy"] for e in run.epochs))
    assert len({len(values) for values in scores.values()}) == 1
    best = max(scores, key=lambda settings: sum(scores[settings]))
    chosen = recipes.SETTINGS[row]
    optimizer, rho = chosen["optimizer"], chosen.get("sharpness", {}).get("rho")
    assert best == (optimizer["lr"], optimizer.get("weight_decay", 1e-4), rho)


def test_the_demo_holds_the_three_rows_and_what_each_modality_can_do_alone():
    runs = recipes.demo(1)
    assert [(c.method["name"], (c.sharpness or {}).get("name")) for c in runs] == [
        ("joint", None),
        ("joint", "sam"),
        ("joint", "msam"),
        ("unimodal", None),
        ("unimodal", None),
    ]


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_numbers_in_prose_tables_are_those_of_the_committed_tables(page):
    lines = (RESULTS.parents[1] / page).read_text().splitlines()
    made = "".join(path.read_text() for path in sorted(RESULTS.parent.rglob("*.md")))
    rows = [line for line in lines if line.startswith("| ") and any(c.isdigit() for c in line)]
    assert rows
    for line in rows:
        assert line in made, line


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_every_method_of_the_folder_stands_in_the_overview_where_it_is_defined(fusion):
    runs = recipes.every_method(fusion, 2)
    found = {c.method["name"] for c in runs}
    for name in methods.names():
        about = methods.load(name).about
        assert (name in found) == (fusion == "late" or about.early or bool(about.extension))
    assert {c.fusion["name"] for c in runs} == {fusion}
    assert {c.seed for c in runs} == {0, 1}
    assert {c.optimizer["lr"] for c in runs} == {recipes.SETTINGS["joint"]["optimizer"]["lr"]}
    modalities = [c.method["modality"] for c in runs if c.method["name"] == "unimodal" and c.seed == 0]
    assert modalities == ["audio", "image"]


def test_what_the_readme_shows_of_the_demo_is_what_it_printed():
    root = RESULTS.parents[1]
    shown = (root / "README.md").read_text().split("```text\n")[1].split("```")[0]
    printed = (root / "results" / "demo" / "output.txt").read_text().splitlines()
    lines = [line for line in shown.splitlines() if line]
    assert len(lines) > 8
    assert all(line in printed for line in lines)
