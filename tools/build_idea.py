"""Draw docs/assets/idea.svg for docs/idea.md: two panels from committed records, one of a step that is computed.

python tools/build_idea.py
"""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import msam
from msam import record, selection

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "results" / "avdigits-late" / "runs"
PICTURE = ROOT / "docs" / "assets" / "idea.svg"
MODALITIES = ("audio", "image")
COLOURS = {"audio": "#0072B2", "image": "#D55E00"}
CLIMB, FIRST, SECOND, SPENT = "#7A5195", "#6B6B6B", "#00795A", "#C0392B"
RATE = 0.7
ACROSS, ALONG = (-0.3, 2.6), (-0.8, 1.7)


class Numbers(NamedTuple):
    """What the first two panels show.

    Attributes:
        alone: modality -> test accuracies of its unimodal net, one per seed.
        inside: modality -> test accuracies of it inside the joint model, the other absent.
        together: test accuracies of the joint model.
        shares: modality -> its contribution on validation samples, (seeds, epochs).
    """

    alone: dict[str, np.ndarray]
    inside: dict[str, np.ndarray]
    together: np.ndarray
    shares: dict[str, np.ndarray]


class Step(NamedTuple):
    """A step of M-SAM on `loss`.

    Attributes:
        theta: where it begins.
        climbed: theta + eps.
        first: gradient at theta.
        second: gradient at theta + eps.
        spent: what the optimizer gets.
    """

    theta: np.ndarray
    climbed: np.ndarray
    first: np.ndarray
    second: np.ndarray
    spent: np.ndarray


def numbers() -> Numbers:
    """Return accuracies at the epoch that validation chose, and contributions at every epoch."""
    found = record.find(RECORDS)
    joint = [r for r in found if r.config["method"]["name"] == "joint" and not r.config["sharpness"]]
    single = {m: [r for r in found if r.config["method"].get("modality") == m] for m in MODALITIES}
    chosen = [_chosen(r) for r in joint]
    return Numbers(
        {m: np.array([_chosen(r)["test"]["accuracy"] for r in single[m]]) for m in MODALITIES},
        {m: np.array([e["test"]["modalities"][m]["zeroed"] for e in chosen]) for m in MODALITIES},
        np.array([e["test"]["accuracy"] for e in chosen]),
        {m: np.array([_contributions(r.epochs, m) for r in joint]) for m in MODALITIES},
    )


def loss(w: Tensor) -> Tensor:
    """Return a valley that widens to the right: sharp where it is narrow, flat where it is wide; of `(..., 2)`."""
    x, y = w[..., 0], w[..., 1]
    return 0.1 * (x - 3) ** 2 + 0.5 * y**2 * (0.25 + 1.6 * torch.sigmoid(3 * (0.3 - x)))


def step(rho: float = 0.6, contribution: float = 0.65) -> Step:
    """Return a step that `msam.MSAM` makes."""
    w = torch.nn.Parameter(torch.tensor([0.5, 1.0], dtype=torch.float64))
    rule = msam.MSAM(torch.optim.SGD([w], lr=RATE), rho=rho)
    loss(w).backward()
    theta, first = w.detach().numpy().copy(), w.grad.numpy().copy()
    with rule.perturbed([contribution, 1 - contribution]):
        climbed = w.detach().numpy().copy()
        loss(w).backward()
        second = w.grad.numpy().copy()
    return Step(theta, climbed, first, second, w.grad.numpy().copy())


