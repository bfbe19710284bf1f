"""docs/evidence.md: its words stand in the template, every number in them comes from the records."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import found
import recommended
from claims import CLAIMS, SCALES, Answer, Question, answers, full, measured, paired, verdict
from found import Found
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from msam.recipes import evidence
from msam.recipes import recommended as chosen_setting
from msam.report import stats
from msam.train.config import options

HEADS = {
    "dial": "The dial, late fusion",
    "dial-early": "The dial, early fusion",
    "pairs": "Pairs on the dial",
    "many": "Three and four modalities",
    "noise": "A noisy modality, and cues that only both tell",
    "avdigits": "AV-digits, late fusion",
    "avdigits-early": "AV-digits, early fusion",
}


def written(template: str = "page.md.j2") -> str:
    """Return the page, or its tables alone, which serve for any grids (`tables.md.j2`)."""
    grids = {name: grid for name in evidence.GRIDS if (grid := found.load(name)) is not None}
    told = answers(grids)
    room = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    given = {
        "grids": grids,
        "claims": CLAIMS,
        "told": told,
        "verdict": lambda claim: verdict(claim, told),
        "budget": budget,
        "questions": lambda claim: "\n".join(
            _lines(QUESTIONS, (_answer(told[q]) for q in claim.questions if q in told))
        ),
        "table": lambda name: "\n".join(_table(grids[name])),
        "dominance": lambda name: "\n".join(_dominance(grids[name])),
        "difference": partial(difference, grids),
        "change": partial(difference, grids),
        "chosen": partial(chosen, grids),
        "mean": partial(mean, grids),
        "passes": lambda name, row: f"{_passes(grids[name], full(grids[name], row) or row):.2f}",
        "default_rho": options("sharpness", "msam")["rho"].default,
        "heads": HEADS,
        "missing": "; ".join(missing(grids)),
        "reco": RECOMMENDED if (recommended.PLACE / "confirmed").is_dir() else None,
    }
    return room.get_template(template).render(**given).rstrip() + "\n"


def options_of(rule: Mapping[str, Any]) -> str:
    """Return the options of a rule as its call has them.

    >>> options_of({"name": "msam", "loss": "response", "rho": 0.5})
    'loss="response", rho=0.5'
    """
    told = {key: f'"{value}"' if isinstance(value, str) else f"{value}" for key, value in rule.items() if key != "name"}
    return ", ".join(f"{key}={value}" for key, value in told.items())


RECOMMENDED = {
    "chosen": {fusion: options_of(rule) for fusion, rule in chosen_setting.CHOSEN.items()},
    "forms": len(chosen_setting.FORMS),
    "radii": len(chosen_setting.RADII),
    "choice_seeds": len(chosen_setting.CHOICE_SEEDS),
    "first_held_out": min(seeds[0] for seeds in chosen_setting.HELD_OUT.values()),
    "candidates": lambda fusion: "\n".join(recommended.candidates_table(fusion)),
    "verdicts": lambda fusion: "\n".join(recommended.verdicts(fusion)),
    "confirmed": lambda fusion: "\n".join(recommended.confirmed_table(fusion)),
}
QUESTIONS = ("Where", "Row", "Against", "Measure", "Pairs", "Difference", "95 % interval (BCa)", "p (Holm)", "Reading")
ROWS = ("Row", "Runs", "Acc (%)", "Over joint (points)", "95 % interval (BCa)", "p (Holm)")
EPOCHS = (1, 2, 5, 10, 20)
MORE = ("Fast alone (%)", "Slow alone (%)", "Fast dominates (%)", "τ", "Passes/step", "Tuned")


def missing(grids: Mapping[str, Found]) -> Iterator[str]:
    """Yield which grids, and which rows of the others, were not run."""
    for name, make in evidence.GRIDS.items():
        title = HEADS[name][0].lower() + HEADS[name][1:] if HEADS[name].startswith("The ") else HEADS[name]
        if name not in grids:
            yield title
        elif left := [row for row in make().rows if row not in grids[name].rows]:
            yield f"of {title}, {', '.join(_short(row.removesuffix('-sgd').split('-', 2)[-1]) for row in left)}"


def budget(name: str) -> str:
    """Return what each row of a grid was given to tune with, in words."""
    trials, seeds = evidence.BUDGETS[name]
    return f"{trials} trials of {seeds} {'run' if seeds == 1 else 'runs'} each"


def difference(
    grids: Mapping[str, Found], grid: str, row: str, against: str, scale: str = "accuracy", since: str = ""
) -> str:
    """Return a difference with its interval, as it stands in the tables: `+1.2 [+0.8, +1.6]`; see `Question` for `since`.

    Raises:
        ValueError: if a row was not run.
    """
    pair = paired(grids, Question(grid, row, against, scale, since))
    if pair is None:
        raise ValueError(
            f"Grid {grid!r} has no runs of {row!r} or of {against!r}. It has: {', '.join(grids[grid].rows)}."
        )
    c, digits = stats.compare(row, against, *pair), _digits(scale)
    return f"{c.mean:+.{digits}f} [{c.low:+.{digits}f}, {c.high:+.{digits}f}]"


def chosen(grids: Mapping[str, Found], grid: str, row: str, key: str) -> str:
    """Return what tuning chose for an option of a row."""
    found_row = grids[grid].chosen[full(grids[grid], row) or row]
    return f"{found_row.values[key]:.2g}"


def mean(grids: Mapping[str, Found], grid: str, row: str, scale: str = "accuracy") -> str:
    """Return mean and standard deviation of a row: `88.2 ± 0.7`."""
    return _pm(stats.summary(list(measured(grids[grid], row, scale).values())), _digits(scale))


def _digits(scale: str) -> int:
    return 1 if scale == "per_loss" or SCALES[scale].unit == "points" else 3


def _answer(answer: Answer) -> tuple[str, ...]:
    c, q = answer.comparison, answer.question
    digits = max(2, _digits(q.scale))
    return (
        HEADS[q.grid],
        _short(q.row),
        _short(q.against),
        SCALES[q.scale].name + (f" ({SCALES[q.scale].unit})" if SCALES[q.scale].unit else ""),
        str(c.n),
        f"{c.mean:+.{digits}f}",
        f"[{c.low:+.{digits}f}, {c.high:+.{digits}f}]",
        f"{c.p_holm:.4f}",
        c.reading,
    )


def _table(grid: Found) -> Iterator[str]:
    """Every row of a grid, by validation accuracy, each held against the joint row of the same data."""
    order = sorted(grid.rows, key=lambda row: -fmean(grid.values(row, found.validation).values()))
    bases = {row: full_base(grid, row) for row in order}
    pairs = [(row, base) for row in order if (base := bases[row]) is not None and base != row]
    family = stats.family([_compared(grid, row, base) for row, base in pairs])
    told = {row: comparison for (row, _), comparison in zip(pairs, family, strict=True)}
    slow = any(any(v == v for v in grid.values(row, found.of_slow).values()) for row in order)
    heads = ROWS + (MORE if slow else MORE[3:])
    yield from _lines(heads, (_row(grid, row, told.get(row), slow) for row in order))


def _dominance(grid: Found) -> Iterator[str]:
    """How often the fast modality has the largest share, epoch by epoch, in the rows that are looked at closely."""
    rows = [name for rule in found.RULES if (name := full(grid, f"joint-{rule}")) is not None]
    heads = ("Row", *(f"Epoch {epoch}" for epoch in EPOCHS))
    yield from _lines(
        heads,
        (
            (
                _short(row.removesuffix("-sgd").split("-", 2)[-1]),
                *(_pm(grid.summary(row, partial(found.dominance, epoch=epoch)), 0) for epoch in EPOCHS),
            )
            for row in rows
        ),
    )


def full_base(grid: Found, row: str) -> str | None:
    """Return the joint row of the same data and fusion."""
    start = row.split("-")[:2]
    return next((name for name in grid.rows if name == "-".join([*start, "joint", "none", "sgd"])), None)


def _compared(grid: Found, row: str, base: str) -> stats.Comparison:
    a, b = grid.values(row, found.accuracy), grid.values(base, found.accuracy)
    seeds = sorted(a.keys() & b.keys())
    return stats.compare(row, base, [a[s] for s in seeds], [b[s] for s in seeds])


def _row(grid: Found, row: str, against_joint: stats.Comparison | None, slow: bool) -> tuple[str, ...]:
    c = against_joint
    lost = grid.diverged[row]
    cells = [
        _short(_apart(grid, row) + row.removesuffix("-sgd").split("-", 2)[-1]).replace("-sgd", ""),
        f"{len(grid.rows[row])}" + (f" ({lost} diverged)" if lost else ""),
        _pm(grid.summary(row, found.accuracy), 1),
        f"{c.mean:+.2f}" if c else "",
        f"[{c.low:+.2f}, {c.high:+.2f}]" if c else "",
        f"{c.p_holm:.4f}" if c else "",
    ]
    if slow:
        cells += [_pm(grid.summary(row, m), 1) for m in (found.of_fast, found.of_slow)]
        cells.append(f"{grid.summary(row, found.dominance).mean:.0f}")
    cells += [_pm(grid.summary(row, found.tau), 3), f"{_passes(grid, row):.2f}", _settings(grid, row)]
    return tuple(cells)


def _apart(grid: Found, row: str) -> str:
    """Return what tells a row's data from those of other rows of its grid, `modalities=3|`; nothing where all are alike.

    Every option that differs is named by itself; data have it whole in the names of their rows, between the first points.
    """
    data = {name: name.split("-")[0].split(".", 1)[-1] for name in grid.rows}
    if len(set(data.values())) < 2:
        return ""
    parts = {name: set(_options(text)) for name, text in data.items()}
    common = set.intersection(*parts.values())
    return ".".join(option for option in _options(data[row]) if option not in common) + "|"


def _options(text: str) -> list[str]:
    """Return the options in the name of data.

    >>> _options("shuffle=True.signal=(1.0,3.0)")
    ['shuffle=True', 'signal=(1.0,3.0)']
    """
    return re.split(r"\.(?=[a-z_]+=)", text)


def _passes(grid: Found, row: str) -> float:
    return fmean(run.measures["passes"] for run in grid.rows[row].values())


def _settings(grid: Found, row: str) -> str:
    """What tuning chose, with a star where it lies at an edge of its space."""
    choice = grid.chosen.get(row)
    if choice is None:
        return "as its row"
    told = [f"{k.split('.')[-1]} {v:.3g}{'*' if k in choice.edges else ''}" for k, v in choice.values.items()]
    return ", ".join(told)


def _pm(summary: stats.Summary, digits: int) -> str:
    if summary.mean != summary.mean:
        return "–"
    return f"{summary.mean:.{digits}f} ± {summary.sd:.{digits}f}"


def _short(name: str) -> str:
    """Return a row's name as the page has it: the method, unless it is joint and a rule is used, and the rule.

    >>> _short("joint-msam"), _short("modalities=3|mmpareto-sam")
    ('msam', 'modalities=3: mmpareto + sam')
    """
    data, _, name = name.rpartition("|")
    if data:
        return f"{data}: {_short(name)}"
    head, _, control = name.partition(" ")
    method, _, rule = head.removesuffix("-sgd").partition("-")
    word = {"none": method}.get(rule, rule if method == "joint" else f"{method} + {rule}")
    return f"{word.replace('scope=all.', '')} {control}".strip()


def _lines(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "| " + " | ".join(":---" if i < 1 else "---:" for i, _ in enumerate(heads)) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
