"""The sounds of AV-digits: from a wave to a log-mel patch, and six kinds of noise."""

import zlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

RATE, WINDOW, HOP, FRAMES, BANDS = 16_000, 512, 400, 32, 32
LOW, HIGH = 80, 7200
SAMPLES = WINDOW + (FRAMES - 1) * HOP
STEP = 0.25  # decibels per grey level: 8 bits hold 63.75 dB below the loudest cell of a patch

Wave = NDArray[np.float64]


def centred(wave: Wave) -> Wave:
    """Return `SAMPLES` samples: what is louder than -34 dB of the peak, in the middle; a longer word loses its ends."""
    loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
    wave = wave[loud[0] : loud[-1] + 1]
    spare = SAMPLES - len(wave)
    return np.pad(wave, (spare // 2, spare - spare // 2)) if spare >= 0 else wave[-spare // 2 :][:SAMPLES]


def mel_filters() -> NDArray[np.float64]:
    """Return triangles `(32 bands, 257 bins)`, equally spaced in mel from 80 to 7200 Hz."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (LOW, HIGH))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    left, centre, right = (edges[i : i + BANDS, None] for i in range(3))
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    return np.maximum(0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))


def patch(wave: Wave) -> NDArray[np.uint8]:
    """Return the log-mel patch `(32 bands, 32 frames)` of a wave `(SAMPLES,)`: 255 is its loudest cell, 0.25 dB a level."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP] * np.hanning(WINDOW)
    power = mel_filters() @ (np.abs(np.fft.rfft(frames)) ** 2).T
    level = 10 * np.log10(np.maximum(power, 1e-12 * power.max()) / power.max())
    return np.clip(np.round(255 + level / STEP), 0, 255).astype(np.uint8)


def coloured(rng: np.random.Generator) -> Wave:
    """Return noise whose power falls as f^-a, a from -1 (blue) to 2 (brown)."""
    frequency = np.fft.rfftfreq(SAMPLES, 1 / RATE)
    spectrum = np.fft.rfft(rng.standard_normal(SAMPLES)) * np.maximum(frequency, 40) ** -(rng.uniform(-1, 2) / 2)
    return np.fft.irfft(spectrum, SAMPLES)


def modulated(rng: np.random.Generator) -> Wave:
    """Return coloured noise that swells 2 to 16 times a second."""
    phase = 2 * np.pi * (rng.uniform(2, 16) * _time() + rng.uniform())
    return coloured(rng) * (0.5 + 0.5 * np.sin(phase)) ** rng.uniform(1, 3)


def hum(rng: np.random.Generator) -> Wave:
    """Return harmonics of 50 to 200 Hz with random phases, falling as k^-a."""
    pitch, fall = rng.uniform(50, 200), rng.uniform(0.3, 1.5)
    orders = np.arange(1, int(7000 / pitch))
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    return np.sin(2 * np.pi * pitch * np.outer(_time(), orders) + phases) @ orders**-fall


def chirp(rng: np.random.Generator) -> Wave:
    """Return one to four sweeps between two frequencies of 100 to 7000 Hz."""
    start, stop = np.exp(rng.uniform(np.log(100), np.log(7000), 2))
    progress = (_time() * RATE / SAMPLES * rng.integers(1, 5)) % 1
    return np.sin(2 * np.pi * np.cumsum(start * (stop / start) ** progress) / RATE)


def clicks(rng: np.random.Generator) -> Wave:
    """Return 4 to 30 bursts of noise, each dying away within 1 to 10 ms."""
    wave = np.zeros(SAMPLES)
    for start in rng.integers(0, SAMPLES, rng.integers(4, 31)):
        left = np.arange(SAMPLES - start)
        wave[start:] += rng.standard_normal(len(left)) * np.exp(-left / RATE / rng.uniform(0.001, 0.01))
    return wave


def formant_bursts(rng: np.random.Generator) -> Wave:
    """Return two to five syllables without words: pulse trains through three random formants."""
    wave = np.zeros(SAMPLES)
    for _ in range(rng.integers(2, 6)):
        pulses = (np.diff(np.floor(rng.uniform(80, 250) * _time()), prepend=0) > 0).astype(float)
        for low, high in ((250, 850), (850, 2400), (2000, 3500)):
            radius, angle = np.exp(-np.pi * 100 / RATE), 2 * np.pi * rng.uniform(low, high) / RATE
            pulses = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], pulses)
        length = int(rng.uniform(0.08, 0.3) * RATE)
        start = rng.integers(0, SAMPLES - length)
        wave[start : start + length] += pulses[:length] * np.hanning(length)
    return wave


NOISES: Mapping[str, Callable[[np.random.Generator], Wave]] = {
    function.__name__: function for function in (coloured, modulated, hum, chirp, clicks, formant_bursts)
}


def noise(kind: str, number: int, seed: int) -> NDArray[np.uint8]:
    """Return noise patch `(32, 32)` number `number` of a kind, over a faint hiss."""
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
    wave = NOISES[kind](rng)
    return patch(wave + 1e-3 * wave.std() * rng.standard_normal(SAMPLES))


def _time() -> Wave:
    return np.arange(SAMPLES) / RATE
