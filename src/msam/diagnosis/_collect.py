"""One pass over the samples: everything that is asked of each of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from msam import shapley
from msam.diagnosis._batches import samples
from msam.diagnosis._game import Array, Game
from msam.diagnosis._task import HIT, KINDS, LOG_LIKELIHOOD, sound
from msam.diagnosis._views import View
from msam.models.multimodal import of_rows
from msam.tasks._targets import Told
from msam.types import Batch

AT_ONCE = 16
"""Coalitions that are asked for at once."""

Known = Mapping[str, Mapping[str, Callable[[Batch, Mapping[str, Tensor]], Tensor]]]
"""Kind ("probe", "unimodal") -> modality -> from a batch and its features to logits."""

Lists = dict[str, list[Tensor]]


@dataclass
class Collected:
    """Measures of every row.

    Attributes:
        values: kind of value -> `(K, N)`, of each coalition.
        columns: `kind/modality` -> `(N,)`.
        present: `(N, M)` bool.
        sample: `(N,)`, which sample each row is of.
        batch: `(N,)`, which batch.
        groups: of each class, or label, which rows have it, `(N,)` bool; none where there are no classes.
        chance: the measure of the best answer that looks at nothing.
        off: `(K,)`, what of each coalition's R² is lost since its answers are off on average; 0 in other tasks.
        noise: modality -> how its inputs were disturbed.
        kept: the first batches.
    """

    values: dict[str, Array]
    columns: dict[str, Array]
    present: Array
    sample: Array
    batch: Array
    groups: tuple[Array, ...]
    chance: float
    off: Array
    noise: dict[str, str] = field(default_factory=dict)
    kept: list[Batch] = field(default_factory=list)


def collect(
    view: View,
    batches: Iterable[Batch],
    game: Game,
    told: Told,
    *,
    known: Known,
    noise: float,
    seed: int,
    keep: int,
) -> Collected:
    """Ask the model everything about every batch.

    Arguments:
        view: the model.
        batches: what to ask about.
        game: the coalitions.
        told: the task, by which answers are rated.
        known: classifiers of features, to be rated beside.
        noise: standard deviations of the disturbance.
        seed: of the disturbance.
        keep: samples whose batches are kept.

    Raises:
        ValueError: if targets are not of the task, do not fit, or are numbers that do not vary.
    """
    values: Lists = {}
    columns: dict[str, Lists] = {HIT: {}, LOG_LIKELIHOOD: {}}
    target, present, sample, number = [], [], [], []
    generator = torch.Generator().manual_seed(seed)
    kept: list[Batch] = []
    how: dict[str, str] = {}
    count = outputs = 0
    off: Any = 0.0
    with shapley.evaluating(view.model), torch.no_grad():
        for position, batch in enumerate(batches):
            size = samples(batch, view.inputs)
            answers, phi, above, y = _asked(view, batch, game, told)
            off = off + above
            kind, outputs = KINDS[told.task.name], phi.shape[-1]
            if sum(samples(one, view.inputs) for one in kept) < keep:
                kept.append(batch._replace(target=y))
            y = y.cpu()
            for what, found in answers.items():
                values.setdefault(what, []).append(found)
            mine = {f"shapley/{name}": kind.hits(z, y) for name, z in zip(view.modalities, phi, strict=True)}
            mine |= {f"head/{name}": kind.hits(z.cpu(), y) for name, z in view.heads(batch).items()}
            features = view.features(batch) if known else {}
            for way, answering in known.items():
                mine |= {f"{way}/{n}": kind.hits(of(batch, features).cpu(), y) for n, of in answering.items()}
            for name in view.modalities:
                inputs, how[name] = disturbed(batch.inputs, view.keys(name), noise, generator)
                rated = kind.rated(view.disturbed(batch, name, inputs).cpu().unsqueeze(0), y)
                mine[f"noisy_hit/{name}"] = rated[HIT][0]
                columns[LOG_LIKELIHOOD].setdefault(f"noisy_log_likelihood/{name}", []).append(rated[LOG_LIKELIHOOD][0])
            for key, column in mine.items():
                columns[HIT].setdefault(key, []).append(column)
            rows = len(y)
            target.append(y)
            whole = torch.ones(size, len(view.modalities), dtype=torch.bool)
            present.append(of_rows(whole if batch.present is None else batch.present.cpu(), rows))
            sample.append(count + torch.arange(size).repeat_interleave(rows // size))
            number.append(torch.full((rows,), position))
            count += size
    there, of, in_batch = (torch.cat(found).numpy() for found in (present, sample, number))
    kind, y = KINDS[told.task.name], torch.cat(target)
    targets = (y.double() if y.is_floating_point() else y).numpy()
    scales = kind.scales(targets)

    def measured(found: list[Tensor], what: str) -> Array:
        offset, factor = scales[what]
        return offset + factor * torch.cat(found, -1).numpy()

    return Collected(
        {what: measured(found, what) for what, found in values.items()},
        {key: measured(found, what) for what, rated in columns.items() for key, found in rated.items()},
        there,
        of,
        in_batch,
        kind.groups(targets, outputs),
        kind.chance(targets),
        -scales[HIT].factor * (off / len(targets)).square().mean(1).numpy(),
        how,
        kept,
    )


def _asked(view: View, batch: Batch, game: Game, told: Told) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """Return the rated answers of all coalitions, Shapley logits `(M, N, C)`, by how much answers are above the targets,
    `(K, C)`, and the checked targets."""
    rated: Lists = {}
    above: list[Tensor] = []
    phi: Any = 0.0
    y: Tensor | None = None
    from_nothing = game.worths.copy()
    from_nothing[:, 0] = 0.0  # Shapley logits as everywhere in this library: the empty coalition counts as zeros
    worths = torch.from_numpy(from_nothing)
    for start in range(0, len(game.coalitions), AT_ONCE):
        only = game.coalitions[start : start + AT_ONCE]
        logits = view.coalitions(batch, only).cpu().double()
        sound(logits, only, view.modalities)
        if y is None:
            y = told.checked(batch.target, *logits.shape[1:])
        kind = KINDS[told.task.name]
        above.append(kind.off(logits, y.cpu()))
        for what, found in kind.rated(logits, y.cpu()).items():
            rated.setdefault(what, []).append(found)
        phi = phi + torch.einsum("mk,knc->mnc", worths[:, start : start + AT_ONCE], logits)
    assert y is not None
    return {what: torch.cat(found) for what, found in rated.items()}, phi, torch.cat(above), y


def disturbed(
    inputs: Mapping[str, Tensor], keys: tuple[str, ...], noise: float, generator: torch.Generator
) -> tuple[dict[str, Tensor], str]:
    """Return inputs with those of one modality disturbed, and how.

    Floating ones get normal noise of `noise` times their own standard deviation over the batch. Where a modality has none
    (token numbers), each sample gets those of the one before it in the batch.

    >>> x = {"ids": torch.tensor([[1], [2], [3]])}
    >>> changed, how = disturbed(x, ("ids",), 1.0, torch.Generator())
    >>> changed["ids"].flatten().tolist(), how
    ([3, 1, 2], 'swapped')
    """
    floating = [key for key in keys if inputs[key].is_floating_point()]
    changed = dict(inputs)
    for key in floating:
        x = inputs[key]
        drawn = torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)
        changed[key] = x + noise * x.float().std(correction=0).to(x) * drawn
    if floating:
        return changed, "gaussian"
    return {**changed, **{key: inputs[key].roll(1, 0) for key in keys}}, "swapped"


def features_of(
    view: View, batches: Iterable[Batch], told: Told, *, most: int, keep: int
) -> tuple[dict[str, Tensor], Tensor, int, list[Batch]]:
    """Return features and targets of training samples, about `most`, how many outputs the model has, the first batches."""
    found: Lists = {name: [] for name in view.encoded}
    targets, kept = [], []
    rows = outputs = segments = 0
    with shapley.evaluating(view.model), torch.no_grad():
        for batch in batches:
            size = samples(batch, view.inputs)
            if not rows:
                _, of_first, outputs = view.coalitions(batch, [tuple(range(len(view.modalities)))]).shape
                segments = of_first // size
            features = view.features(batch)
            silent = [name for name in view.encoded if name not in features]
            if silent:
                raise ValueError(
                    f"The encoder of {silent[0]!r} gave no feature in a forward pass: it was not called as a module "
                    f"(`self.encoder(x)`), or ran for several modalities. Leave {silent[0]!r} out of `encoders`, or name "
                    "a submodule that runs once."
                )
            y = told.checked(batch.target, size * segments, outputs)
            for name in view.encoded:
                found[name].append(features[name].float())
            if rows < keep:
                kept.append(batch._replace(target=y))
            targets.append(y)
            rows += len(y)
            if rows >= most:
                break
    return {name: torch.cat(several) for name, several in found.items()}, torch.cat(targets), outputs, kept
