"""Time and memory of a training step of M-SAM beside SGD, SAM of a peer, and the paper's algorithm by the letter.

    python benchmarks/speed                          # all models, on the CPU and on a GPU where there is one
    python benchmarks/speed --models mlps --rounds 10 --out build/speed

Contenders take turns in one process, in an order that chance decides anew in every round; what is told is the median over
rounds of the ratio within a round. All have the same base optimizer with the same flags. Run it on an idle machine.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any

import torch
from contenders import CONTENDERS, Contender, Ours
from cyclopts import App, Parameter
from measure import Timed, peak_bytes, timed
from rich.console import Console
from rich.progress import Progress
from tables import written
from workloads import EIGHT, WORKLOADS, Workload

from msam import checks, shapley
from msam.train.engine import facts

FOLDER = Path(__file__).parents[2] / "results" / "speed"
FLAGS: Mapping[str, dict[str, bool]] = {"default": {}, "fused": {"fused": True}, "loop": {"foreach": False}}
"""Flags of the base optimizer; on the CPU the default is the loop, on a GPU it is foreach."""
app = App(help=__doc__)


@app.default
def bench(
    *,
    models: Annotated[list[str] | None, Parameter(help="which of resnets, mlps, transformers; default all")] = None,
    rounds: Annotated[int, Parameter(help="rounds of each model, 0 for its own number")] = 0,
    threads: Annotated[int, Parameter(help="CPU threads")] = 1,
    out: Annotated[Path, Parameter(help="where record and table go")] = FOLDER,
) -> None:
    """Measure, write a record and a table, and print the table."""
    chosen = [checks.one_of("model", name, WORKLOADS) for name in models or WORKLOADS]
    torch.set_num_threads(threads)
    places = ["cpu", *(["cuda", "cuda bf16"] if torch.cuda.is_available() else [])]
    found: dict[str, Any] = {"host": facts(), "torch": torch.__version__, "threads": threads, "measured": []}
    for place in places:
        for name in chosen:
            for flags in FLAGS if "cuda" in place else ("default", "fused"):
                found["measured"].append(_measured(place, name, flags, rounds))
    if "transformers" in chosen:
        found["shapley"] = _shapley(rounds or EIGHT.rounds)
    out.mkdir(parents=True, exist_ok=True)
    (out / "speed.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "speed.md").write_text(written(found))
    Console().print(written(found), markup=False, highlight=False, soft_wrap=True)


def _measured(place: str, name: str, flags: str, rounds: int) -> dict[str, Any]:
    """Return everything that is known of one model on one device with one kind of base optimizer."""
    workload = WORKLOADS[name]
    rounds = rounds or workload.rounds
    make = partial(_made, workload, place, flags)
    made = {who: make(kind) for who, kind in CONTENDERS.items()}
    steps = {who: (one.step, one.period * -(-workload.steps // one.period)) for who, one in made.items()}
    with Progress(transient=True) as bar:
        task = bar.add_task(f"{place}, {name}, {flags}", total=len(steps) * (rounds + 2))
        times = timed(steps, rounds, lambda: bar.advance(task))
    floats = sum(p.numel() * p.element_size() for p in made["SGD"].model.parameters())
    del steps, made
    device = torch.device(place.split()[0])
    peaks = {who: _peak(partial(make, kind), device) for who, kind in CONTENDERS.items()}
    return {
        "place": place,
        "model": name,
        "flags": flags,
        "parameters": floats // 4,
        "sgd_ms": round(1000 * median(times["SGD"].wall), 4),
        "contenders": {who: _told(times, who, (peaks[who] - peaks["SGD"]) / floats) for who in times},
        "climb_and_return": _climb(make(CONTENDERS["M-SAM"]), times["SGD"]),
    }


def _made(workload: Workload, place: str, flags: str, kind: type[Contender]) -> Contender:
    torch.manual_seed(0)
    device = torch.device(place.split()[0])
    autocast: Callable[[], Any] = nullcontext
    if "bf16" in place:
        autocast = partial(torch.autocast, device.type, dtype=torch.bfloat16)
    return kind(workload.build().to(device), *workload.batch(device), FLAGS[flags], autocast)


def _peak(make: Callable[[], Contender], device: torch.device) -> int:
    contender = make()
    return peak_bytes(contender.step, device, steps=contender.period + 1)


def _told(times: Mapping[str, Timed], who: str, copies: float) -> dict[str, Any]:
    """Return median ratios to SGD and to the peer with their quartiles over rounds, and the extra memory."""
    against = {"sgd": times["SGD"], "peer": times["pytorch_optimizer SAM"]}
    told: dict[str, Any] = {"copies": round(copies, 3)}
    for clock in Timed._fields:
        for other, base in against.items():
            ratios = [a / b for a, b in zip(getattr(times[who], clock), getattr(base, clock), strict=True)]
            told[f"{clock}_over_{other}"] = round(median(ratios), 4)
            if len(ratios) > 1:
                low, _, high = quantiles(ratios, n=4)
                told[f"{clock}_over_{other}_quartiles"] = [round(low, 4), round(high, 4)]
    return told


def _climb(contender: Contender, sgd: Timed, times: int = 20) -> float:
    """Return what climbing, coming back and blending take alone, as a share of an SGD step."""
    assert isinstance(contender, Ours)
    contender.step()
    output = contender.forward()
    contender.loss(output).backward()
    shares = contender.shares(output)
    first = {p: p.grad for p in contender.rule.slots.parameters()}
    second = {p: g.clone() for p, g in first.items() if g is not None}

    def around() -> None:
        contender.rule.slots.put(first)  # type: ignore[arg-type]
        with contender.rule.perturbed(shares):
            contender.rule.slots.put(second)

    seconds = timed({"around": (around, times)}, 9, lambda: None)["around"].wall
    return round(median(seconds) / median(sgd.wall), 4)


def _shapley(rounds: int) -> dict[str, Any]:
    """Return what the contributions of eight modalities take, as a share of a training step of their model."""
    contender = _made(EIGHT, "cpu", "default", CONTENDERS["SGD"])
    output = contender.forward()
    logits = shapley.coalition_logits(contender.model, output.features)

    def shares() -> None:
        contender.shares(output)

    steps = {"step": (contender.step, EIGHT.steps), "shares": (shares, EIGHT.steps)}
    times = timed(steps, rounds, lambda: None)
    ratios = [a / b for a, b in zip(times["shares"].wall, times["step"].wall, strict=True)]
    return {"modalities": 8, "coalitions": len(logits), "share_of_step": round(median(ratios), 4)}


if __name__ == "__main__":
    app()
