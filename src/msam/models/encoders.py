"""Encoders by name: from one modality's input to a feature; the small ones of the embedded datasets are here."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from msam import checks
from msam.models._encoder import Encoder
from msam.models.ave import ave_audio, ave_video
from msam.models.resnet import resnet18, resnet18_frames
from msam.models.tokens import token_mean
from msam.models.transformer import transformer, transformer_masked

__all__ = ["ENCODERS", "Encoder", "digit_cnn", "encoder", "mlp", "patch_cnn"]


def patch_cnn(shape: Sequence[int]) -> Encoder:
    """Return the encoder of 32x32 log-mel patches: three convolutions and a linear layer, 26k parameters, 64 features."""
    convolutions = [*_block(shape[0], 12, stride=2), *_block(12, 20), nn.MaxPool2d(2), *_block(20, 20), nn.MaxPool2d(2)]
    return _flattened(convolutions, 20 * (shape[1] // 8) * (shape[2] // 8))


def digit_cnn(shape: Sequence[int]) -> Encoder:
    """Return the encoder of 8x8 digits: two convolutions and a linear layer, 24k parameters, 64 features."""
    convolutions = [*_block(shape[0], 16), nn.MaxPool2d(2), *_block(16, 20)]
    return _flattened(convolutions, 20 * (shape[1] // 2) * (shape[2] // 2))


def mlp(shape: Sequence[int]) -> Encoder:
    """Return the encoder of flat vectors: two hidden layers of 64, 64 features."""
    width = 1
    for size in shape:
        width *= size
    return Encoder([nn.Flatten(), nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()], 64)


ENCODERS: Mapping[str, Callable[[Sequence[int]], Encoder]] = {
    f.__name__: f
    for f in (
        patch_cnn,
        digit_cnn,
        mlp,
        resnet18,
        resnet18_frames,
        transformer,
        transformer_masked,
        token_mean,
        ave_audio,
        ave_video,
    )
}
"""Encoders by the names that datasets and configurations give."""


def encoder(name: str, shape: Sequence[int]) -> Encoder:
    """Return a fresh encoder called `name` for inputs of `shape`, the batch left out.

    Raises:
        ValueError: if there is none, with the nearest known name; if it is not for inputs of such a shape.

    >>> import torch
    >>> encoder("mlp", (64,))(torch.zeros(2, 64)).shape
    torch.Size([2, 64])
    """
    return ENCODERS[checks.one_of("encoder", name, ENCODERS)](shape)


def _block(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]


def _flattened(convolutions: Sequence[nn.Module], width: int) -> Encoder:
    """End in a linear layer on all positions: where in time and frequency something sounds tells digits apart."""
    return Encoder([*convolutions, nn.Flatten(), nn.Linear(width, 64), nn.ReLU()], 64)
