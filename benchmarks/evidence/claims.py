"""The paper's claims as questions that were put before the runs: which row is held against which, in which measure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import found
from found import Found, Measure

from msam.report import stats
from msam.report.stats import Comparison


class Scale(NamedTuple):
    """A measure, what it is called, its unit, and which direction is the better one."""

    measure: Measure
    name: str
    unit: str
    better: int


SCALES: Mapping[str, Scale] = {
    "accuracy": Scale(found.accuracy, "test accuracy", "points", 1),
    "tau": Scale(found.tau, "τ", "", -1),
    "roughness": Scale(found.roughness, "roughness of the validation curve", "points", -1),
    "eigenvalue": Scale(found.eigenvalue, "largest Hessian eigenvalue", "", -1),
    "fast": Scale(found.of_fast, "accuracy of the fast modality alone", "points", 1),
    "slow": Scale(found.of_slow, "accuracy of the slow modality alone", "points", 1),
}


class Question(NamedTuple):
    """`row` against `against`, seed by seed, in one measure; with `gap`, the change from a second grid's rows is compared.

    Names are what stands between the data and the optimizer: `joint-msam` for `dial-late-joint-msam-sgd`.
    """

    grid: str
    row: str
    against: str
    scale: str = "accuracy"


class Claim(NamedTuple):
    """What the paper says, where, and the questions that it comes to."""

    key: str
    says: str
    where: str
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Answer:
    """A question, the comparison over seeds, Holm's correction over all questions of its grid."""

    question: Question
    comparison: Comparison

    @property
    def direction(self) -> int:
        """1: shown in the direction of the claim; -1: shown against it; 0: neither."""
        if not self.comparison.p_holm < stats.LEVEL:
            return 0
        return SCALES[self.question.scale].better * (1 if self.comparison.mean > 0 else -1)


CONTROLS = ("joint-msam (smaller)", "joint-msam (constant)", "joint-msam (twice)")
BALANCING = ("mses", "mslr", "ogm_ge", "agm", "mmpareto", "cggm", "reconboost", "uniform", "ensemble")
SCOPED = "joint-msam.scope=dominant"
WHO = ("weakest", "random", "modality_0", "modality_1")
FUSIONS = ("dial", "dial-early", "avdigits", "avdigits-early")


def _each(grids: tuple[str, ...], rivals: tuple[str, ...], row: str = "joint-msam", scale: str = "accuracy"):
    return tuple(Question(grid, row, rival, scale) for grid in grids for rival in rivals)


CLAIMS = (
    Claim("joint", "M-SAM is better than joint training.", "Tables 1 and 2", _each(FUSIONS, ("joint-none",))),
    Claim("sam", "M-SAM is better than SAM.", "Sec. 4.3", _each(FUSIONS, ("joint-sam", *CONTROLS[:2]))),
    Claim(
        "balancing",
        "M-SAM is better than the methods that balance.",
        "Tables 1 and 2",
        _each(FUSIONS, tuple(f"{name}-none" for name in BALANCING)),
    ),
    Claim(
        "cost",
        "The second pass pays: M-SAM is better than joint training for twice the epochs.",
        "not asked by the paper",
        _each(FUSIONS, CONTROLS[2:]),
    ),
    Claim(
        "flat",
        "M-SAM finds flatter minima.",
        "Fig. 1",
        _each(("dial", "avdigits"), ("joint-none", "joint-sam"), scale="eigenvalue"),
    ),
    Claim(
        "tau",
        "M-SAM overfits less: its τ is smaller.",
        "Fig. 2",
        _each(("dial", "avdigits"), ("joint-none", "joint-sam"), scale="tau"),
    ),
    Claim(
        "smooth",
        "M-SAM's learning curves are smoother.",
        "Figs 4 to 6",
        _each(("dial", "avdigits"), ("joint-none", "joint-sam"), scale="roughness"),
    ),
    Claim(
        "aware",
        "It matters that it is the dominant modality whose loss is made flat.",
        "Sec. 3.2, 3.5",
        (
            *_each(("dial",), tuple(f"joint-msam.scope=all.modality={who}" for who in WHO)),
            *_each(("dial",), tuple(f"joint-msam.scope=dominant.modality={who}" for who in WHO), row=SCOPED),
        ),
    ),
    Claim(
        "scope",
        "To climb only where the dominant modality lives is better than to climb everywhere.",
        "Sec. 3.2 (words), not the printed algorithm",
        (
            *_each(("dial", "avdigits"), ("joint-sam", "joint-msam"), row=SCOPED),
            *_each(("dial", "avdigits"), ("joint-none",), row=SCOPED, scale="slow"),
        ),
    ),
)


def answers(grids: Mapping[str, Found]) -> dict[Question, Answer]:
    """Return the answers to all questions whose rows were run, Holm's correction over those of each grid."""
    told: dict[Question, Answer] = {}
    for name, grid in grids.items():
        asked = [q for q in dict.fromkeys(q for claim in CLAIMS for q in claim.questions) if q.grid == name]
        pairs = [(q, pair) for q in asked if (pair := _paired(grid, q))]
        family = stats.family([stats.compare(q.row, q.against, *pair) for q, pair in pairs])
        told |= {q: Answer(q, comparison) for (q, _), comparison in zip(pairs, family, strict=True)}
    return told


def verdict(claim: Claim, told: Mapping[Question, Answer]) -> str:
    """Return what the answers come to, in words."""
    directions = [told[q].direction for q in claim.questions if q in told]
    yes, no, of = directions.count(1), directions.count(-1), len(directions)
    if not of:
        return "not tested yet"
    if yes == of:
        return "holds"
    if no == of:
        return "does not hold: the opposite is shown"
    if yes and no:
        return f"mixed: shown in {yes} of {of} comparisons, its opposite in {no}"
    if no:
        return f"does not hold: its opposite is shown in {no} of {of} comparisons, it in none"
    return f"shown in {yes} of {of} comparisons" if yes else f"not shown, in none of {of} comparisons"


def full(grid: Found, short: str) -> str | None:
    """Return the whole name of a row, None where the grid has none so called."""
    head, _, control = short.partition(" ")
    ends = f"-{head}-sgd" + (f" {control}" if control else "")
    return next((name for name in grid.rows if name.endswith(ends)), None)


def _paired(grid: Found, q: Question) -> tuple[list[float], list[float]] | None:
    return next(_values(grid, q), None)


def _values(grid: Found, q: Question) -> Iterator[tuple[list[float], list[float]]]:
    ours, theirs = full(grid, q.row), full(grid, q.against)
    if ours is None or theirs is None:
        return
    rows = grid.probed if q.scale == "eigenvalue" else grid.rows
    a, b = rows.get(ours, {}), rows.get(theirs, {})
    seeds = sorted(a.keys() & b.keys())
    if seeds:
        measure = SCALES[q.scale].measure
        yield [measure(a[seed]) for seed in seeds], [measure(b[seed]) for seed in seeds]
