"""From measures of rows to findings with intervals, over all samples and within every class."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from msam.diagnosis._bootstrap import Bounds, bounds
from msam.diagnosis._collect import Collected
from msam.diagnosis._game import Array, Game
from msam.diagnosis._sharpness import Sharp
from msam.diagnosis.result import Estimate, Modality, Pair

KINDS = ("shapley", "zeroed", "head")
WORTHS = {"accuracy": "hit", "likelihood": "log_likelihood"}


@dataclass
class Rows:
    """Named columns of rows, some of which count for some rows only."""

    values: dict[str, Array] = field(default_factory=dict)
    counted: dict[str, Array] = field(default_factory=dict)

    def put(self, name: str, values: Array, counted: Array | None = None) -> None:
        """Add a column; `counted` says which rows count, all by default; where none do, all do, as in `evaluate`."""
        whole = np.ones(len(values), dtype=bool)
        self.counted[name] = whole if counted is None or not counted.any() else counted
        self.values[name] = values

    def mean(self, name: str) -> float:
        """Return the mean of a column over the rows that count."""
        return float(self.values[name][self.counted[name]].mean())


def findings(
    rows: Rows,
    collected: Collected,
    game: Game,
    names: tuple[str, ...],
    *,
    resamples: int,
    seed: int,
) -> dict[str, Estimate]:
    """Return an estimate for every column, and for the shares of worths that are made of them, with those by class."""
    errors = _errors(collected, game, names)
    overall = _bounded(rows, collected.sample, np.ones(len(collected.sample), bool), names, resamples, seed)
    by_class = [_bounded(rows, collected.sample, own, names, resamples, seed) for own in collected.groups]
    found = {}
    for name, (value, low, high) in overall.items():
        inside = tuple(Estimate(*of[name]) if of else Estimate(np.nan) for of in by_class)
        found[name] = Estimate(value, low, high, errors.get(name, 0.0), inside)
    return found


def columns(collected: Collected, game: Game, names: tuple[str, ...]) -> Rows:
    """Return the columns of what was collected."""
    rows, place = Rows(), game.place
    whole = tuple(range(len(names)))
    hit, likelihood = collected.values["hit"], collected.values["log_likelihood"]
    rows.put("accuracy", hit[-1])
    rows.put("likelihood", likelihood[-1])
    rows.put("nothing", hit[0])
    chances = np.exp(likelihood)
    winner = (game.worths @ chances).argmax(0)
    for kind, of in WORTHS.items():
        values = collected.values[of]
        for m, worth in enumerate(game.worths @ values):
            rows.put(f"{kind}/{names[m]}", worth)
        for (i, j), together in zip(game.pairs, game.interactions @ values, strict=True):
            rows.put(f"{kind}/{names[i]}+{names[j]}", together)
    for m, name in enumerate(names):
        has = collected.present[:, m]
        without = place[tuple(n for n in whole if n != m)]
        rows.put(f"dominance/{name}", (winner == m).astype(float))
        rows.put(f"missing_accuracy/{name}", hit[-1] - hit[without])
        rows.put(f"missing_likelihood/{name}", likelihood[-1] - likelihood[without])
        rows.put(f"noisy_accuracy/{name}", hit[-1] - collected.columns[f"noisy_hit/{name}"])
        rows.put(f"noisy_likelihood/{name}", likelihood[-1] - collected.columns[f"noisy_log_likelihood/{name}"])
        rows.put(f"zeroed/{name}", hit[place[(m,)]], has)
        for kind in ("shapley", "head", "probe", "unimodal"):
            if f"{kind}/{name}" in collected.columns:
                rows.put(f"{kind}/{name}", collected.columns[f"{kind}/{name}"], has)
        _gaps(rows, name, has)
    for kind in ("fusion", "encoder"):
        _lags(rows, names, kind)
    return rows


def best_kind(rows: Rows, name: str) -> str:
    """Return the kind of in-model accuracy that is the highest."""
    there = [kind for kind in KINDS if f"{kind}/{name}" in rows.values]
    return max(there, key=lambda kind: rows.mean(f"{kind}/{name}"))


def modality(
    name: str, rows: Rows, found: Mapping[str, Estimate], collected: Collected, sharp: Sharp | None
) -> Modality:
    """Return what is found of one modality."""
    kind = best_kind(rows, name)
    required: Any = {
        key: found[f"{key}/{name}"]
        for key in (
            *("accuracy", "accuracy_share", "likelihood", "likelihood_share", "shapley", "zeroed", "dominance"),
            *("missing_accuracy", "missing_likelihood", "noisy_accuracy", "noisy_likelihood"),
        )
    }
    optional: Any = {
        key: found.get(f"{key}/{name}")
        for key in ("head", "probe", "unimodal", "gap", "fusion_gap", "fusion_lag", "encoder_gap", "encoder_lag")
    }
    return Modality(
        **required,
        **optional,
        in_model=found[f"{kind}/{name}"],
        in_model_kind=kind,
        batch_dominance=found[f"batch_dominance/{name}"],
        noise=collected.noise[name],
        sharpness=None if sharp is None or sharp.rises is None else _plain_mean(sharp.rises),
        eigenvalue=None if sharp is None else sharp.eigenvalue,
    )


def pairs(names: tuple[str, ...], game: Game, found: Mapping[str, Estimate], collected: Collected) -> tuple[Pair, ...]:
    """Return the interactions."""
    offsets = game.interactions @ collected.off + 0.0
    made = []
    for (i, j), offset in zip(game.pairs, offsets, strict=True):
        accuracy, likelihood = (found[f"{kind}/{names[i]}+{names[j]}"] for kind in WORTHS)
        made.append(Pair((names[i], names[j]), accuracy, likelihood, float(offset)))
    return tuple(made)


def batch_dominance(
    collected: Collected, game: Game, names: tuple[str, ...], *, resamples: int, seed: int
) -> dict[str, Estimate]:
    """Return how often each modality dominates a batch, with intervals over batches."""
    sizes = np.bincount(collected.batch)
    chances = np.exp(collected.values["log_likelihood"])
    means = np.stack([np.bincount(collected.batch, weights=row) / sizes for row in chances])
    winner = (game.worths @ means).argmax(0)
    wins = (winner[:, None] == np.arange(len(names))).astype(float)
    found = bounds(wins, np.ones_like(wins), resamples=resamples, seed=seed)
    return {f"batch_dominance/{name}": _estimate(found, m) for m, name in enumerate(names)}


def _gaps(rows: Rows, name: str, has: Array) -> None:
    best = rows.values[f"{best_kind(rows, name)}/{name}"]
    probe, unimodal = (rows.values.get(f"{kind}/{name}") for kind in ("probe", "unimodal"))
    if probe is not None:
        rows.put(f"fusion_gap/{name}", probe - best, has)
    if probe is not None and unimodal is not None:
        rows.put(f"encoder_gap/{name}", unimodal - probe, has)
    reach = probe if unimodal is None else unimodal
    if reach is not None:
        rows.put(f"gap/{name}", reach - best, has)


def _lags(rows: Rows, names: tuple[str, ...], kind: str) -> None:
    """Add by how much each gap is beyond the smallest of the others, or beyond 0: sample by sample, as both are paired."""
    there = [name for name in names if f"{kind}_gap/{name}" in rows.values]
    for name in there:
        own = f"{kind}_gap/{name}"
        least = min((f"{kind}_gap/{other}" for other in there if other != name), key=rows.mean, default=None)
        if least is None or rows.mean(least) <= 0:
            rows.put(f"{kind}_lag/{name}", rows.values[own], rows.counted[own])
        else:
            both = rows.counted[own] & rows.counted[least]
            rows.put(f"{kind}_lag/{name}", rows.values[own] - rows.values[least], both)


def _bounded(
    rows: Rows, sample: Array, chosen: Array, names: tuple[str, ...], resamples: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Return value, low and high of every column and share over the chosen rows; nothing where there are none."""
    if not chosen.any():
        return {}
    _, own = np.unique(sample[chosen], return_inverse=True)
    size = own.max() + 1

    def summed(values: Array) -> Array:
        return np.bincount(own, weights=values, minlength=size)

    keys = list(rows.values)
    counted = {key: rows.counted[key][chosen] for key in keys}
    sums = np.stack([summed(np.where(counted[key], rows.values[key][chosen], 0.0)) for key in keys], 1)
    counts = np.stack([summed(counted[key].astype(float)) for key in keys], 1)
    places = {kind: [keys.index(f"{kind}/{name}") for name in names] for kind in WORTHS}

    def made(means: Array) -> Array:
        return np.concatenate([means, *(shares(means[..., at]) for at in places.values())], -1)

    found = bounds(sums, counts, made, resamples=resamples, seed=seed)
    named = [*keys, *(f"{kind}_share/{name}" for kind in WORTHS for name in names)]
    return {key: tuple(map(float, (found.value[k], found.low[k], found.high[k]))) for k, key in enumerate(named)}  # type: ignore[misc]


