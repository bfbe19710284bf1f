"""Rotated Gaussian mixtures with one class in common: draw from them, and know their posterior exactly."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator, SeedSequence
from numpy.typing import ArrayLike, NDArray

from msam import checks
from msam.shapley import coalitions

Array = NDArray[np.float64]
STREAMS = ("world", "train", "valid", "test", "bayes", "dealt")
CHUNK = 5000


@dataclass(frozen=True, eq=False)
class World:
    """One draw of everything that is not a sample. `msam.data.dial.world` makes it.

    Attributes:
        seed: of its random streams.
        prototypes: mu_m, for each modality `(C, K_m, p)`.
        rotations: Q_m, for each modality `(d, d)`, orthogonal with determinant 1.
        synergy: a, distance of a cue from 0.
        nuisance: standard deviation of what carries nothing.
        dealt: for each modality the place, among the signals and modes that were given, of those it has.
    """

    seed: int
    prototypes: tuple[Array, ...]
    rotations: tuple[Array, ...]
    synergy: float
    nuisance: float
    dealt: tuple[int, ...]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(f"modality_{m}" for m in range(len(self.prototypes)))

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return len(self.prototypes[0])

    @property
    def parity(self) -> NDArray[np.int64]:
        """The bit `y mod 2` of every class, `(C,)`, which the cues of all modalities together tell."""
        return np.arange(self.classes) % 2


def posterior(world: World, inputs: Mapping[str, ArrayLike]) -> Array:
    """Return the exact `p(y | inputs)`, `(n, C)` in float64, for whichever modalities `inputs` holds.

    With `(w_m, u_m, .) = Q_m^T x_m` and S the modalities given,

        log p(y | x_S) = const + sum_{m in S} log mean_k exp(-||w_m - mu_m(y, k)||^2 / 2)
                       + [S is all] log P(c_1 xor ... xor c_M = y mod 2 | u),   P(c_m = 1 | u_m) = sigmoid(2 a u_m).

    Arguments:
        world: where the inputs come from.
        inputs: modality -> `(n, d)`.

    Raises:
        ValueError: if there is no modality, one that the world lacks, or one of another shape.
    """
    evidence, cues = _evidence(world, inputs)
    return np.exp(_log_posterior(world, evidence, cues))


def bayes_accuracies(world: World, samples: int) -> dict[tuple[str, ...], float]:
    """Return, for every coalition of modalities, the share of `samples` fresh draws its posterior gets right.

    The standard error of each is `sqrt(A (1 - A) / samples)`.
    """
    return {group: rated.mean for group, rated in bayes_ratings(world, samples, right).items()}


class Rated(NamedTuple):
    """The mean rating of draws, and its standard error."""

    mean: float
    error: float


def bayes_ratings(
    world: World, samples: int, rate: Callable[[Array, NDArray[np.int64]], Array]
) -> dict[tuple[str, ...], Rated]:
    """Return, for every coalition of modalities, how its posterior is rated on `samples` fresh draws.

    Arguments:
        world: where they come from.
        samples: how many.
        rate: from log-posteriors `(n, C)` and classes `(n,)` to ratings `(n,)`.
    """
    rngs = streams(world.seed, "bayes", len(world.modalities))
    members = [tuple(world.modalities[m] for m in group) for group in coalitions(len(world.modalities))]
    found: dict[tuple[str, ...], list[Array]] = {group: [] for group in members}
    for start in range(0, samples, CHUNK):
        inputs, target = draw(world, min(CHUNK, samples - start), rngs)
        evidence, cues = _evidence(world, inputs)
        for group in members:
            known = _log_posterior(world, {name: evidence[name] for name in group}, cues)
            found[group].append(rate(known, target))
    ratings = {group: np.concatenate(parts) for group, parts in found.items()}
    return {group: Rated(float(r.mean()), float(r.std() / np.sqrt(samples))) for group, r in ratings.items()}


def right(log_posterior: Array, classes: NDArray[np.int64]) -> Array:
    """Return 1 where the most probable class is the right one, else 0, `(n,)`."""
    found: Array = (log_posterior.argmax(1) == classes).astype(np.float64)
    return found


def draw(world: World, size: int, rngs: Sequence[Generator]) -> tuple[dict[str, Array], NDArray[np.int64]]:
    """Return `size` samples, modality -> `(size, d)` and classes `(size,)`, from the generators of `streams`."""
    count = len(world.modalities)
    target = rngs[0].integers(world.classes, size=size)
    uniform = [rng.uniform(size=(2, size)) for rng in rngs[1:]]
    bits = np.stack([u[1] < 0.5 for u in uniform])
    bits[-1] = np.logical_xor.reduce(bits[:-1]) ^ (world.parity[target] == 1)
    inputs = {}
    for m in range(count):
        prototypes, rotation = world.prototypes[m], world.rotations[m]
        modes, informative = prototypes.shape[1:]
        latent = rngs[1 + m].standard_normal((size, len(rotation)))
        latent[:, :informative] += prototypes[target, (uniform[m][0] * modes).astype(int)]
        latent[:, informative] += world.synergy * np.where(bits[m], 1, -1)
        latent[:, informative + 1 :] *= world.nuisance
        inputs[world.modalities[m]] = latent @ rotation.T
    return inputs, target


def streams(seed: int, purpose: str, modalities: int) -> list[Generator]:
    """Return one generator for what the modalities share and one for each, independent of all other streams."""
    keys = [(STREAMS.index(purpose), part) for part in range(1 + modalities)]
    return [np.random.default_rng(SeedSequence(seed, spawn_key=key)) for key in keys]


def codes(rng: Generator, groups: NDArray[np.int64], modes: int, informative: int, redundancy: float) -> Array:
    """Return unit prototypes `(C, modes, informative)`, directions of `sqrt(r) A(y, k) + sqrt(1 - r) B(g(y), k)`.

    A and B are standard normal, so that every prototype's direction is uniform whatever r.

    >>> unit = codes(np.random.default_rng(0), np.array([0, 0, 1]), modes=1, informative=4, redundancy=0.0)
    >>> bool((unit[0] == unit[1]).all()), bool((unit[0] == unit[2]).any())
    (True, False)
    """
    of_class = rng.standard_normal((len(groups), modes, informative))
    of_group = rng.standard_normal(of_class.shape)[groups]
    mixed = np.sqrt(redundancy) * of_class + np.sqrt(1 - redundancy) * of_group
    return mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)


def partitions(classes: int, modalities: int) -> NDArray[np.int64]:
    """Return the group of every class in every modality, `(modalities, classes)`: all groups together name the class.

    Groups are the digits of `stride * y mod base ** digits`, in the smallest base that suffices and with the stride
    prime to it that makes groups most even in size. Where binary digits are more than enough, modalities share them.

    >>> partitions(9, 2)
    array([[0, 1, 2, 0, 1, 2, 0, 1, 2],
           [0, 0, 0, 1, 1, 1, 2, 2, 2]])
    """
    digits = min(modalities, (classes - 1).bit_length())
    base = next(b for b in range(2, classes + 1) if b**digits >= classes)
    powers = base ** np.arange(digits)[:, None]
    strides = [stride for stride in range(1, base**digits) if gcd(stride, base) == 1]
    candidates = (np.arange(classes) * stride % base**digits // powers % base for stride in strides)
    best = min(candidates, key=lambda groups: max(np.ptp(np.bincount(row, minlength=base)) for row in groups))
    return best[np.arange(modalities) % digits]


def rotation(rng: Generator, dimension: int) -> Array:
    """Return a random rotation of `dimension` dimensions, uniform over all of them."""
    q, r = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)
    q[:, 0] *= np.sign(np.linalg.det(q))
    return q


def _evidence(world: World, inputs: Mapping[str, ArrayLike]) -> tuple[dict[str, Array], list[Array]]:
    """Return modality -> `log p(x_m | y) + const`, `(n, C)`, and the cues `(n,)`, in the order of `inputs`."""
    if not inputs:
        raise ValueError(f"`inputs` must hold at least one modality of {list(world.modalities)}, received none.")
    evidence, cues = {}, []
    for name, value in inputs.items():
        m = world.modalities.index(checks.one_of("modality", name, world.modalities))
        x, prototypes, rotation = np.asarray(value, np.float64), world.prototypes[m], world.rotations[m]
        if x.ndim != 2 or x.shape[1] != len(rotation):
            raise ValueError(f"Modality {name!r} must have shape (n, {len(rotation)}), received {x.shape}.")
        classes, modes, informative = prototypes.shape
        latent = x @ rotation[:, : informative + 1]
        fit = latent[:, :-1] @ prototypes.reshape(-1, informative).T - (prototypes**2).sum(-1).ravel() / 2
        evidence[name] = np.logaddexp.reduce(fit.reshape(-1, classes, modes), axis=2)
        cues.append(latent[:, -1])
    return evidence, cues


def _log_posterior(world: World, evidence: Mapping[str, Array], cues: Sequence[Array]) -> Array:
    """Return `log p(y | x_S)`, `(n, C)`, S the modalities of `evidence`; the cues count if S is all."""
    total: Any = sum(evidence.values())
    if len(evidence) == len(world.modalities):
        total = total + _log_parity(world.synergy, cues)[:, world.parity]
    return total - np.logaddexp.reduce(total, axis=1, keepdims=True)


def _log_parity(synergy: float, cues: Sequence[Array]) -> Array:
    """Return the log-probabilities `(n, 2)` that the bits behind the cues have parity 0 and 1."""
    log_bit = [[-np.logaddexp(0, -2 * synergy * sign * cue) for sign in (-1, 1)] for cue in cues]
    words = list(product((0, 1), repeat=len(cues)))
    log_word = {word: np.sum([log_bit[m][bit] for m, bit in enumerate(word)], axis=0) for word in words}
    even_odd = [[log_word[word] for word in words if sum(word) % 2 == odd] for odd in (0, 1)]
    return np.stack([np.logaddexp.reduce(group) for group in even_odd], axis=1)
