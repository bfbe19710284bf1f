"""The controls of M-SAM: rows that tell what of its effect is awareness, and what is two passes and a smaller radius.

Each row with M-SAM is joined by four, with the settings of its own but for what they change:

    twice      the method without a rule, for twice the epochs: what the second pass costs, spent on steps
    smaller    SAM at `rho` times the mean share (at `rho` where M-SAM compensates): M-SAM's radius to first order
    constant   M-SAM with that mean share in place of the measured one
    ensemble   the sum of the unimodal nets, which share nothing: what there is without fusion
"""

from collections.abc import Iterable
from statistics import fmean

from msam.bench._spaces import TUNED
from msam.bench.grid import Grid, Settings, without_search
from msam.record import Record
from msam.train import config
from msam.train.config import laid_over, part_name


def controls(grid: Grid, records: Iterable[Record]) -> Grid:
    """Return the controls of the grid's M-SAM rows, which its own records allow to make; no test number is looked at.

    Arguments:
        grid: with its rows.
        records: of its cells; the mean share is theirs, over epochs and seeds, to two digits. A row without a finished
            run has no controls that need it.

    >>> from msam.bench import grid
    >>> list(controls(grid(data="dial", sharpness="msam", seeds=1), []).rows)
    ['dial-late-joint-msam-sgd (twice)', 'dial-late-joint-msam-sgd (ensemble)']
    """
    if not grid.controlled:
        return grid.with_rows({})
    grid = grid.with_rows({name: without_search(settings) for name, settings in grid.rows.items()})
    by_run = {record.header["run"]: record for record in records}
    rows: dict[str, Settings] = {}
    for name, settings in grid.rows.items():
        if part_name("sharpness", settings.get("sharpness")) == "msam":
            heard = [by_run[c.run_name()] for c in grid.cells_of(name) if c.run_name() in by_run]
            found = _of(grid, settings, mean_share(heard))
            rows |= {f"{name} ({called})": control for called, control in found.items()}
    return grid.with_rows({name: settings for name, settings in rows.items() if settings not in grid.rows.values()})


def mean_share(records: Iterable[Record]) -> float | None:
    """Return the mean weight of the second gradient over the epochs of finished runs; None where none tells.

    It is a number of training: steps, not test samples.
    """
    shares = [
        epoch["means"]["share"]
        for record in records
        if record.end is not None and record.end["status"] == "finished"
        for epoch in record.epochs
        if epoch.get("means", {}).get("share") is not None
    ]
    return round(fmean(shares), 2) if shares else None


def _of(grid: Grid, settings: Settings, share: float | None) -> dict[str, Settings]:
    plain = _without_rule(grid, settings)
    found: dict[str, Settings] = {"twice": {**plain, "epochs": 2 * config(plain).epochs}}
    if share is not None:
        rule = config(settings).sharpness or {}
        radius = rule["rho"] if rule["compensate"] else share * rule["rho"]
        found["smaller"] = {**settings, "sharpness": {"name": "sam", "rho": float(f"{radius:.4g}")}}
        if rule["weighting"] == "batch" and rule["loss"] == "weighted" and rule["share"] == "contribution":
            found["constant"] = laid_over(settings, {"sharpness": {"name": "msam", "share": share}})
    if part_name("method", settings.get("method")) == "joint":
        found["ensemble"] = {**plain, "method": "ensemble"}
    return found


def _without_rule(grid: Grid, settings: Settings) -> Settings:
    """Return the grid's own row of the same parts without a rule, which may have been tuned; else this one without it."""
    wanted = {**settings, "sharpness": "none"}
    alike = [row for row in grid.rows.values() if _differ_in_tuning_alone(row, wanted)]
    return alike[0] if len(alike) == 1 else wanted


def _differ_in_tuning_alone(row: Settings, other: Settings) -> bool:
    return all(
        part_name(key, row.get(key)) == part_name(key, other.get(key))
        if key in TUNED
        else row.get(key) == other.get(key)
        for key in {*row, *other, *TUNED}
    )