def shares(worths: Array) -> Array:
    """Return worths `(..., M)` divided by their sum, negative ones set to 0; uniform where nothing is left.

    >>> shares(np.array([3.0, -1.0, 1.0])).tolist()
    [0.75, 0.0, 0.25]
    """
    positive = np.clip(worths, 0, None)
    total = positive.sum(-1, keepdims=True)
    return np.where(total > 0, positive / np.where(total > 0, total, 1.0), 1 / worths.shape[-1])


def _errors(collected: Collected, game: Game, names: tuple[str, ...]) -> dict[str, float]:
    """Return the standard errors that come from drawing coalitions."""
    if not game.permutations:
        return {}
    found: dict[str, float] = {}
    for kind, of in WORTHS.items():
        means = collected.values[of].mean(1)
        found |= {f"{kind}/{n}": float(e) for n, e in zip(names, game.worth_error(means), strict=True)}
        for (i, j), error in zip(game.pairs, game.interaction_error(means), strict=True):
            found[f"{kind}/{names[i]}+{names[j]}"] = float(error)
    return found


def _plain_mean(values: Array) -> Estimate:
    column = values[:, None]
    return _estimate(bounds(column, np.ones_like(column)), 0)


def _estimate(found: Bounds, k: int) -> Estimate:
    return Estimate(float(found.value[k]), float(found.low[k]), float(found.high[k]))
