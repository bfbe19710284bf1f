"""One pass over the samples: everything that is asked of each of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from msam import shapley
from msam.diagnosis._batches import samples
from msam.diagnosis._game import Array, Game
from msam.diagnosis._task import Classification, sound
from msam.diagnosis._views import View
from msam.models.multimodal import of_rows
from msam.types import Batch

AT_ONCE = 16
"""Coalitions that are asked for at once."""

Known = Mapping[str, Mapping[str, Callable[[Batch, Mapping[str, Tensor]], Tensor]]]
"""Kind ("probe", "unimodal") -> modality -> from a batch and its features to logits."""


@dataclass
class Collected:
    """Measures of every row.

    Attributes:
        values: kind of value -> `(K, N)`, of each coalition.
        columns: `kind/modality` -> `(N,)`.
        target: `(N,)`.
        present: `(N, M)` bool.
        sample: `(N,)`, which sample each row is of.
        batch: `(N,)`, which batch.
        classes: C.
        noise: modality -> how its inputs were disturbed.
        kept: the first batches.
    """

    values: dict[str, Array]
    columns: dict[str, Array]
    target: Array
    present: Array
    sample: Array
    batch: Array
    classes: int
    noise: dict[str, str] = field(default_factory=dict)
    kept: list[Batch] = field(default_factory=list)


def collect(
    view: View,
    batches: Iterable[Batch],
    game: Game,
    task: Classification,
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
        task: how answers are rated.
        known: classifiers of features, to be rated beside.
        noise: standard deviations of the disturbance.
        seed: of the disturbance.
        keep: samples whose batches are kept.
    """
    values: dict[str, list[Tensor]] = {}
    columns: dict[str, list[Tensor]] = {}
    target, present, sample, number = [], [], [], []
    generator = torch.Generator().manual_seed(seed)
    kept: list[Batch] = []
    how: dict[str, str] = {}
    count = classes = 0
    with shapley.evaluating(view.model), torch.no_grad():
        for position, batch in enumerate(batches):
            size = samples(batch, view.inputs)
            if sum(samples(one, view.inputs) for one in kept) < keep:
                kept.append(batch)
            answers, phi, classes, y = _asked(view, batch, game, task)
            for kind, found in answers.items():
                values.setdefault(kind, []).append(found)
            mine = {f"shapley/{name}": task.hits(z, y) for name, z in zip(view.modalities, phi, strict=True)}
            mine |= {f"head/{name}": task.hits(z.cpu(), y) for name, z in view.heads(batch).items()}
            features = view.features(batch) if known else {}
            for kind, classifiers in known.items():
                mine |= {f"{kind}/{n}": task.hits(of(batch, features).cpu(), y) for n, of in classifiers.items()}
            for name in view.modalities:
                inputs, how[name] = disturbed(batch.inputs, view.keys(name), noise, generator)
                rated = task.rated(view.disturbed(batch, name, inputs).cpu().unsqueeze(0), y)
                mine |= {f"noisy_{kind}/{name}": found[0] for kind, found in rated.items()}
            for key, column in mine.items():
                columns.setdefault(key, []).append(column)
            rows = len(y)
            target.append(y)
            whole = torch.ones(size, len(view.modalities), dtype=torch.bool)
            present.append(of_rows(whole if batch.present is None else batch.present.cpu(), rows))
            sample.append(count + torch.arange(size).repeat_interleave(rows // size))
            number.append(torch.full((rows,), position))
            count += size
    targets, there, of, in_batch = (torch.cat(found).numpy() for found in (target, present, sample, number))
    return Collected(
        {kind: torch.cat(found, 1).numpy() for kind, found in values.items()},
        {key: torch.cat(found).numpy() for key, found in columns.items()},
        targets,
        there,
        of,
        in_batch,
        classes,
        how,
        kept,
    )


def _asked(view: View, batch: Batch, game: Game, task: Classification) -> tuple[dict[str, Tensor], Tensor, int, Tensor]:
    """Return the rated answers of all coalitions, the Shapley logits `(M, N, C)`, C, and the checked targets."""
    rated: dict[str, list[Tensor]] = {}
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
            y = task.checked(batch.target, logits.shape[1], logits.shape[2]).cpu()
        for kind, found in task.rated(logits, y).items():
            rated.setdefault(kind, []).append(found)
        phi = phi + torch.einsum("mk,knc->mnc", worths[:, start : start + AT_ONCE], logits)
    assert y is not None
    return {kind: torch.cat(found) for kind, found in rated.items()}, phi, phi.shape[-1], y


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
    view: View, batches: Iterable[Batch], task: Classification, *, most: int, keep: int
) -> tuple[dict[str, Tensor], Tensor, list[Batch]]:
    """Return features and targets of training samples, about `most` of them, and the batches of the first `keep`."""
    found: dict[str, list[Tensor]] = {name: [] for name in view.encoded}
    targets, kept = [], []
    rows = 0
    with shapley.evaluating(view.model), torch.no_grad():
        for batch in batches:
            samples(batch, view.inputs)
            if not rows:
                shape = view.coalitions(batch, [tuple(range(len(view.modalities)))]).shape
            features = view.features(batch)
            silent = [name for name in view.encoded if name not in features]
            if silent:
                raise ValueError(
                    f"The encoder of {silent[0]!r} gave no feature in a forward pass: it was not called as a module "
                    f"(`self.encoder(x)`), or ran for several modalities. Leave {silent[0]!r} out of `encoders`, or name "
                    "a submodule that runs once."
                )
            y = task.checked(batch.target, len(batch.target), shape[-1])
            for name in view.encoded:
                found[name].append(features[name].float())
            if rows < keep:
                kept.append(batch)
            targets.append(y)
            rows += len(y)
            if rows >= most:
                break
    return {name: torch.cat(several) for name, several in found.items()}, torch.cat(targets), kept
