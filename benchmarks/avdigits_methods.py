"""Train every method on AV-digits, late and early fusion, at its paper's default settings; compare what each costs.

    python benchmarks/avdigits_methods.py run --seeds 5
    python benchmarks/avdigits_methods.py cost
    msam report results/avdigits-methods/late --out results/avdigits-methods/late
    msam report results/avdigits-methods/early --out results/avdigits-methods/early

No settings were tuned here, so no ranking follows. Runs that are recorded are skipped, interrupted ones go on.
"""

from pathlib import Path
from statistics import median

from avdigits_late import run as run_all
from cyclopts import App

from msam import methods, recipes, record
from msam.record import Record
from msam.train import config as checked
from msam.train import parts

app = App(help=__doc__)
FOLDER = Path(__file__).parents[1] / "results" / "avdigits-methods"
FUSIONS = ("late", "early")


@app.command
def run(*, seeds: int = 5, workers: int = 2) -> None:
    """Run every method with both fusions."""
    for fusion in FUSIONS:
        run_all(recipes.every_method(fusion, seeds), FOLDER / fusion / "runs", workers)


@app.command
def cost() -> None:
    """Write cost.md: passes declared and counted, and time per step as a multiple of joint training's."""
    lines = [
        "Time per step as a multiple of joint training's: median over seeds of the ratio in the same seed; at most 1.5 x",
        "the passes declared is the aim. Written by `python benchmarks/avdigits_methods.py cost`.",
        "",
        "| Fusion | Method | Passes declared | Passes counted | Time / joint | Time / (joint x passes) |",
        "| :--- | :--- | ---: | ---: | ---: | ---: |",
    ]
    for fusion in FUSIONS:
        found = record.find(FOLDER / fusion / "runs")
        joint = {r.config["seed"]: _time(r) for r in found if r.config["method"]["name"] == "joint"}
        for name in methods.names():
            mine = [r for r in found if r.config["method"]["name"] == name]
            if mine and name != "unimodal":
                lines.append(_row(fusion, name, mine, joint))
    (FOLDER / "cost.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _row(fusion: str, name: str, mine: list[Record], joint: dict[int, float]) -> str:
    declared = parts.method(checked(mine[0].config)).passes(len(mine[0].header["modalities"])).cost
    counted = median(r.end["passes_per_step"] for r in mine if r.end)
    ratio = median(_time(r) / joint[r.config["seed"]] for r in mine)
    return f"| {fusion} | {name} | {declared:.2f} | {counted:.2f} | {ratio:.2f} | {ratio / declared:.2f} |"


def _time(found: Record) -> float:
    assert found.end is not None
    return float(found.end["seconds_per_step"])


if __name__ == "__main__":
    app()
