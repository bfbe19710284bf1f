"""The dial: two, three or four modalities made to order, whose Bayes accuracies are known."""

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch

from msam import checks, tasks
from msam.checks import Range
from msam.data import _mixture
from msam.data._answers import ANSWERS, Answers
from msam.data._loaders import Dataset, TensorSplit, fingerprint
from msam.data._mixture import World, bayes_accuracies, bayes_ratings, posterior

__all__ = ["World", "bayes_accuracies", "dial", "posterior", "world"]

Seed = Annotated[int, Range(ge=0)]
Modalities = Annotated[int, Range(ge=2, le=4)]
Classes = Annotated[int, Range(ge=2, le=1000)]
Share = Annotated[float, Range(ge=0, le=1)]
Size = Annotated[int, Range(ge=1)]
SCALE = Range(ge=0, le=1000)
SIGNAL = (4.0, 3.0, 3.0, 3.0)
MODES = (4, 1, 1, 1)


def dial(
    *,
    seed: Seed = 0,
    modalities: Modalities = 2,
    classes: Classes = 10,
    signal: tuple[float, ...] | None = None,
    modes: tuple[int, ...] | None = None,
    shuffle: bool = False,
    redundancy: Share = 1.0,
    synergy: Annotated[float, SCALE] = 0.0,
    nuisance: Annotated[float, SCALE] = 1.0,
    informative: Size = 10,
    dimension: Annotated[int, Range(ge=2)] = 64,
    train_size: Size = 1500,
    valid_size: Size = 600,
    test_size: Size = 1500,
    bayes_samples: Size = 20000,
    task: tasks.Name = "single-label",
) -> Dataset:
    """Return samples of a fresh world: Gaussian mixtures, one per modality, that share nothing but the class.

        y uniform over C classes,  k_m uniform over K_m modes,  c_m bits with c_1 xor ... xor c_M = y mod 2
        x_m = Q_m [ mu_m(y, k_m) + N(0, I_p)  |  a (2 c_m - 1) + N(0, 1)  |  nuisance N(0, I) ]
        mu_m(y, k) = s_m unit( sqrt(r) A_m(y, k) + sqrt(1 - r) B_m(g_m(y), k) )

    Q_m is a random rotation, A and B are normal. The code A is of the class and says it all; the code B is of a group
    of classes, other groups in every modality, such that all of them together name the class (`_mixture.partitions`,
    with the classes shuffled). The bits are uniform, and any M - 1 of them are independent of the class and of each other:
    only all cues together tell whether the class is even or odd.

    Facts: "bayes/modality_0", ..., "bayes/all", and for more than two modalities "bayes/modality_0+modality_1", ...,
    the accuracies (of labels; R² of a regression) of the exact posterior on fresh draws; "bayes_se/..." are their standard
    errors, for accuracies at most `0.5 / sqrt(bayes_samples)`. "dealt/modality_m" is the place of its signal and
    modes among those given: m, unless they were shuffled.

    The targets of the other tasks are made of the same classes, so that inputs are the same and answers as exactly known:

        multi-label   the binary digits of y, lowest first: ceil(log2 C) labels
        regression    y standardised, (y - (C - 1) / 2) / sqrt((C**2 - 1) / 12)

    Each split and each modality has a random stream of its own, and with one seed a knob moves what it names alone:
    `synergy` the cues, `nuisance` the rest, `signal` the length of prototypes, a size its split.

    Args:
        seed: of the world and its samples.
        modalities: M, 2 to 4.
        classes: C, 2 to 1000.
        signal: s_m, the norm of prototypes in units of the noise, for each modality; by default 4, then 3.
        modes: K_m, modes of a class, for each modality: 1 is easy to learn, more is slow; by default 4, then 1.
        shuffle: deal the pairs (s_m, K_m) out to the modalities at random, so that which one is strong is the world's.
        redundancy: r in [0, 1]; 1: every modality has a code of the class; 0: of groups only.
        synergy: a >= 0; 0: the cues are noise.
        nuisance: standard deviation of the `dimension - informative - 1` directions that carry nothing.
        informative: p, dimensions of a prototype.
        dimension: of an input, more than `informative`.
        train_size: number of training samples.
        valid_size: number of validation samples.
        test_size: number of test samples.
        bayes_samples: draws that Bayes accuracies are estimated with.
        task: what targets are, "single-label", "multi-label" or "regression".

    Raises:
        ValueError: for a knob out of its range, a number too few or too many in `signal` or `modes`, or no room for
            the cue.

    >>> data = dial(modalities=3, train_size=100, bayes_samples=1000)
    >>> data.modalities, data.train[[0, 1]].inputs["modality_2"].shape
    (('modality_0', 'modality_1', 'modality_2'), torch.Size([2, 64]))
    >>> 0.8 < data.facts["bayes/modality_1"] < data.facts["bayes/all"]
    True
    """
    _in_range(dial, dict(locals()))
    made = world(
        seed=seed,
        modalities=modalities,
        classes=classes,
        signal=signal,
        modes=modes,
        shuffle=shuffle,
        redundancy=redundancy,
        synergy=synergy,
        nuisance=nuisance,
        informative=informative,
        dimension=dimension,
    )
    answers = ANSWERS[checks.one_of("task", task, ANSWERS)]
    train = _split(made, "train", train_size, answers)
    valid = _split(made, "valid", valid_size, answers)
    test = _split(made, "test", test_size, answers)
    return Dataset(
        "dial",
        train,
        valid,
        test,
        num_classes=answers.outputs(classes),
        shapes=dict.fromkeys(made.modalities, (dimension,)),
        encoders=dict.fromkeys(made.modalities, "mlp"),
        fingerprint=fingerprint(train, valid, test),
        facts=_facts(made, bayes_samples, answers),
        task=task,
    )


