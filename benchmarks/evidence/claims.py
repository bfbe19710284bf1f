"""The paper's claims as questions that were put before the runs: which row is held against which, in which measure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import found
from found import Found, Measure

from msam.recipes.evidence import PAIRED
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
    "per_loss": Scale(found.eigenvalue_per_loss, "largest Hessian eigenvalue over the training loss", "", -1),
    "fast": Scale(found.of_fast, "accuracy of the fast modality alone", "points", 1),
    "slow": Scale(found.of_slow, "accuracy of the slow modality alone", "points", 1),
}


PROBED = ("eigenvalue", "per_loss")
"""Measures of the runs whose curvature was measured."""


class Question(NamedTuple):
    """`row` against `against`, seed by seed, in one measure.

    Names are what stands between the data and the optimizer: `joint-msam` for `dial-late-joint-msam-sgd`; where a grid has
    several data, what tells them apart stands before it: `synergy|joint-msam`. With `since`, what is compared is the change
    from the rows of the same names in that grid, whose worlds differ in nothing but the knob that was turned.
    """

    grid: str
    row: str
    against: str
    scale: str = "accuracy"
    since: str = ""


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


def _changes(data: str, scale: str) -> tuple[Question, ...]:
    rows = ("joint-msam", SCOPED)
    return tuple(
        Question("noise", f"{data}|{row}", f"{data}|{rival}", scale, since="dial")
        for row in rows
        for rival in ("joint-none", "joint-sam")
    )


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
        (
            *_each(("dial", "avdigits"), ("joint-none", "joint-sam"), scale="eigenvalue"),
            *_each(("dial", "avdigits"), ("joint-none", "joint-sam"), scale="per_loss"),
        ),
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
    Claim(
        "noise",
        "Noise in a weak modality disturbs the dominant one less under M-SAM.",
        "Sec. 3.5",
        _changes("signal", "fast"),
    ),
    Claim(
        "features",
        "A higher joint accuracy with lower accuracies of single modalities means features across modalities: what only "
        "both together tell is learned better under M-SAM.",
        "Sec. 4.3",
        _changes("synergy", "accuracy"),
    ),
    Claim(
        "pairs",
        "Balancing methods gain by M-SAM in place of SAM.",
        "not asked by the paper",
        tuple(Question("pairs", f"{name}-msam", f"{name}-sam") for name in PAIRED),
    ),
    Claim(
        "many",
        "With three and four modalities it is no different: M-SAM is better than SAM, its scoped form than either.",
        "not asked by the paper",
        tuple(
            Question("many", f"modalities={count}|{row}", f"modalities={count}|{rival}")
            for count in (3, 4)
            for row, rival in (("joint-msam", "joint-sam"), (SCOPED, "joint-sam"), (SCOPED, "joint-msam"))
        ),
    ),
)


def answers(grids: Mapping[str, Found]) -> dict[Question, Answer]:
    """Return the answers to all questions whose rows were run, Holm's correction over those of each grid."""
    told: dict[Question, Answer] = {}
    for name in grids:
        asked = [q for q in dict.fromkeys(q for claim in CLAIMS for q in claim.questions) if q.grid == name]
        pairs = [(q, pair) for q in asked if (pair := paired(grids, q))]
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
    data, _, row = short.rpartition("|")
    head, _, control = row.partition(" ")
    ends = f"-{head}-sgd" + (f" {control}" if control else "")
    return next((name for name in grid.rows if name.endswith(ends) and data in name.split("-")[0]), None)


def paired(grids: Mapping[str, Found], q: Question) -> tuple[list[float], list[float]] | None:
    """Return the values of both rows in the seeds that both have; None where there are none."""
    a, b = (_changed(grids, q, short) for short in (q.row, q.against))
    seeds = sorted(a.keys() & b.keys())
    return ([a[seed] for seed in seeds], [b[seed] for seed in seeds]) if seeds else None


def _changed(grids: Mapping[str, Found], q: Question, short: str) -> Mapping[int, float]:
    """Return the measure of a row by seed, less that of the row it is compared with since."""
    now = measured(grids.get(q.grid), short, q.scale)
    if not q.since:
        return now
    before = measured(grids.get(q.since), short.rpartition("|")[2], q.scale)
    return {seed: now[seed] - before[seed] for seed in now.keys() & before.keys()}


def measured(grid: Found | None, short: str, scale: str) -> Mapping[int, float]:
    """Return a measure of a row by seed; nothing where it was not run."""
    name = full(grid, short) if grid is not None else None
    if grid is None or name is None:
        return {}
    rows = grid.probed if scale in PROBED else grid.rows
    return {seed: SCALES[scale].measure(run) for seed, run in rows.get(name, {}).items()}
