"""No test number decides anything: with all of them permuted over runs and epochs the report makes the same choices."""

import json
from pathlib import Path

import numpy as np
import pytest

from msam import record, selection
from msam.report import controls, pairs, ranks, rows, runs
from msam.report.runs import Run
from tests.report._records import config, write

RULES = {
    "joint": ("joint", None, 3),
    "twice": ("joint", None, 6),
    "sam-1": ("joint", {"name": "sam", "rho": 0.1}, 3),
    "sam-2": ("joint", {"name": "sam", "rho": 0.2}, 3),
    "msam-1": ("joint", {"name": "msam", "rho": 0.1}, 3),
    "msam-3": ("joint", {"name": "msam", "rho": 0.3}, 3),
    "gnp": ("joint", {"name": "gnp", "rho": 0.3, "alpha": 0.7}, 3),
    "ogm": ("ogm_ge", None, 3),
    "ensemble": ("ensemble", None, 3),
}


def study(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for fusion in ("late", "early", "concat"):
        for name, (method, rule, epochs) in RULES.items():
            for seed in range(3):
                settings = config(method, rule, seed=seed, epochs=epochs, fusion={"name": fusion})
                train, valid, test = random.uniform(0.5, 0.95, (3, epochs)).round(3).tolist()
                path = folder / f"{fusion}-{name}-{seed}.jsonl"
                write(path, settings, train=train, valid=valid, test=test)
    return folder


def permuted(folder: Path, out: Path, seed: int) -> Path:
    """Copy records with what they say of the test split dealt out anew, over all epochs of all runs."""
    lines = {path.name: [json.loads(text) for text in path.read_text().splitlines()] for path in folder.glob("*.jsonl")}
    places = [(name, i) for name, found in sorted(lines.items()) for i, line in enumerate(found) if "test" in line]
    order = np.random.default_rng(seed).permutation(len(places))
    tests = [lines[name][i]["test"] for name, i in places]
    for (name, i), source in zip(places, order, strict=True):
        lines[name][i]["test"] = tests[source]
    out.mkdir()
    for name, found in lines.items():
        (out / name).write_text("".join(json.dumps(line) + "\n" for line in found))
    return out


def read(folder: Path) -> list[Run]:
    return runs.finished(record.find(folder), selection.load("best_validation"))[0]


def choices(folder: Path) -> dict[str, object]:
    found = read(folder)
    blocks = [controls.marked(block) for block in rows.blocks(found)]
    ranked, why = ranks.over(blocks)
    return {
        "epochs": {run.record.path.name: run.chosen for run in found},
        "rows": [[row.label for row in block.rows] for block in blocks],
        "pairs": [[(a.label, b.label) for a, b in pairs.meeting(block)] for block in blocks],
        "champions": [[row.label for row in pairs.champions(block)] for block in blocks],
        "controls": [controls.found(block) for block in blocks],
        "missing": [[controls.missing(block, row) for row in controls.guarded(block)] for block in blocks],
        "ranked": (sorted(ranked.rows) if ranked else None, why),
        "stands for its name": [{name: row.label for name, row in pairs.standing(block).items()} for block in blocks],
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study(tmp_path_factory.mktemp("original"))


@pytest.mark.parametrize("seed", range(3))
def test_permuting_every_test_number_changes_no_choice(original: Path, tmp_path: Path, seed: int) -> None:
    other = permuted(original, tmp_path / "permuted", seed)
    assert choices(other) == choices(original)
    before, after = (
        {run.record.path.name: run.measures["accuracy"] for run in read(folder)} for folder in (original, other)
    )
    assert sum(before[name] != after[name] for name in before) > 0.9 * len(before)


def test_permuting_validation_does(original: Path, tmp_path: Path) -> None:
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    for path in original.glob("*.jsonl"):
        found = [json.loads(text) for text in path.read_text().splitlines()]
        for line in found:
            if "test" in line:
                line["test"], line["valid"] = line["valid"], line["test"]
        (swapped / path.name).write_text("".join(json.dumps(line) + "\n" for line in found))
    before, after = choices(original), choices(swapped)
    assert before["epochs"] != after["epochs"]
    assert before["champions"] != after["champions"] or before["pairs"] != after["pairs"]
