"""Which rows of a block meet, and which stands for a name: by what they are and by validation, never by a test number."""

from collections.abc import Mapping, Sequence

import numpy as np

from msam import selection as selections
from msam.record import Record
from msam.report import controls, stats
from msam.report.rows import Block, Row
from msam.report.runs import Run, check_same_data, finished
from msam.report.stats import Comparison


def paired(
    a: Sequence[Record],
    b: Sequence[Record],
    *,
    names: tuple[str, str] = ("a", "b"),
    metric: str = "score",
    select: str = "best_validation",
) -> Comparison:
    """Compare two sets of records seed by seed: `a` - `b`.

    Arguments:
        a: records of one configuration, one per seed; unfinished ones are left out.
        b: records of another, on the same data.
        names: what the two are called.
        metric: a test measure: "score", the one that decides (accuracy, or R² of a regression), any other of the task by
            its name in the record ("macro_f1", "nll", "rmse"), "tau", or the deciding one of one modality, "zeroed.audio".
        select: which epoch is read.

    Raises:
        ValueError: if the two share no seed, or their data differ.
    """
    selection = selections.load(select)
    runs_a, runs_b = (finished(records, selection)[0] for records in (a, b))
    check_same_data([*runs_a, *runs_b])
    ours, theirs = _values(runs_a, runs_b, metric)
    if not ours:
        raise ValueError(
            f"{names[0]} and {names[1]} must share a seed to be paired, received "
            f"{sorted(r.seed for r in runs_a)} and {sorted(r.seed for r in runs_b)}."
        )
    return stats.compare(*names, ours, theirs)


def comparisons(block: Block) -> list[Comparison]:
    """Compare the measure that decides on test within a block, Holm over them all.

    Every row meets Joint, M-SAM meets SAM and its controls, which meet nobody else but for the ensemble. Models of one
    modality are no competitors of Joint and stay out of the family. Where there are several Joint rows, a row meets the
    one that shares its other settings, else its length. Where there are several M-SAM or SAM rows of one method, those with
    the best mean of it on validation meet; a SAM row that is a control is no candidate where there is another.
    """
    found = [stats.compare(a.label, b.label, *v) for a, b in meeting(block) if (v := _shared(a, b))[0]]
    return stats.family(found)


def meeting(block: Block) -> list[tuple[Row, Row]]:
    """Return the pairs of rows that meet, each pair once."""
    only = _only_controls(block)
    rivals = [row for row in block.rows if row.method != "unimodal" and row.label not in only]
    pairs = [(row, base) for row in rivals if (base := _joint(block, row)) is not None and base is not row]
    for ours in champions(block):
        sam = _own_sam(block, ours.method)
        pairs += [(ours, sam)] if sam is not None else []
        pairs += [(ours, control) for kind in controls.wanted(ours) for control in controls.of(block, ours, kind)]
    return list({(a.label, b.label): (a, b) for a, b in pairs}.values())


def over_joint(block: Block, comparisons: Sequence[Comparison]) -> list[tuple[Comparison, Row, Row]]:
    """Return the comparisons with Joint, one per row at most, with their two rows; Joint as a control is left out."""
    rows = {row.label: row for row in block.rows}
    found = [(c, rows[c.name], rows[c.against]) for c in comparisons]
    return [(c, ours, other) for c, ours, other in found if other is _joint(block, ours)]


def standing(block: Block) -> Mapping[str, Row]:
    """Return the row that stands for each name, the best on validation of those that have it."""
    return {name: row for name, rows in named(block).items() if (row := best(rows)) is not None}


def named(block: Block) -> Mapping[str, Sequence[Row]]:
    """Return the rows of several modalities by the names they compete under; a control has a name of its own."""
    twice = {control.label for control in controls.found(block) if control.kind == "twice"}
    only = _only_controls(block)
    rows: dict[str, list[Row]] = {}
    for row in block.rows:
        if row.method != "unimodal":
            suffix = ", twice the epochs" if row.label in twice else ", control" if row.label in only else ""
            rows.setdefault(row.name + suffix, []).append(row)
    return rows


def champions(block: Block) -> list[Row]:
    """Return, of every method with M-SAM and of every form of M-SAM by its name, the best row on validation."""
    rows = controls.guarded(block)
    kinds = dict.fromkeys((row.method, row.name) for row in rows)
    found = [best([row for row in rows if (row.method, row.name) == kind]) for kind in kinds]
    return [row for row in found if row is not None]


def best(rows: Sequence[Row]) -> Row | None:
    """Return the row with the best mean validation score, the first on ties; None of none."""
    return max(rows, key=lambda row: np.nan_to_num(np.mean(row.values("valid_score"))), default=None)


def _own_sam(block: Block, method: str) -> Row | None:
    """The row that is SAM's own, at its own radius; a control is where there is no other."""
    rows = [row for row in block.rows if (row.method, row.sharpness) == (method, "sam")]
    smaller = {control.label for control in controls.found(block) if control.kind == "smaller"}
    return best([row for row in rows if row.label not in smaller] or rows)


def _only_controls(block: Block) -> set[str]:
    """Labels of rows that are there for M-SAM alone; the ensemble is a method too, and one SAM row is SAM's own."""
    found = {control.label for control in controls.found(block) if control.kind != "ensemble"}
    own = (_own_sam(block, method) for method in {row.method for row in block.rows})
    return found - {row.label for row in own if row is not None}


def _joint(block: Block, row: Row) -> Row | None:
    plain = [other for other in block.rows if (other.method, other.sharpness) == ("joint", None)]
    alike = [other for other in plain if other.setting == row.setting]
    nearest = sorted(
        plain, key=lambda other: (other.config.get("epochs") != row.config.get("epochs"), -len(other.runs))
    )
    return next(iter(([row] if row in alike else []) + alike + nearest), None)


def _shared(a: Row, b: Row) -> tuple[list[float], list[float]]:
    return _values(a.runs, b.runs, "score")


def _values(a: Sequence[Run], b: Sequence[Run], metric: str) -> tuple[list[float], list[float]]:
    """The values of both for every seed that both have, in order of the seeds."""
    mine, partner = ({run.seed: run.measures[metric] for run in runs} for runs in (a, b))
    seeds = sorted(mine.keys() & partner.keys())
    return [mine[seed] for seed in seeds], [partner[seed] for seed in seeds]
