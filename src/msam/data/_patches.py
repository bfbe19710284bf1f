"""Arithmetic on small pictures: mixing in noise at a ratio, shifting in time, cutting energy, pairing, standardising."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def mix(speech: Floats, noise: Floats, snr: ArrayLike) -> Floats:
    """Return speech in noise; powers add: `10 log10(10^(speech/10) + g 10^(noise/10))`.

    The gain g makes the ratio of both powers, summed over the whole patch, equal to `snr`.

    Args:
        speech: log-mel patches `(n, bands, frames)` in dB.
        noise: `(n, bands, frames)` in dB, at any level.
        snr: `(n,)` or one number, in dB.

    >>> speech, noise = np.full((1, 2, 2), -20.0), np.full((1, 2, 2), -70.0)
    >>> mix(speech, noise, 0.0).round(3).tolist()  # equal powers: 3 dB more
    [[[-16.99, -16.99], [-16.99, -16.99]]]
    """
    voice, other = 10 ** (speech / 10), 10 ** (noise / 10)
    ratio = voice.sum(axis=(1, 2)) / other.sum(axis=(1, 2))
    gain = ratio / 10 ** (np.asarray(snr) / 10)
    return 10 * np.log10(voice + gain[:, None, None] * other)


def roll_time(patches: Floats, shifts: Indices) -> Floats:
    """Return patches `(n, bands, frames)`, each moved by its own number of frames; what leaves re-enters.

    >>> roll_time(np.array([[[1.0, 2.0, 3.0]]]), np.array([1])).tolist()
    [[[3.0, 1.0, 2.0]]]
    """
    columns = (np.arange(patches.shape[2]) - shifts[:, None]) % patches.shape[2]
    return np.take_along_axis(patches, columns[:, None, :], axis=2)


def energy_cut(reference: Floats, keep: float) -> tuple[Floats, Floats, Floats]:
    """Return mean `(d,)`, principal axes `(d, d)` in columns and weights `(d,)` that leave a share of the energy.

    The energy is the variance of `reference` `(n, d)`. Leading axes have weight 1 as long as they fit into `keep`; the
    next one is shrunk to the fraction of it that still fits, the others are gone. `keep = 1` keeps every axis, also
    those along which `reference` does not vary.

    A fraction f shrinks the amplitude, so f^2 of that axis' energy stays and never more than `keep` of all. Shrinking
    the energy to f would leave sqrt(f) of the amplitude, from which a network reads the axis almost as if it were whole.

    >>> mean, axes, weights = energy_cut(np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]]), keep=0.9)
    >>> weights.round(2).tolist()  # energies 4 and 1: 0.9 * 5 = 4 + 0.5 * 1
    [1.0, 0.5]
    """
    mean = reference.mean(axis=0)
    energy, axes = np.linalg.eigh(np.cov(reference.T, bias=True))
    energy, axes = np.maximum(energy[::-1], 0), axes[:, ::-1]
    if keep == 1:
        return mean, axes, np.ones_like(energy)
    left = keep * energy.sum() - (np.cumsum(energy) - energy)
    fits = np.divide(left, energy, out=np.zeros_like(left), where=energy > 1e-12 * energy[0])
    return mean, axes, np.clip(fits, 0, 1)


def cut(vectors: Floats, mean: Floats, axes: Floats, weights: Floats) -> Floats:
    """Return `vectors` `(n, d)` with each principal axis about the mean shrunk by its weight."""
    return mean + (vectors - mean) @ (axes * weights) @ axes.T


def pairs(first: Indices, second: Indices, size: int, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Return `size` different pairs of a member of `first` and one of `second`, each member used as evenly as can be.

    Both are shuffled and run through in step, one starting a place later after each common period: all
    `len(first) * len(second)` pairs come before any comes again, so `size` must not exceed that.

    >>> a, b = pairs(np.array([0, 1]), np.array([5, 6]), 4, np.random.default_rng(0))
    >>> sorted(zip(a.tolist(), b.tolist()))
    [(0, 5), (0, 6), (1, 5), (1, 6)]
    """
    assert size <= len(first) * len(second)
    turn = np.arange(size)
    late = turn // np.lcm(len(first), len(second))
    return rng.permutation(first)[turn % len(first)], rng.permutation(second)[(turn + late) % len(second)]


def standardised(values: Floats, mean: float, deviation: float) -> NDArray[np.float32]:
    """Return `(values - mean) / deviation` on a grid of 2^-12: the last bits, which differ between CPUs, are gone."""
    return (np.round((values - mean) / deviation * 4096) / 4096).astype(np.float32)
