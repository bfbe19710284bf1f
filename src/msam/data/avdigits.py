"""AV-digits: handwritten digits robbed of most of their energy, spoken digits in noise; nothing to download."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from msam import checks
from msam.checks import Range
from msam.data import _patches
from msam.data._loaders import Dataset, TensorSplit, fingerprint

FILE = Path(__file__).parent / "files" / "avdigits.npz"
SHA256 = "e6f1ffac9a3d25009eedd02f4b1571295a9fecb2c03ff8c6024dc64ff1089136"
SPLITS = ("train", "valid", "test")
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Decibels = Range(ge=-100, le=100)
Size = Range(ge=10)
Content = Mapping[str, NDArray[Any]]


def avdigits(
    *,
    seed: Annotated[int, Range(ge=0)] = 0,
    keep: Annotated[float, Range(gt=0, le=1)] = 0.40,
    snr_low: Annotated[float, Decibels] = -5.0,
    snr_high: Annotated[float, Decibels] = 5.0,
    roll: Annotated[int, Range(ge=0, le=8)] = 2,
    train_size: Annotated[int, Size] = 1500,
    valid_size: Annotated[int, Size] = 600,
    test_size: Annotated[int, Size] = 1500,
    file: str | None = None,
) -> Dataset:
    """Return pairs of a spoken and a written digit, as hard as you like.

    A clip and an image of one class are paired; no pair comes twice, classes are balanced. The clip is moved by up to
    `roll` frames and drowned in noise at an SNR uniform in `[snr_low, snr_high]`; the image keeps the leading principal
    components that fit into a share `keep` of the energy (fitted on the training images; the last one in part). Voices,
    forms and noise patches belong to one split each.

    Inputs: "audio" `(n, 1, 32, 32)`, log-mel in bands x frames, and "image" `(n, 1, 8, 8)`. From each, one mean is
    subtracted and one standard deviation divided out, those of all values of its training pairs. Each split has a
    random stream of its own, and no knob moves another: with one seed, `keep` changes images and nothing else.

    Args:
        seed: of pairs, noise, SNR and shifts.
        keep: share of the image energy kept, in (0, 1]; 1 leaves the images as they are.
        snr_low: lowest signal-to-noise ratio in dB.
        snr_high: highest signal-to-noise ratio in dB.
        roll: largest shift in frames of 25 ms.
        train_size: number of training pairs, at least one a class.
        valid_size: number of validation pairs.
        test_size: number of test pairs.
        file: another file that `tools/build_avdigits.py` wrote; by default the one shipped.

    Raises:
        ValueError: for a knob out of its range, `snr_low > snr_high`, more pairs than there are, a file that is missing
            or damaged, or a class without clips or images in a split.

    >>> data = avdigits(train_size=20, valid_size=10, test_size=10)
    >>> data.train[[0, 1]].inputs["audio"].shape
    torch.Size([2, 1, 32, 32])
    >>> data.modalities, len(data.train), data.train.target.bincount().unique().item()
    (('audio', 'image'), 20, 2)
    """
    checks.arguments_in_range(avdigits, locals())
    if snr_low > snr_high:
        raise ValueError(f"`snr_low` must be <= `snr_high`, received {snr_low!r} and {snr_high!r}.")
    content = read(FILE if file is None else Path(file), SHA256 if file is None else None)
    sizes = (train_size, valid_size, test_size)
    drawn = [_draw(content, split, size, seed) for split, size in enumerate(sizes)]
    fitted = _patches.energy_cut(_flat(content["image"][_split_of(content, "image") == 0]), keep)
    images = [_patches.cut(_flat(content["image"][draw.image]), *fitted).reshape(-1, 1, 8, 8) for draw in drawn]
    audio = [_heard(content, draw, snr_low, snr_high, roll)[:, None] for draw in drawn]
    train, valid, test = (
        TensorSplit({"audio": sound, "image": image}, torch.from_numpy(draw.label))
        for sound, image, draw in zip(_standardised(audio), _standardised(images), drawn, strict=True)
    )
    voices = np.bincount(content["voice_split"], minlength=3)
    return Dataset(
        "avdigits",
        train,
        valid,
        test,
        num_classes=10,
        shapes={"audio": (1, 32, 32), "image": (1, 8, 8)},
        encoders={"audio": "patch_cnn", "image": "digit_cnn"},
        fingerprint=fingerprint(train, valid, test),
        classes=CLASSES,
        facts={
            **{f"voices_{name}": float(count) for name, count in zip(SPLITS, voices, strict=True)},
            "image_components": float(fitted[2].sum()),
        },
    )


def read(file: Path, sha256: str | None = None) -> Content:
    """Return the arrays of an AV-digits file, as `docs/data/avdigits.md` lists them.

    Args:
        file: where it lies.
        sha256: what its bytes must hash to; None asks for a sound file only.

    Raises:
        ValueError: if it is missing, damaged, or not such a file.
    """
    way_out = "Reinstall msam, or build it with tools/build_avdigits.py."
    if not file.is_file():
        raise ValueError(f"The AV-digits file must exist, found none at {file}. {way_out}")
    data = file.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise ValueError(f"{file} is damaged: its sha256 must be {sha256}, found {found}. {way_out}")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in arrays.files}
        _well_formed(content)
    except Exception as error:  # a broken zip raises a dozen kinds
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise ValueError(f"{file} is damaged or no AV-digits file ({reason}). {way_out}") from error
    return content


def _well_formed(content: Content) -> None:
    """Raise a ValueError or KeyError unless arrays are there, as long as one another and in range."""
    patches = {"speech": (32, 32), "noise": (32, 32), "image": (8, 8)}
    for name, shape in patches.items():
        if content[name].shape[1:] != shape or content[name].dtype != np.uint8:
            raise ValueError(f"{name} must be (n, {shape[0]}, {shape[1]}) of uint8, found {content[name].shape}")
    if content["decibel"].shape != (2,) or not np.isfinite(content["decibel"]).all():
        raise ValueError(f"decibel must be a step and an offset, found {content['decibel']}")
    limits = {
        "speech_label": ("speech", 10),
        "speech_voice": ("speech", len(content["voice_split"])),
        "voice_split": ("voice_name", 3),
        "noise_split": ("noise", 3),
        "image_label": ("image", 10),
        "image_block": ("image", len(content["block_split"])),
        "block_split": ("block_split", 3),
    }
    for name, (owner, limit) in limits.items():
        values = content[name]
        if values.shape != (len(content[owner]),) or values.dtype.kind != "u" or (values >= limit).any():
            raise ValueError(f"{name} must be one number below {limit} for each of {len(content[owner])}")


def _split_of(content: Content, what: str) -> NDArray[Any]:
    """Return the split (0 train, 1 valid, 2 test) of every clip, image or noise patch."""
    if what == "noise":
        return content["noise_split"]
    owner = {"speech": "voice", "image": "block"}[what]
    return content[f"{owner}_split"][content[f"{what}_{owner}"]]


class _Draw(NamedTuple):
    """What chance decides about a split, each `(size,)`; SNR and shift as places in [0, 1) of their ranges."""

    label: NDArray[np.int64]
    clip: NDArray[np.intp]
    image: NDArray[np.intp]
    noise: NDArray[np.intp]
    snr: NDArray[np.float64]
    shift: NDArray[np.float64]


def _draw(content: Content, split: int, size: int, seed: int) -> _Draw:
    """Return the draws of one split: balanced labels, pairs within the class, noise of the split.

    Raises:
        ValueError: if a class has no clips or images, the split no noise, or if there are fewer than `size` pairs.
    """
    rng = np.random.default_rng([seed, split])
    label = rng.permutation(np.arange(size) % 10)
    clip, image = np.empty(size, np.intp), np.empty(size, np.intp)
    for number, word in enumerate(CLASSES):
        clips = _members(content, "speech", split, number)
        images = _members(content, "image", split, number)
        place, most = np.flatnonzero(label == number), len(clips) * len(images)
        if most == 0:
            what = "images" if len(clips) else "clips"
            raise ValueError(f"Every class needs {what} in every split, found none of {word!r} in {SPLITS[split]}.")
        if len(place) > most:
            raise ValueError(
                f"`{SPLITS[split]}_size` must be <= {10 * most}, received {size}: "
                f"{len(clips)} clips and {len(images)} images of {word!r} make {most} pairs."
            )
        clip[place], image[place] = _patches.pairs(clips, images, len(place), rng)
    noise = np.flatnonzero(_split_of(content, "noise") == split)
    if not len(noise):
        raise ValueError(f"Every split needs noise patches, found none in {SPLITS[split]}.")
    return _Draw(label, clip, image, rng.choice(noise, size), rng.uniform(size=size), rng.uniform(size=size))


def _members(content: Content, what: str, split: int, number: int) -> NDArray[np.intp]:
    return np.flatnonzero((_split_of(content, what) == split) & (content[f"{what}_label"] == number))


def _heard(content: Content, draw: _Draw, low: float, high: float, roll: int) -> NDArray[np.float64]:
    """Return the noisy log-mel patches `(size, 32, 32)` of a draw, in dB."""
    step, offset = content["decibel"]
    shifts = np.floor(draw.shift * (2 * roll + 1)).astype(np.intp) - roll
    speech = _patches.roll_time(content["speech"][draw.clip] * step + offset, shifts)
    return _patches.mix(speech, content["noise"][draw.noise] * step + offset, low + (high - low) * draw.snr)


def _standardised(parts: Sequence[NDArray[np.float64]]) -> list[torch.Tensor]:
    """Return the parts as tensors, standardised with mean and deviation of all values of the first."""
    mean, deviation = float(parts[0].mean()), float(parts[0].std())
    return [torch.from_numpy(_patches.standardised(part, mean, deviation)) for part in parts]


def _flat(images: NDArray[Any]) -> NDArray[np.float64]:
    return images.reshape(len(images), -1).astype(np.float64)
