"""Train every method on AV-digits, late and early fusion, at its paper's default settings; compare what each costs.

    python benchmarks/avdigits_methods.py run --seeds 5
    python benchmarks/avdigits_methods.py cost
    msam report results/avdigits-methods/late/runs --out results/avdigits-methods/late
    msam report results/avdigits-methods/early/runs --out results/avdigits-methods/early

No settings were tuned here, so no ranking follows. Runs that diverge are recorded as such and left out of the table.
Runs that are recorded are skipped, interrupted ones go on.
"""

import json
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from avdigits_late import run as run_all
from cyclopts import App
from rich.progress import track

from msam import recipes
from msam.train import RunConfig, config, parts, train
from msam.train.engine import facts

app = App(help=__doc__)
FOLDER = Path(__file__).parents[1] / "results" / "avdigits-methods"
FUSIONS = ("late", "early")


@app.command
def run(*, seeds: int = 5, workers: int = 2) -> None:
    """Run every method with both fusions."""
    for fusion in FUSIONS:
        run_all(recipes.every_method(fusion, seeds), FOLDER / fusion / "runs", workers)


@app.command
def cost(*, rounds: int = 5) -> None:
    """Time short runs of all methods in turn, on one thread; write cost.json and cost.md.

    Run it on an idle machine.
    """
    measured: dict[str, dict[str, list[float]]] = {}
    costs: dict[str, tuple[float, float]] = {}
    work = [(r, fusion, settings) for r in range(rounds) for fusion in FUSIONS for settings in _short(fusion)]
    for _, fusion, settings in track(work, description="cost"):
        with TemporaryDirectory() as folder:
            end = train(settings, folder).end
        assert end is not None
        name = settings.method["name"]
        measured.setdefault(fusion, {}).setdefault(name, []).append(end["seconds_per_step"])
        costs[f"{fusion} {name}"] = (parts.method(settings).passes(2).cost, end["passes_per_step"])
    (FOLDER / "cost.json").write_text(json.dumps({"seconds_per_step": measured, "host": facts()}, indent=1) + "\n")
    lines = [
        "Time of a step as a multiple of joint training's, median over rounds of the ratio within a round. Aim:",
        "at most 1.5 for each pass that a method declares. Written by `python benchmarks/avdigits_methods.py cost`.",
        "",
        "| Fusion | Method | Passes declared | Passes counted | Time / joint | Time / (joint x passes declared) |",
        "| :--- | :--- | ---: | ---: | ---: | ---: |",
    ]
    for fusion, methods_ in measured.items():
        for name, seconds in methods_.items():
            ratio = median(mine / joint for mine, joint in zip(seconds, methods_["joint"], strict=True))
            declared, counted = costs[f"{fusion} {name}"]
            row = (fusion, name, f"{declared:.2f}", f"{counted:.2f}", f"{ratio:.2f}", f"{ratio / declared:.2f}")
            lines.append(f"| {' | '.join(row)} |")
    (FOLDER / "cost.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _short(fusion: str) -> list[RunConfig]:
    """Return a short run of every method: eight epochs, a whole turn of the longest, on little data."""
    small = {"name": "avdigits", "train_size": 512, "valid_size": 100, "test_size": 100}
    return [
        config({**settings.model_dump(), "data": small, "epochs": 8, "record_every": 1000})
        for settings in recipes.every_method(fusion, 1)
        if settings.method["name"] != "unimodal"
    ]


if __name__ == "__main__":
    app()
