"""Tune Joint, SAM and M-SAM on AV-digits with equal budgets, then compare them over seeds.

    python benchmarks/avdigits_late.py tune         # 15 settings x 3 seeds a row; choice by validation accuracy
    python benchmarks/avdigits_late.py compare      # 10 seeds at the chosen settings, and controls
    msam report results/avdigits-late/runs --out results/avdigits-late
    msam report results/avdigits-late/runs results/avdigits-late/controls --out results/avdigits-late/with-controls

Runs that are recorded are skipped, interrupted ones go on; records lie under results/avdigits-late.
"""

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from cyclopts import App
from rich.progress import track

from msam import recipes
from msam.record import Record, read
from msam.train import RunConfig, train

app = App(help=__doc__)
FOLDER = Path(__file__).parents[1] / "results" / "avdigits-late"


@app.command
def tune(*, workers: int = 2) -> None:
    """Run the trials and write what validation chose to tuning.json."""
    chosen = {}
    for row, configs in recipes.trials().items():
        records = run(configs, FOLDER / "tuning" / row, workers)
        scores: dict[str, list[float]] = {}
        for record in records:
            settings = {key: record.config["optimizer"][key] for key in ("lr", "weight_decay")}
            if record.config["sharpness"]:
                settings["rho"] = record.config["sharpness"]["rho"]
            scores.setdefault(json.dumps(settings), []).append(max(e["valid"]["accuracy"] for e in record.epochs))
        means = {settings: sum(values) / len(values) for settings, values in scores.items()}
        best = max(means, key=means.__getitem__)
        chosen[row] = {"chosen": json.loads(best), "validation_accuracy": means}
        print(row, best, means)
    (FOLDER / "tuning.json").write_text(json.dumps(chosen, indent=1) + "\n")


@app.command
def compare(*, seeds: int = 10, workers: int = 2) -> None:
    """Run the comparison, then its controls."""
    run(recipes.comparison(seeds), FOLDER / "runs", workers)
    run(recipes.controls(seeds), FOLDER / "controls", workers)


def run(configs: list[RunConfig], folder: Path, workers: int) -> list[Record]:
    """Train what is not recorded yet; return all records."""
    with ProcessPoolExecutor(workers) as pool:
        return list(track(pool.map(partial(one, folder=folder), configs), total=len(configs), description=folder.name))


def one(settings: RunConfig, *, folder: Path) -> Record:
    """Train one run; one that has ended, well or by diverging, is returned as it is recorded."""
    place = folder / settings.run_name()
    try:
        return train(settings, place, resume=True)
    except ValueError:
        found = read(place / "record.jsonl")
        if found.end is None or found.end["status"] != "diverged":
            raise
        return found


if __name__ == "__main__":
    app()
