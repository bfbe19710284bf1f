"""Runs an hour on two cores: `python benchmarks/stacking.py` writes results/stacking/stacking.json and .md.

The same kind of cells three ways, in turn: a process for every run (`msam train`, two at a time, torch's own number of
threads); workers that stay alive, with one thread each (`bench.run`); and the same workers with runs stacked. What is
measured is kept as it comes: a bench that was stopped goes on where it was. Run it on an idle machine; the CPU time, which
other programs hardly change, stands beside the clock on the wall.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from cyclopts import run as command

from msam import bench
from msam.bench import engines, stack
from msam.record import Record
from msam.train import RunConfig, config, train

ROOT = Path(__file__).parents[1]
PROGRAM = str(Path(sys.executable).with_name("msam"))
WORKERS = 2
RULES = {"dial": ("none", "sam", "gnp", "msam"), "avdigits": ("sam", "msam")}
SEEDS = {"dial": 10, "avdigits": 2}
FORCED = {"data": {"name": "avdigits", "train_size": 320, "valid_size": 50, "test_size": 50}, "epochs": 1, "threads": 1}


def main(
    *, rounds: int = 2, out: str = str(ROOT / "results" / "stacking"), anew: bool = False, epochs: int = 20
) -> None:
    """Measure what is not measured yet, and write the tables.

    Parameters
    ----------
    rounds
        measurements of each way on the dial; AV-digits has one.
    out
        folder of the results.
    anew
        forget what was measured before.
    epochs
        of every run.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "stacking.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() and not anew else {}
    if found.get("epochs") != epochs:
        found = {"epochs": epochs, "parts": {}}
    found["machine"] = _machine()
    for name, measure in _plan(rounds, epochs).items():
        if name in found["parts"]:
            continue
        print(name, flush=True)
        found["parts"][name] = measure()
        _write(kept, json.dumps(found, indent=1) + "\n")
    _write(folder / "stacking.md", _told(found))


