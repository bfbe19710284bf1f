"""Tune every row of the evidence's grids with equal budgets, run them on other seeds, and write docs/evidence.md.

    python benchmarks/evidence run dial          # tune, then run what is missing; several names, or none for all grids
    python benchmarks/evidence recommend         # candidates for the recipe `recommended`, and the choice elsewhere
    python benchmarks/evidence write             # the page, from the records alone

Budgets are those of `msam.recipes.evidence.BUDGETS`. What is recorded is skipped and what was interrupted goes on; records
lie under results/evidence, those of the trials beside them; they are large and not committed, what was chosen and every
trial's validation accuracy are.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import recommended
from cyclopts import App
from found import FOLDER, PROBED, controlled, probed, tuned
from page import written

from msam import bench, record
from msam._files import write_whole
from msam.bench import engines
from msam.bench import tune as tuning
from msam.recipes import evidence

Item = TypeVar("Item")
PAGE = Path(__file__).parents[2] / "docs" / "evidence.md"
TOGETHER = 5
"""Rows that are tuned, and then run, before the next: what a session has finished can be kept."""

app = App(help=__doc__)


@app.command
def run(*names: str, workers: int = 2, stacked: bool = True) -> None:
    """Tune and run grids, all of them if none is named."""
    engine = engines.load("local")(workers=workers)
    for name in names or evidence.GRIDS:
        grid, budget, folder = evidence.GRIDS[name](), evidence.BUDGETS[name], FOLDER / name
        seeds = tuning.tuning_seeds(budget.seeds)
        tuning.seeds_apart(seeds, grid.seeds)
        for rows in map(dict, batched(grid.rows.items(), TOGETHER)):
            place = folder / "tuning"
            tuning.tune(rows, place, trials=budget.trials, seeds=seeds, engine=engine, stacked=stacked)
            bench.run(tuned(name, rows).cells(), folder / "runs", engine=engine, stacked=stacked)
        chosen = tuned(name)
        records = record.find(folder / "runs")
        bench.run(bench.controls(controlled(chosen), records).cells(), folder / "runs", engine=engine, stacked=stacked)
        bench.run(probed(chosen).cells(), folder / PROBED, engine=engine)


@app.command
def recommend(workers: int = 2) -> None:
    """Run the candidates for the recommended setting, and then the choice on held-out worlds and seeds."""
    engine = engines.load("local")(workers=workers)
    recommended.choose(engine)
    recommended.confirm(engine)


@app.command
def write(out: Path = PAGE) -> None:
    """Write the page from the records."""
    write_whole(out, written().encode())


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items, so many at once (`itertools.batched` is of Python 3.12)."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


if __name__ == "__main__":
    app()
