"""The diagnosis of a model, in one call."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Literal

import numpy as np
from torch import Tensor

from msam import checks, tasks
from msam.checks import Range
from msam.diagnosis._batches import batches
from msam.diagnosis._collect import Collected, collect, features_of
from msam.diagnosis._found import batch_dominance, columns, findings, modality, pairs
from msam.diagnosis._game import Game, game
from msam.diagnosis._probe import Goal, Probe, head_of, probe, trained
from msam.diagnosis._progress import Shown, shown
from msam.diagnosis._sharpness import SAMPLES, Sharp, sharpness
from msam.diagnosis._task import HIT, KINDS
from msam.diagnosis._views import Own, View, view
from msam.diagnosis.advice import advised
from msam.diagnosis.cost import Cost
from msam.diagnosis.result import Diagnosis
from msam.sharpness._random import random_state, replayed
from msam.tasks._targets import Told
from msam.types import Batch

FAR = -1.0
"""R² of the model with nothing there below which a note says that contributions hold more than telling samples apart."""

PROBED = 20_000
"""Training samples that a probe is fitted on, at most about."""


def diagnose(
    model: Any,
    loader: Iterable[Any],
    *,
    train: Iterable[Any] | None = None,
    unimodal: Annotated[int, Range(ge=0)] = 0,
    absent: Literal["feature", "input"] | None = None,
    target: str = "labels",
    task: tasks.Name | None = None,
    classes: Sequence[str] = (),
    noise: Annotated[float, Range(gt=0)] = 1.0,
    sharp: bool = True,
    rho: Annotated[float, Range(gt=0)] = 0.05,
    permutations: Annotated[int, Range(ge=4)] = 32,
    resamples: Annotated[int, Range(ge=100)] = 2000,
    seed: Annotated[int, Range(ge=0)] = 0,
    progress: bool = True,
) -> Diagnosis:
    """Say which modality carries a model's predictions, which one sleeps, and what to try.

    Contributions are Shapley values, `phi_m`, of `v(S) = a(S) - a(nothing)`, where `a(S)` is the measure (the accuracy of
    classes or of labels, or R²), or the mean log-likelihood of the target, with the modalities S there and the others
    absent: those that tell nothing have exactly 0, and they sum to what the model gains by its inputs. All coalitions are
    asked for up to 6 modalities, more are drawn by random orders. Every number has a 95 % BCa bootstrap interval over
    samples; model and random state stay as they are.

    Arguments:
        model: a `MultimodalModel`, or what `msam.adapt` makes of any other; where it is, it is measured.
        loader: held-out samples, gone through once: `Batch`es, mappings with the targets under `target`, (mapping of
            inputs, targets), or tuples of tensors in the order of the modalities' inputs, targets last.
        train: training samples in the same form; the linear probes, the potential of a modality, are fitted on them.
        unimodal: epochs of training each encoder by itself on `train`, from its weights as they are, to see how far it
            could come; 0: it is not done.
        absent: what is set to zero for an absent modality of a `MultimodalModel`, "feature" (the default) or "input".
        target: key of the targets in a mapping.
        task: what targets are, "single-label" classes, "multi-label" labels or a "regression"; None: what the first ones
            tell, see `msam.tasks.told`.
        classes: names of the classes or labels.
        noise: disturbance of an input, in its own standard deviations.
        sharp: whether to measure sharpness.
        rho: radius of the sharpness.
        permutations: orders drawn where there are more than 6 modalities, even.
        resamples: of the bootstrap.
        seed: of everything that is drawn.
        progress: whether to say on the standard error what it costs, and show a bar.

    Raises:
        ValueError: if the model is neither ours nor adapted, a loader yields nothing or what is no batch, an input or
            logits are not finite, targets are not of the task, do not fit or do not vary, or a number is out of its range.

    >>> from msam import data, models
    >>> world = data.load("dial")(train_size=64, valid_size=64, bayes_samples=10)
    >>> model = models.build(world.encoders, world.shapes, world.num_classes, "late")
    >>> found = diagnose(model, [world.valid[range(64)]], train=[world.train[range(64)]], progress=False)
    >>> list(found.modalities), found.samples
    (['modality_0', 'modality_1'], 64)
    """
    checks.arguments_in_range(diagnose, dict(locals()))
    seen, told = view(model, absent), Told(task)
    names = seen.modalities
    played = game(len(names), permutations, seed)
    notes = list(_notes(seen, train, unimodal, sharp))
    cost = _cost(seen, played, train=train is not None, unimodal=unimodal, sharp=sharp)
    _again(train, unimodal)
    with shown(cost, progress) as bar:
        known: dict[str, dict[str, Any]] = {}
        kept: list[Batch] = []
        if train is not None:
            known, kept = _known(seen, train, unimodal, told, target, seed, bar)
        read = bar.over(batches(loader, seen.inputs, target, seen.device()), "samples", _length(loader))
        found = collect(seen, read, played, told, known=known, noise=noise, seed=seed, keep=SAMPLES)
        sharps = sharpness(seen, kept or found.kept, rho) if sharp and seen.encoded else {}
    notes += [f"Sharpness within the encoder of {n}: {one.missing}." for n, one in sharps.items() if one.missing]
    settings = {
        "absent": seen.absent,
        "unimodal": unimodal,
        "noise": noise,
        "rho": rho,
        "sharpness_on": "train" if kept else "loader",
        "coalitions": len(played.coalitions),
        "exact": not played.permutations,
        "permutations": played.permutations,
        "resamples": resamples,
        "level": 0.95,
        "seed": seed,
    }
    notes += [*_far(found), *(_one_hot(found) if task is None and told.task.name == "multi-label" else ())]
    return advised(_made(found, told.task, played, names, sharps, settings, classes, str(cost), notes))


def _made(
    found: Collected,
    task: tasks.Task,
    played: Game,
    names: tuple[str, ...],
    sharps: Mapping[str, Sharp],
    settings: Mapping[str, Any],
    classes: Sequence[str],
    cost: str,
    notes: Sequence[str],
) -> Diagnosis:
    drawn: Any = {key: settings[key] for key in ("resamples", "seed")}
    rows = columns(found, played, names)
    estimates = findings(rows, found, played, names, **drawn)
    estimates |= batch_dominance(found, played, names, **drawn)
    return Diagnosis(
        task=task.name,
        measure=task.measured,
        modalities={name: modality(name, rows, estimates, found, sharps.get(name)) for name in names},
        pairs=pairs(names, played, estimates, found),
        accuracy=estimates["accuracy"],
        likelihood=estimates["likelihood"],
        nothing=estimates["nothing"],
        chance=found.chance,
        samples=int(found.sample.max()) + 1,
        classes=_named(classes, len(found.groups)),
        counts=tuple(int(own.sum()) for own in found.groups),
        settings=dict(settings),
        cost=cost,
        notes=tuple(notes),
    )


def _known(
    seen: View, train: Iterable[Any], unimodal: int, told: Told, target: str, seed: int, bar: Shown
) -> tuple[dict[str, dict[str, Any]], list[Batch]]:
    """Return what answers by features, probes and encoders trained by themselves, and the first training batches."""

    def read() -> Iterator[Batch]:
        return batches(train, seen.inputs, target, seen.device(), "train")

    one_pass = bar.over(read(), "probe", _length(train))
    features, y, outputs, kept = features_of(seen, one_pass, told, most=PROBED, keep=SAMPLES)
    goal = Goal(told.task, outputs, KINDS[told.task.name].unit(y))
    known: dict[str, dict[str, Any]] = {}
    probes: dict[str, Probe] = {}
    for name in bar.over(list(seen.encoded), "probes"):
        probes[name] = probe(features[name], y, goal, seed)
        known.setdefault("probe", {})[name] = _probing(probes[name].logits, name)
    for name in seen.encoded if unimodal else ():
        epochs = chain.from_iterable(read() for _ in range(unimodal))
        shown_ = bar.over(epochs, f"training {name}", (_length(train) or 0) * unimodal or None)
        with replayed(random_state()):
            alone = trained(seen, name, shown_, told, goal, head_of(goal, probes[name], seed))
        known.setdefault("unimodal", {})[name] = _asking(seen, alone.model, alone.head, goal, name)
    return known, kept


def _probing(logits: Callable[[Tensor], Tensor], name: str) -> Callable[[Batch, Mapping[str, Tensor]], Tensor]:
    return lambda _, features: logits(features[name])


def _asking(
    seen: View, model: Any, head: Any, goal: Goal, name: str
) -> Callable[[Batch, Mapping[str, Tensor]], Tensor]:
    def logits(batch: Batch, _: Mapping[str, Tensor]) -> Tensor:
        return goal.unit.answered(head(seen.alone(model, batch, name).float()))

    return logits


def _cost(seen: View, played: Game, *, train: bool, unimodal: int, sharp: bool) -> Cost:
    sets, count, encoded = len(played.coalitions), len(seen.modalities), len(seen.encoded)
    feature = isinstance(seen, Own) and seen.absent == "feature"
    extra = train and encoded > 0 and not isinstance(seen, Own)  # features of the samples, which coalitions do not give
    return Cost(
        coalitions=sets,
        exact=not played.permutations,
        forward=2 if feature else sets + count + isinstance(seen, Own) + extra,
        fused=sets + count if feature else 0,
        training=int(train and encoded > 0),
        trained=unimodal * encoded if train else 0,
        sharp=encoded if sharp else 0,
    )


def _notes(seen: View, train: Any, unimodal: int, sharp: bool) -> Iterator[str]:
    without = [name for name in seen.modalities if name not in seen.encoded]
    if without:
        yield (
            f"No probe and no sharpness of {', '.join(without)}: name the submodules that encode them, "
            "msam.adapt(..., encoders={...})."
        )
    if train is None and seen.encoded:
        yield "No probes, so no under-training gap: they are fitted on training samples, diagnose(..., train=loader)."
    elif not unimodal and seen.encoded:
        yield (
            "Encoders were not trained by themselves: whether one has not learned all it could is left open. "
            "diagnose(..., unimodal=EPOCHS) tells."
        )
    if not sharp:
        yield "Sharpness was not asked for."


def _far(found: Collected) -> Iterator[str]:
    nothing = float(found.values[HIT][0].mean())
    if nothing < FAR:
        yield (
            f"With nothing there the answers are far from the targets (R² {nothing:.1f}, their mean has 0), and "
            "contributions hold what it takes to come near. Train on standardised targets: their mean is 0, as nothing is."
        )


def _one_hot(found: Collected) -> Iterator[str]:
    if len(found.groups) > 1 and (np.sum(found.groups, 0) == 1).all():
        yield (
            "Every row has exactly one label. If they are classes, pass their numbers, `target.argmax(1)`; if they are "
            "labels, say task='multi-label'."
        )


def _again(train: Any, unimodal: int) -> None:
    if unimodal and train is None:
        raise ValueError("`unimodal` trains encoders on training samples: give them, diagnose(..., train=loader).")
    if unimodal and iter(train) is train:
        raise ValueError(
            "`unimodal` goes through `train` more than once: give a DataLoader or a list, not an iterator."
        )


def _named(classes: Sequence[str], count: int) -> tuple[str, ...]:
    if classes and len(classes) != count:
        of = f"the {count} classes of the model" if count else "classes or labels, which a regression has not"
        raise ValueError(f"`classes` must name {of}, received {len(classes)}.")
    return tuple(classes) or tuple(map(str, range(count)))


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None