def _plan(rounds: int, epochs: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what to measure, in turn: a name with data, way and round, and what measures it."""
    plan: dict[str, Callable[[], dict[str, Any]]] = {}
    for number in range(rounds):
        plan[f"dial, processes, {number}"] = partial(_processes, _cells("dial", 1, epochs))
        plan[f"dial, workers, {number}"] = partial(_workers, _cells("dial", SEEDS["dial"], epochs), 0)
        plan[f"dial, stacks of 5, {number}"] = partial(_workers, _cells("dial", SEEDS["dial"], epochs), 5)
        plan[f"dial, stacks of 10, {number}"] = partial(_workers, _cells("dial", SEEDS["dial"], epochs), 10)
    plan["avdigits, processes, 0"] = partial(_processes, _cells("avdigits", 1, epochs))
    plan["avdigits, workers, 0"] = partial(_workers, _cells("avdigits", SEEDS["avdigits"], epochs), 0)
    plan["convolutions, 5 alone, 0"] = partial(_forced, together=False)
    plan["convolutions, a stack of 5, 0"] = partial(_forced, together=True)
    return plan


def _cells(data: str, seeds: int, epochs: int) -> list[RunConfig]:
    own = {"dial": True, "avdigits": False}[data]  # every run of the dial has a world of its own
    return [
        config(
            data={"name": data, "seed": seed if own else 0},
            sharpness=rule,
            seed=seed,
            epochs=epochs,
            threads=1,
            record_every=0,
        )
        for rule, seed in product(RULES[data], range(seeds))
    ]


def _processes(cells: Sequence[RunConfig]) -> dict[str, Any]:
    """A process for every run, two at a time."""
    with tempfile.TemporaryDirectory() as folder:
        commands = []
        for number, cell in enumerate(cells):
            chosen = cell.model_dump(exclude={"threads"})
            (Path(folder) / f"{number}.toml").write_text(_toml(chosen))
            out = str(Path(folder) / str(number))
            commands.append([PROGRAM, "train", "--config", f"{out}.toml", "--out", out])

        def work() -> None:
            waiting, running = list(commands), list[subprocess.Popen[bytes]]()
            while waiting or running:
                while waiting and len(running) < WORKERS:
                    asked = waiting.pop(0)
                    with open(f"{asked[-1]}.log", "w") as log:
                        running.append(subprocess.Popen(asked, stderr=log, stdout=log))
                time.sleep(0.01)
                ended = [process for process in running if process.poll() is not None]
                for process in ended:
                    if process.returncode:
                        raise RuntimeError(Path(f"{process.args[-1]}.log").read_text())  # type: ignore[index]
                running = [process for process in running if process not in ended]

        return _timed(work) | {"runs": len(cells)}


def _workers(cells: Sequence[RunConfig], width: int) -> dict[str, Any]:
    """Workers that have been working: one thread each, alone or with stacks of a width."""
    engine = engines.load("local")(workers=WORKERS)
    stack.WIDTH = width or 1
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        first = [
            config(data={"name": "dial", "bayes_samples": 100}, seed=s, epochs=1, threads=1) for s in range(WORKERS)
        ]
        bench.run(first, Path(folder) / "first", engine=engine, quiet=True)
        timed = _timed(
            lambda: records.extend(
                bench.run(cells, Path(folder) / "cells", engine=engine, stacked=width > 1, quiet=True)
            )
        )
    return timed | {"runs": len(cells), "accuracy": [record.epochs[-1]["test"]["accuracy"] for record in records]}


def _forced(together: bool) -> dict[str, Any]:
    """Five runs on AV-digits, whose convolutions `groups` leaves alone: what a stack of them takes."""
    cells = [config(FORCED, sharpness="msam", seed=seed, record_every=0) for seed in range(5)]
    data = stack.kept(cells[0])
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(number) for number in range(len(cells))]
        train(cells[0], Path(folder) / "first", dataset=data)
        if together:
            return _timed(lambda: stack.train_together(cells, places)) | {"runs": len(cells)}
        alone = [partial(train, cell, place, dataset=data) for cell, place in zip(cells, places, strict=True)]
        return _timed(lambda: [run() for run in alone]) | {"runs": len(cells)}


def _timed(work: Callable[[], object]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), _cpu_seconds()
    work()
    return {
        "wall": round(time.perf_counter() - wall, 2),
        "cpu": round(_cpu_seconds() - cpu, 2),
        "load": round(os.getloadavg()[0], 2),
    }


def _cpu_seconds() -> float:
    """Return the CPU time of this process and all that descend from it, living or not (Linux)."""
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        pid = int(stat.parent.name)
        parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    mine = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sum(ticks[pid] for pid in mine) / os.sysconf("SC_CLK_TCK")


def _toml(values: dict[str, Any]) -> str:
    """Return a configuration as TOML: plain values, then a table for every part."""
    plain = [
        f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict | type(None))
    ]
    tables = [(key, value) for key, value in values.items() if isinstance(value, dict) and value]
    return "\n".join([*plain, *(f"[{key}]\n{_toml(value)}" for key, value in tables)]) + "\n"


def _machine() -> str:
    model = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"torch {torch.__version__}, {model[0] if model else platform.machine()}, {os.cpu_count()} cores"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text)
    draft.replace(path)


def _told(found: dict[str, Any]) -> str:
    """Return the tables."""
    ways: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, part in found["parts"].items():
        data, way, _ = name.split(", ")
        ways.setdefault((data, way), []).append(part)
    totals = {key: {k: sum(part[k] for part in parts) for k in ("runs", "wall", "cpu")} for key, parts in ways.items()}
    loads = [part["load"] for part in found["parts"].values()]
    text = [
        f"{found['machine']}, {found['epochs']} epochs. The load was {min(loads)} to {max(loads)}, the bench's own",
        f"{WORKERS} among it. Written by `python benchmarks/stacking.py`.",
        "",
        "| Data | Way | Runs | Runs an hour | Times as many | CPU seconds a run | Times less |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (data, way), total in totals.items():
        base = totals.get((data, "processes")) or totals[data, "5 alone"]
        rate, cpu = 3600 * total["runs"] / total["wall"], total["cpu"] / total["runs"]
        faster = rate / (3600 * base["runs"] / base["wall"])
        less = base["cpu"] / base["runs"] / cpu
        text.append(f"| {data} | {way} | {total['runs']} | {rate:.0f} | {faster:.1f} | {cpu:.2f} | {less:.1f} |")
    alone = [a for part in ways.get(("dial", "workers"), []) for a in part["accuracy"]]
    stacked = [a for part in ways.get(("dial", "stacks of 10"), []) for a in part["accuracy"]]
    if alone and len(alone) == len(stacked):
        apart = [a - b for a, b in zip(stacked, alone, strict=True)]
        text += [
            "",
            f"The same cells of the dial alone and in stacks of ten, in single precision: mean test accuracy "
            f"{statistics.fmean(alone):.4f} and {statistics.fmean(stacked):.4f}; of {len(apart)} pairs "
            f"{sum(d == 0 for d in apart)} are equal, the largest difference is {max(map(abs, apart)):.4f}, the mean one "
            f"{statistics.fmean(apart):+.5f}.",
        ]
    return "\n".join([*text, ""])


if __name__ == "__main__":
    command(main)
