"""From stored frames to the model's input: which frames, which part of them, at which size."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

SIZE = 224
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet, by which published code standardises."""

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10


class Crop(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def evenly(count: int, wanted: int) -> list[int]:
    """Return `wanted` of `count` frames, the middles of equal parts; frames come again where there are too few.

    >>> evenly(3, 1), evenly(7, 3), evenly(2, 3)
    ([1], [1, 3, 5], [0, 1, 1])
    """
    return [(2 * part + 1) * count // (2 * wanted) for part in range(wanted)]


def at_random(count: int, wanted: int, rng: Generator) -> list[int]:
    """Return `wanted` different ones of `count` frames, ascending; evenly where there are too few."""
    if count < wanted:
        return evenly(count, wanted)
    return sorted(int(number) for number in rng.choice(count, wanted, replace=False))


def random_crop(height: int, width: int, rng: Generator) -> Crop:
    """Draw a crop as torchvision's `RandomResizedCrop` does with its defaults.

    Ten times an area, a share in [0.08, 1] of the picture's, and a ratio of width to height, log-uniform in [3/4, 4/3],
    are drawn; the first that fits lies anywhere. If none fits: the largest central part of an admissible ratio.

    Arguments:
        height: of the picture.
        width: of the picture.
        rng: source of the draw.
    """
    for _ in range(TRIES):
        area = height * width * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        part = Crop(0, 0, round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio)))
        if 0 < part.width <= width and 0 < part.height <= height:
            top, left = rng.integers(height - part.height + 1), rng.integers(width - part.width + 1)
            return part._replace(top=int(top), left=int(left))
    return _central(height, width)


def resized(frame: NDArray[np.uint8], part: Crop | None = None, size: int = SIZE, *, flip: bool = False) -> Tensor:
    """Return a part of a frame, bilinearly resized with antialiasing, uint8 `(3, size, size)`.

    Arguments:
        frame: `(height, width, 3)` uint8.
        part: what to take; None: all of it, its ratio changed, as torchvision's `Resize((224, 224))` does.
        size: height and width of the result.
        flip: whether to mirror it left to right.
    """
    taken = frame if part is None else frame[part.top : part.top + part.height, part.left : part.left + part.width]
    made = _scaled(taken, size, size)
    return made.flip(-1) if flip else made


def shortened(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a frame whose shorter side is at most `side`, its ratio kept; bilinear, with antialiasing.

    Arguments:
        frame: `(height, width, 3)` uint8.
        side: in pixels; 0: the frame as it is.

    >>> shortened(np.zeros((360, 480, 3), np.uint8), 90).shape, shortened(np.zeros((36, 48, 3), np.uint8), 90).shape
    ((90, 120, 3), (36, 48, 3))
    """
    height, width, _ = frame.shape
    if not side or min(height, width) <= side:
        return frame
    share = side / min(height, width)
    made = _scaled(frame, max(1, round(height * share)), max(1, round(width * share)))
    return np.ascontiguousarray(made.permute(1, 2, 0).numpy())


def standardised(frames: Sequence[Tensor]) -> Tensor:
    """Return uint8 frames `(3, H, W)` as one float clip `(3, T, H, W)`, by ImageNet's mean and deviation."""
    mean, deviation = (torch.tensor(of).view(3, 1, 1, 1) for of in (MEAN, DEVIATION))
    return torch.stack(list(frames), dim=1).float().div_(255).sub_(mean).div_(deviation)


def _scaled(frame: NDArray[np.uint8], height: int, width: int) -> Tensor:
    # a copy: a mapped file is read-only, which torch warns of
    tensor = torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None]
    return interpolate(tensor, (height, width), mode="bilinear", antialias=True)[0]


def _central(height: int, width: int) -> Crop:
    ratio = width / height
    kept_height = round(width / RATIO[0]) if ratio < RATIO[0] else height
    kept_width = round(height * RATIO[1]) if ratio > RATIO[1] else width
    return Crop((height - kept_height) // 2, (width - kept_width) // 2, kept_height, kept_width)
