"""Tune every row of the evidence's grids with equal budgets, run them on other seeds, and write docs/evidence.md.

    python benchmarks/evidence.py run dial          # tune, then run what is missing; several names or none for all
    python benchmarks/evidence.py write             # the page, from the records alone

Budgets are those of `msam.recipes.evidence.BUDGETS`. What is recorded is skipped and what was interrupted goes on; records
lie under results/evidence, those of the trials (large, and made again by the same command) beside them, not committed.
"""

from pathlib import Path

from cyclopts import App

from msam import bench
from msam.bench import engines
from msam.bench import tune as tuning
from msam.recipes import evidence

app = App(help=__doc__)
FOLDER = Path(__file__).parents[1] / "results" / "evidence"


@app.command
def run(*names: str, workers: int = 2, stacked: bool = True) -> None:
    """Tune and run grids, all of them if none is named."""
    for name in names or evidence.GRIDS:
        grid, budget, folder = evidence.GRIDS[name](), evidence.BUDGETS[name], FOLDER / name
        engine = engines.load("local")(workers=workers)
        tuning.seeds_apart(tuning.tuning_seeds(budget.seeds), grid.seeds)
        chosen = tuning.tune(
            grid.rows, folder / "tuning", trials=budget.trials, seeds=budget.seeds, engine=engine, stacked=stacked
        )
        tuned = grid.tuned({row: choice.settings for row, choice in chosen.items()})
        records = bench.run(tuned.cells(), folder / "runs", engine=engine, stacked=stacked)
        bench.run(bench.controls(tuned, records).cells(), folder / "runs", engine=engine, stacked=stacked)


if __name__ == "__main__":
    app()
