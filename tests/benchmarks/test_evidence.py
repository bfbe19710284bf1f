"""The evidence page: one command tunes, runs and measures, another writes every number from what is recorded."""

import importlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from msam.bench import grid
from msam.checks import Search
from msam.recipes import evidence

HOME = Path(__file__).parents[2] / "benchmarks" / "evidence"
MODULES = ("found", "claims", "recommended", "page")
WORLD = {"train_size": 128, "valid_size": 100, "test_size": 100, "bayes_samples": 500}


def small(seeds=7):
    """Rows of the evidence's names on small shuffled worlds: 7 of them, the fewest that can show four differences."""
    who = {"name": "msam", "scope": "dominant", "modality": "weakest"}
    rules = ["none", "sam", "msam", {"name": "msam", "scope": "dominant"}, who]
    made = grid(data={**evidence.DIAL, **WORLD}, sharpness=rules, method="joint", seeds=seeds, epochs=3)
    return made.with_rows(
        {name: {**row, "search": {"optimizer.lr": Search(0.01, 0.1)}} for name, row in made.rows.items()}
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The grid, tuned, run, measured and written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HOME))
        found, claims, _, page = map(importlib.import_module, MODULES)
        spec = importlib.util.spec_from_file_location("evidence_main", HOME / "__main__.py")
        main = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(main)
        folder = tmp_path_factory.mktemp("evidence")
        for module in (found, main):
            patch.setattr(module, "FOLDER", folder)
        patch.setattr(evidence, "GRIDS", {"dial": small})
        patch.setattr(evidence, "BUDGETS", {"dial": evidence.Budget(2, 1)})
        main.run(workers=1)
        text = page.written("tables.md.j2")
        yield SimpleNamespace(found=found, claims=claims, page=page, main=main, folder=folder, text=text)
        for name in MODULES:
            sys.modules.pop(name)


def test_every_row_and_every_control_is_a_row_of_the_table(made):
    table = made.text.split("## The dial, late fusion")[1]
    for row in ("joint", "sam", "msam", "msam.scope=dominant", "msam (twice)", "msam (constant)", "msam (ensemble)"):
        assert f"\n| {row} | 7 |" in table


def test_its_numbers_are_those_of_the_records(made):
    grid = made.found.load("dial")
    runs = grid.rows[made.claims.full(grid, "joint-sam")]
    values = [100 * run.record.epochs[run.chosen]["test"]["accuracy"] for run in runs.values()]
    mean = sum(values) / len(values)
    assert re.search(rf"\n\| sam \| 7 \| {mean:.1f} ±", made.text)


def test_the_fast_modality_is_the_one_that_was_dealt_one_mode(made):
    runs = made.found.load("dial").rows["dial-late-joint-none-sgd"]
    places = set()
    for run in runs.values():
        facts = run.record.header["data"]["facts"]
        fast = next(name for name in run.modalities if facts[f"dealt/{name}"] == 1.0)
        places.add(fast)
        assert made.found.of_fast(run) == 100 * run.measures[f"zeroed.{fast}"]
    assert places == {"modality_0", "modality_1"}


def test_curvature_is_measured_of_the_rows_that_are_asked_of(made):
    grid = made.found.load("dial")
    assert len(grid.probed) == 4
    assert all(made.found.eigenvalue(run) > 0 for runs in grid.probed.values() for run in runs.values())


def test_a_claim_is_read_by_the_direction_that_is_the_better_one(made):
    question = made.claims.Question("dial", "joint-msam", "joint-sam", "tau")
    lower = made.page.stats.compare("a", "b", [0.1, 0.2, 0.15, 0.1, 0.1, 0.2], [0.9, 0.8, 0.7, 0.9, 0.8, 0.9])
    assert made.claims.Answer(question, lower).direction == 1
    assert made.claims.Answer(question._replace(scale="accuracy"), lower).direction == -1


@pytest.mark.parametrize(
    ("directions", "words"),
    [
        ([1, 1], "holds"),
        ([1, 0], "shown in 1 of 2"),
        ([0, 0], "not shown"),
        ([1, -1], "mixed"),
        ([-1, 0], "does not hold"),
        ([-1, -1], "the opposite is shown"),
        ([], "not tested yet"),
    ],
)
def test_verdicts(made, directions, words):
    questions = tuple(made.claims.Question("dial", str(i), "x") for i in range(2))
    told = {q: SimpleNamespace(direction=d) for q, d in zip(questions, directions, strict=False)}
    assert words in made.claims.verdict(made.claims.Claim("key", "It is so.", "Sec. 1", questions), told)


def test_to_write_again_changes_nothing_and_to_run_again_trains_nothing(made, monkeypatch):
    made.found.load.cache_clear()
    monkeypatch.setattr(made.main.bench, "run", lambda cells, folder, **_: _recorded(made, folder))
    made.main.run(workers=1)
    assert made.page.written("tables.md.j2") == made.text


def test_straight_curves_are_smooth(made):
    def curve(*values):
        return SimpleNamespace(record=SimpleNamespace(epochs=[{"valid": {"accuracy": v}} for v in values]))

    assert made.found.roughness(curve(0.1, 0.2, 0.3, 0.4)) == pytest.approx(0)
    assert made.found.roughness(curve(0.1, 0.3, 0.1)) == pytest.approx(40)


def _recorded(made, folder):
    from msam import record

    return record.find(folder)
