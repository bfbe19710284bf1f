"""Tune every row of the evidence's grids with equal budgets, run them on other seeds, and write docs/evidence.md.

    python benchmarks/evidence run dial          # tune, then run what is missing; several names, or none for all grids
    python benchmarks/evidence write             # the page, from the records alone

Budgets are those of `msam.recipes.evidence.BUDGETS`. What is recorded is skipped and what was interrupted goes on; records
lie under results/evidence, those of the trials beside them; they are large and not committed, what was chosen and every
trial's validation accuracy are.
"""

from pathlib import Path

from cyclopts import App
from found import FOLDER, PROBED, probed, tuned
from page import written

from msam import bench
from msam._files import write_whole
from msam.bench import engines
from msam.bench import tune as tuning
from msam.recipes import evidence

PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
app = App(help=__doc__)


@app.command
def run(*names: str, workers: int = 2, stacked: bool = True) -> None:
    """Tune and run grids, all of them if none is named."""
    engine = engines.load("local")(workers=workers)
    for name in names or evidence.GRIDS:
        grid, budget, folder = evidence.GRIDS[name](), evidence.BUDGETS[name], FOLDER / name
        tuning.seeds_apart(tuning.tuning_seeds(budget.seeds), grid.seeds)
        tuning.tune(
            grid.rows, folder / "tuning", trials=budget.trials, seeds=budget.seeds, engine=engine, stacked=stacked
        )
        chosen = tuned(name)
        records = bench.run(chosen.cells(), folder / "runs", engine=engine, stacked=stacked)
        bench.run(bench.controls(chosen, records).cells(), folder / "runs", engine=engine, stacked=stacked)
        bench.run(probed(chosen).cells(), folder / PROBED, engine=engine)


@app.command
def write(out: Path = PAGE) -> None:
    """Write the page from the records."""
    write_whole(out, written())


if __name__ == "__main__":
    app()