def world(
    *,
    seed: Seed = 0,
    modalities: Modalities = 2,
    classes: Classes = 10,
    signal: tuple[float, ...] | None = None,
    modes: tuple[int, ...] | None = None,
    shuffle: bool = False,
    redundancy: Share = 1.0,
    synergy: Annotated[float, SCALE] = 0.0,
    nuisance: Annotated[float, SCALE] = 1.0,
    informative: Size = 10,
    dimension: Annotated[int, Range(ge=2)] = 64,
) -> World:
    """Return the world that `dial` draws from with the same knobs, for `posterior` and `bayes_accuracies`.

    Raises:
        ValueError: as `dial` does.

    >>> made = world(seed=1)
    >>> posterior(made, {"modality_0": dial(seed=1).test.inputs["modality_0"]}).shape
    (1500, 10)
    """
    _in_range(world, dict(locals()))
    signal = _one_each("signal", signal, SIGNAL, modalities, SCALE)
    modes = _one_each("modes", modes, MODES, modalities, Range(ge=1))
    if dimension <= informative:
        raise ValueError(
            f"`dimension` must be > `informative` to leave room for the cue, received {dimension} and {informative}."
        )
    dealt = tuple(range(modalities))
    if shuffle:
        dealt = tuple(int(m) for m in _mixture.streams(seed, "dealt", 0)[0].permutation(modalities))
    signal, modes = tuple(signal[m] for m in dealt), tuple(modes[m] for m in dealt)
    shared, *own = _mixture.streams(seed, "world", modalities)
    groups = _mixture.partitions(classes, modalities)[:, shared.permutation(classes)]
    rotations = [_mixture.rotation(rng, dimension) for rng in own]
    unit = [_mixture.codes(*of, informative, redundancy) for of in zip(own, groups, modes, strict=True)]
    prototypes = [s * direction for s, direction in zip(signal, unit, strict=True)]
    return World(seed, tuple(prototypes), tuple(rotations), synergy, nuisance, dealt)


def _split(made: World, name: str, size: int, answers: Answers) -> TensorSplit:
    inputs, classes = _mixture.draw(made, size, _mixture.streams(made.seed, name, len(made.modalities)))
    target = torch.from_numpy(answers.target(classes, made.classes))
    return TensorSplit({key: torch.from_numpy(x).float() for key, x in inputs.items()}, target)


def _facts(made: World, samples: int, answers: Answers) -> dict[str, float]:
    found = bayes_ratings(made, samples, answers.rated)
    named = {"all" if group == made.modalities else "+".join(group): rated for group, rated in found.items()}
    return {
        **{f"bayes/{name}": rated.mean for name, rated in named.items()},
        **{f"bayes_se/{name}": rated.error for name, rated in named.items()},
        **{f"dealt/{name}": float(place) for name, place in zip(made.modalities, made.dealt, strict=True)},
    }


def _in_range(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Check every number against the range and the type in the signature of `function`."""
    checks.arguments_in_range(function, arguments)
    defaults = inspect.signature(function).parameters
    for name, value in arguments.items():
        wanted = type(defaults[name].default)
        if wanted is int and not isinstance(value, int):
            raise ValueError(f"`{name}` must be a whole number, received {value!r}.")
        if wanted is float and value is None:
            raise ValueError(f"`{name}` must be a number, received None.")


def _one_each(name: str, values: Any, default: tuple[Any, ...], modalities: int, allowed: Range) -> tuple[Any, ...]:
    """Return one number per modality, of the type of the default's."""
    if values is None:
        return default[:modalities]
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != modalities:
        raise ValueError(f"`{name}` must hold {modalities} numbers, one for each modality, received {values!r}.")
    for m, value in enumerate(values):
        checks.in_range(f"{name}[{m}]", value, allowed)
        if isinstance(default[0], int) and not isinstance(value, int):
            raise ValueError(f"`{name}[{m}]` must be a whole number, received {value!r}.")
    return tuple(values)
