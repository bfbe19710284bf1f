"""What cheaper forms of M-SAM lose: exact steps against every k-th, on AV-digits and on worlds of the dial.

    python benchmarks/low_cost.py run
    python benchmarks/low_cost.py table

Pairs of runs share the world, the seed and everything else. In half of the dial's worlds, as chance decides, the first
modality is the strong one. Joint training stands beside them, to tell whether climbing does anything there at all. Runs
that are recorded are skipped, interrupted ones go on.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avdigits_late import run as run_all
from cyclopts import App

from msam.recipes import SETTINGS
from msam.record import Record, find
from msam.report.stats import family, paired
from msam.train import RunConfig, config

app = App(help=__doc__)
FOLDER = Path(__file__).parents[1] / "results" / "low-cost"
EVERY = (1, 2, 5, 10)
SEEDS = range(10)
WORLDS = range(500, 520)
DIAL_RHO = 0.5
MARGIN = 0.3
"""Points of accuracy that count as no loss."""


@app.command
def run(*, workers: int = 2) -> None:
    """Run joint training, exact M-SAM and M-SAM that climbs at every k-th step."""
    for name, configs in _configs().items():
        run_all(configs, FOLDER / name / "runs", workers)


@app.command
def table() -> None:
    """Write table.md from the records."""
    lines = [
        "Test accuracy in percent, at the epoch that validation chose: M-SAM that climbs at every k-th step and reuses the",
        "change in between, against exact M-SAM; paired by seed or world. Intervals: 95 % BCa of the mean difference; p:",
        "paired permutation test after Holm over the family of the data set. Written by",
        "`python benchmarks/low_cost.py table`.",
        "",
        "| Data | Row | n | Accuracy | Minus exact M-SAM | p (Holm) | Within 0.3 points |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | :--- |",
    ]
    for name in _configs():
        lines += _rows(name, find(FOLDER / name / "runs"))
    (FOLDER / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _configs() -> dict[str, list[RunConfig]]:
    """Return the runs of each data set."""
    digits = [_row(row, seed, {"name": "avdigits"}, 0.1) for seed in SEEDS for row in (0, *EVERY)]
    worlds = [_row(row, seed, _world(seed), DIAL_RHO) for seed in WORLDS for row in (0, *EVERY)]
    return {"avdigits": digits, "dial": worlds}


def _row(every: int, seed: int, data: dict[str, Any], rho: float) -> RunConfig:
    """Return joint training for 0, else M-SAM that climbs at every so many steps."""
    raw: dict[str, Any] = {**SETTINGS["joint"], "data": data}
    if every:
        raw["sharpness"] = {"name": "msam", "rho": rho, "every": every}
    return config(raw, seed=seed, record_every=1000, threads=1)


def _world(seed: int) -> dict[str, Any]:
    """Return the default world of a seed, with the strong modality drawn by chance."""
    signal, modes = ((4.0, 3.0), (4, 1)) if random.Random(seed).random() < 0.5 else ((3.0, 4.0), (1, 4))
    return {"name": "dial", "seed": seed, "signal": signal, "modes": modes}


def _rows(name: str, records: list[Record]) -> Iterator[str]:
    by_row: dict[int, list[Record]] = {}
    for record in records:
        rule = record.config["sharpness"]
        by_row.setdefault(rule["every"] if rule else 0, []).append(record)
    exact = by_row.pop(1)
    found = family([paired(rows, exact, names=(_title(k), "exact")) for k, rows in sorted(by_row.items())])
    yield f"| {name} | M-SAM, exact | {len(exact)} | {_accuracy(exact)} | | | |"
    for comparison, (_, rows) in zip(found, sorted(by_row.items()), strict=True):
        low, high = 100 * comparison.low, 100 * comparison.high
        within = (
            "yes" if low >= -MARGIN and high <= MARGIN else "mean" if abs(100 * comparison.mean) <= MARGIN else "no"
        )
        yield (
            f"| {name} | {comparison.name} | {len(comparison.differences)} | {_accuracy(rows)} | "
            f"{100 * comparison.mean:+.2f} [{low:+.2f}, {high:+.2f}] | {comparison.p_holm:.3f} | {within} |"
        )


def _title(every: int) -> str:
    return f"M-SAM, every {every}" if every else "joint"


def _accuracy(records: list[Record]) -> str:
    chosen = [max(r.epochs, key=lambda epoch: epoch["valid"]["accuracy"])["test"]["accuracy"] for r in records]
    return f"{100 * sum(chosen) / len(chosen):.1f}"


if __name__ == "__main__":
    app()
