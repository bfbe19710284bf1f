"""What a monitor costs: fifty training steps with one look, beside the same steps without, in turn in one process.

    python benchmarks/speed/monitor.py               # about two minutes; results/monitor/monitor.md

Run it on an idle machine.
"""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import torch
from cyclopts import run
from measure import timed
from rich.console import Console
from torch import nn
from workloads import WORKLOADS, Workload

import msam
from msam.train.engine import facts

FOLDER = Path(__file__).parents[2] / "results" / "monitor"
EVERY = 50
KINDS = {"without": None, "encoders once more": "inputs", "features of the step": "features", "inputs absent": "all"}
ROUNDS = {"mlps": 60, "transformers": 10}


def bench(*, rounds: int = 0, out: Path = FOLDER) -> None:
    """Measure, write record and table, and print the table."""
    torch.set_num_threads(1)
    rows = {name: _ratios(WORKLOADS[name], rounds or count) for name, count in ROUNDS.items()}
    out.mkdir(parents=True, exist_ok=True)
    made = {"host": facts(), "torch": torch.__version__, "every": EVERY, "ratios": rows}
    (out / "monitor.json").write_text(json.dumps(made, indent=1) + "\n")
    text = _table(made["host"], rows)
    (out / "monitor.md").write_text(text)
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def _ratios(workload: Workload, rounds: int) -> dict[str, list[float]]:
    """Return, of every kind of look, the time of the steps with it over that of the steps without, round by round."""
    kinds = {
        "without": None,
        "encoders run once more": "inputs",
        "features of the step": "features",
        "inputs absent": "all",
    }
    found = timed({name: (_steps(workload, kind), 1) for name, kind in kinds.items()}, rounds, lambda: None)
    plain = found.pop("without").cpu
    return {name: [mine / other for mine, other in zip(seen.cpu, plain, strict=True)] for name, seen in found.items()}


def _steps(workload: Workload, kind: str | None) -> Callable[[], None]:
    model = workload.build()
    x, y = workload.batch(torch.device("cpu"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    monitor = msam.Monitor(model, every=EVERY, absent="input" if kind == "all" else None)

    def steps() -> None:
        for _ in range(EVERY):
            optimizer.zero_grad()
            output = model(x)
            nn.functional.cross_entropy(output.logits, y).backward()
            optimizer.step()
            if kind == "features":
                monitor(None, y, features=output.features)
            elif kind is not None:
                monitor(x, y)

    return steps


def _table(host: dict[str, object], rows: dict[str, dict[str, list[float]]]) -> str:
    lines = [
        f"torch {torch.__version__}, {host['machine']}, 1 thread of {host['cpus']} cores. {EVERY} steps of SGD with one",
        f"look, over {EVERY} without: CPU time, medians over rounds, quartiles in brackets. Written by",
        "`python benchmarks/speed/monitor.py`.",
        "",
        "| Model | Look | Time of the loop |",
        "| :--- | :--- | ---: |",
    ]
    for model, looks in rows.items():
        for look, ratios in looks.items():
            low, _, high = quantiles(ratios)
            lines.append(f"| {model} | {look} | {median(ratios):.3f} [{low:.3f}, {high:.3f}] |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run(bench)