def draw(path: Path = PICTURE) -> None:
    """Write the picture."""
    style = {
        "font.family": "sans-serif",
        "font.size": 10,
        "svg.fonttype": "none",
        "svg.hashsalt": "idea",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(12.6, 3.9), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        left, middle, right = figure.subplots(1, 3)
        found = numbers()
        _draw_gap(left, found)
        _draw_shares(middle, found)
        _draw_step(right, step())
        made = io.StringIO()
        figure.savefig(made, format="svg", metadata={"Date": None}, facecolor="white")
    path.write_text(re.sub(r"[ \t]+$", "", made.getvalue(), flags=re.M), encoding="utf-8")


def _chosen(found: record.Record) -> dict:
    chosen: dict = found.epochs[selection.load("best_validation").choose([e["valid"] for e in found.epochs])]
    return chosen


def _contributions(epochs: Iterable[dict], modality: str) -> list[float]:
    return [e["valid"]["modalities"][modality]["contribution"] for e in epochs]


def _draw_gap(axes: Axes, found: Numbers) -> None:
    axes.set_title("1  What each knows alone, and inside")
    bars = [(f"{m}\nalone", found.alone[m], COLOURS[m], 0.35) for m in MODALITIES]
    bars = [b for m in range(2) for b in (bars[m], (f"{MODALITIES[m]}\ninside", *_inside(found, MODALITIES[m])))]
    bars.append(("both\ntogether", found.together, "#444444", 1.0))
    for at, (_, values, colour, alpha) in enumerate(bars):
        value, spread = 100 * values.mean(), 100 * values.std(ddof=1)
        axes.bar(
            at, value, 0.72, color=colour, alpha=alpha, yerr=spread, error_kw={"elinewidth": 1, "ecolor": "#222222"}
        )
        axes.text(at, value + spread + 1.5, f"{value:.0f}", ha="center")
    axes.set_xticks(range(len(bars)), [name for name, *_ in bars])
    axes.set(ylim=(0, 105), ylabel="test accuracy (%), ± 1 sd of 10 seeds")


def _inside(found: Numbers, modality: str) -> tuple[np.ndarray, str, float]:
    return found.inside[modality], COLOURS[modality], 1.0


def _draw_shares(axes: Axes, found: Numbers) -> None:
    axes.set_title("2  Who carries the prediction")
    for m in MODALITIES:
        mean, spread = found.shares[m].mean(0), found.shares[m].std(0, ddof=1)
        number = np.arange(1, len(mean) + 1)
        axes.plot(number, mean, color=COLOURS[m], label=m)
        axes.fill_between(number, mean - spread, mean + spread, color=COLOURS[m], alpha=0.2, linewidth=0)
        axes.text(
            number[-1], mean[-1] + (0.07 if m == "image" else -0.1), f"{m} {mean[-1]:.2f}", color=COLOURS[m], ha="right"
        )
    axes.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
    axes.set(ylim=(0, 1), xlabel="epoch of joint training", ylabel="Shapley contribution, ± 1 sd of 10 seeds")
    axes.set_xticks([1, 5, 10, 15, 20])


def _draw_step(axes: Axes, made: Step) -> None:
    axes.set_title("3  A step of M-SAM")
    x, y = np.meshgrid(np.linspace(*ACROSS, 200), np.linspace(*ALONG, 200))
    height = loss(torch.from_numpy(np.stack([x, y], -1))).numpy()
    axes.contour(x, y, height, levels=14, colors="#C8C8C8", linewidths=0.8)
    _arrow(axes, made.theta, made.climbed - made.theta, CLIMB)
    _arrow(axes, made.theta, -RATE * made.first, FIRST)
    _arrow(axes, made.theta, -RATE * made.second, SECOND)
    _arrow(axes, made.theta, -RATE * made.spent, SPENT, 2.6)
    axes.plot(*made.theta, "o", color="black", markersize=5)
    axes.text(made.theta[0] - 0.08, made.theta[1] - 0.02, "θ", ha="right", va="top")
    axes.text(made.climbed[0] + 0.1, made.climbed[1] + 0.08, "θ + ε: up the slope, by ρ", color=CLIMB, va="center")
    for grad, words, colour, lift in (
        (made.first, "−g, down from θ", FIRST, 0.1),
        (made.spent, "−(s g′ + (1 − s) g), spent", SPENT, 0.0),
        (made.second, "−g′, down from θ + ε", SECOND, -0.1),
    ):
        tip = made.theta - RATE * grad
        axes.text(tip[0] + 0.06, tip[1] + lift, words, color=colour, va="center")
    axes.set(xticks=[], yticks=[], xlabel="weights", xlim=ACROSS, ylim=ALONG)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_aspect("equal", adjustable="box")


def _arrow(axes: Axes, start: np.ndarray, along: np.ndarray, colour: str, width: float = 1.6) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 12}
    axes.annotate("", start + along, start, arrowprops=style)


if __name__ == "__main__":
    draw()
