"""Spectrograms of this field, exactly: what the papers print, and what the code that made their numbers does.

`257x299` and `257x1004` are the papers' text: log of a power density over segments that do not reach beyond the sound.
`257x188` is the code of OGM-GE, AGM and those who build on them: log of a magnitude, centred frames. See
docs/data/preparation.md for who used which.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from msam import checks

BINS = 257
SEGMENT = 512
OFFSET = 1e-7
"""What is added within the logarithm."""

Pad = Literal["reflect", "zeros"]


@dataclass(frozen=True)
class Spectrogram:
    """One definition; a call makes a spectrogram `(257, frames)` of a sound.

    Attributes:
        rate: samples a second.
        samples: of the sound, which is repeated or cut to this length.
        kind: "density" (scipy.signal.spectrogram) or "magnitude" (librosa.stft).
        hop: samples from one frame to the next.
        pad: what is beyond the ends of the sound, for "magnitude".
        standardise: whether to subtract the mean of the result and divide by its deviation + 1e-9, as PMR does.
    """

    rate: int
    samples: int
    kind: Literal["density", "magnitude"]
    hop: int
    pad: Pad = "reflect"
    standardise: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Frequencies and frames."""
        beyond = SEGMENT if self.kind == "magnitude" else 0
        return BINS, 1 + (self.samples + beyond - SEGMENT) // self.hop

    def __call__(self, sound: ArrayLike) -> NDArray[np.float32]:
        """Return the spectrogram of mono samples in [-1, 1] at `rate`; worked out in float64, rounded at the end.

        Raises:
            ValueError: if there is no sample.
        """
        fitted = torch.from_numpy(repeated(sound, self.samples))
        logs = (self._values(fitted) + OFFSET).log()
        if self.standardise:
            logs = (logs - logs.mean()) / (logs.std(correction=0) + 1e-9)
        found: NDArray[np.float32] = logs.to(torch.float32).numpy()
        return found

    def _values(self, sound: Tensor) -> Tensor:
        if self.kind == "density":
            return density(sound, self.rate, self.hop)
        return magnitude(sound, self.hop, self.pad)


KNOWN = {
    "257x299": Spectrogram(16000, 48000, "density", 159),
    "257x188": Spectrogram(22050, 66150, "magnitude", 353),
    "257x1004": Spectrogram(16000, 160000, "density", 159),
}
"""Definitions by their shapes: CREMA-D in the papers and in code, AVE."""


def named(name: str, *, pad: Pad = "reflect", standardise: bool = False) -> Spectrogram:
    """Return the definition called `name`.

    Arguments:
        name: "257x299", "257x188" or "257x1004".
        pad: for "257x188": "reflect" (older librosa, published numbers) or "zeros" (librosa >= 0.9).
        standardise: as PMR does for "257x299" and "257x1004".

    Raises:
        ValueError: for an unknown name or padding, or "zeros" where nothing is padded.

    >>> named("257x188").shape, named("257x299").shape
    ((257, 188), (257, 299))
    """
    found = KNOWN[checks.one_of("spectrogram", name, KNOWN)]
    checks.one_of("pad", pad, ("reflect", "zeros"))
    if pad == "zeros" and found.kind == "density":
        raise ValueError(f"`pad` must be 'reflect' with spectrogram {name}, which pads nothing, received {pad!r}.")
    return Spectrogram(found.rate, found.samples, found.kind, found.hop, pad, standardise)


def density(sound: Tensor, rate: int, hop: int) -> Tensor:
    """Return the power density `(257, frames)` of `sound`, as `scipy.signal.spectrogram(sound, rate)` defines it.

    Segments of 512 samples (`nperseg=512, noverlap=512 - hop`), of each its mean subtracted, a periodic Tukey window of
    0.25, one-sided: `2 |X|^2 / (rate sum w^2)`, without the 2 at 0 and at half the rate. No padding: what does not fill a
    last segment is left out.

    Arguments:
        sound: `(samples,)` float64, at least 512.
        rate: samples a second.
        hop: samples from one segment to the next.
    """
    window = tukey(SEGMENT, 0.25)
    segments = sound.unfold(0, SEGMENT, hop)
    centred = segments - segments.mean(1, keepdim=True)
    power = torch.fft.rfft(centred * window).abs() ** 2 / (rate * (window**2).sum())
    power[:, 1:-1] *= 2
    return power.T


def magnitude(sound: Tensor, hop: int, pad: Pad = "reflect") -> Tensor:
    """Return the magnitude `(257, frames)` of `sound`, as `librosa.stft(sound, n_fft=512, hop_length=hop)` defines it.

    A periodic Hann window of 512; frame `t` is centred on sample `t hop`.

    Arguments:
        sound: `(samples,)` float64, more than 256.
        hop: samples from one frame to the next.
        pad: what is beyond the ends: the sound mirrored, or silence.
    """
    window = torch.hann_window(SEGMENT, dtype=sound.dtype)
    mode = "reflect" if pad == "reflect" else "constant"
    return torch.stft(sound, SEGMENT, hop, window=window, center=True, pad_mode=mode, return_complex=True).abs()


def tukey(size: int, share: float) -> Tensor:
    """Return a periodic Tukey window: flat, with a share of it in two cosine slopes.

    >>> tukey(8, 0.5).round(decimals=3).tolist()
    [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5]
    """
    place = torch.arange(size, dtype=torch.float64)
    nearest = torch.minimum(place, size - place)
    return 0.5 * (1 - torch.cos(torch.pi * (2 * nearest / (share * size)).clamp(max=1)))


def repeated(sound: ArrayLike, samples: int) -> NDArray[np.float64]:
    """Return `sound` repeated as often as it takes and cut to `samples`.

    Official code repeats three times, which is the same for sounds of at least a third of the length.

    >>> repeated([1, 2, 3], 5).tolist()
    [1.0, 2.0, 3.0, 1.0, 2.0]
    """
    flat = np.asarray(sound, np.float64)
    if flat.ndim != 1 or not len(flat):
        raise ValueError(f"A sound must be samples in a row, at least one, received shape {flat.shape}.")
    return np.resize(flat, samples)
