"""Encoders of AVE's features: ten seconds of a video, one feature for each.

A sample holds `T` segments with a label each; they are folded into the batch, sample by sample: `(B T, ...)`.

The layers are those of Zhou et al. 2021 (positive sample propagation) in AGM's code. Where they stand is our reading: there
audio guides an attention over the picture *before* the picture's projections and LSTM, so that what would be the encoder of
the picture sees both modalities. Here an encoder sees its modality alone: the picture's projections and LSTM run at each
of the 7x7 locations, with the same weights and thus as many parameters, and audio guides the attention over what comes
out, in the fusion `psp`. Without that fusion (`late`, `maxout`) the picture's feature is the mean over locations.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from msam.models._encoder import Encoder

PROJECTIONS, LSTM = (256, 128), 128


def ave_audio(shape: Sequence[int]) -> Encoder:
    """Return the encoder of VGGish features: two projections, a bidirectional LSTM over the segments; 256 features.

    Arguments:
        shape: (T, F), T segments with F features; AVE has (10, 128).

    Raises:
        ValueError: for another shape.

    >>> import torch
    >>> ave_audio((10, 128))(torch.zeros(2, 10, 128)).shape
    torch.Size([20, 256])
    """
    _check("ave_audio", shape, ("T", "F"))
    return Encoder([*_projections(shape[-1]), OverSegments(), Folded()], 2 * LSTM)


def ave_video(shape: Sequence[int]) -> Encoder:
    """Return the encoder of VGG19 maps: two projections, a bidirectional LSTM over the segments; 256 features a location.

    Arguments:
        shape: (T, H, W, F), T segments with F features at each of H x W locations; AVE has (10, 7, 7, 512).

    Raises:
        ValueError: for another shape.

    >>> import torch
    >>> ave_video((10, 7, 7, 512))(torch.zeros(2, 10, 7, 7, 512)).shape
    torch.Size([20, 7, 7, 256])
    """
    _check("ave_video", shape, ("T", "H", "W", "F"))
    return Encoder([*_projections(shape[-1]), OverSegments(), Folded()], 2 * LSTM)


class OverSegments(nn.Module):
    """A bidirectional LSTM over the segments of every location: `(B, T, ..., F)` -> `(B, T, ..., 256)`."""

    def __init__(self, features: int = PROJECTIONS[-1], hidden: int = LSTM) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return both directions' outputs side by side."""
        by_location = x.movedim(1, -2)
        rows = by_location.flatten(0, -3)
        made: Tensor = self.lstm(rows)[0]
        return made.unflatten(0, by_location.shape[:-2]).movedim(-2, 1)


class Folded(nn.Module):
    """Segments into the batch: `(B, T, ...)` -> `(B T, ...)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the segments of the first sample, then those of the second, and so on."""
        return x.flatten(0, 1)


def _projections(features: int) -> list[nn.Module]:
    """Two linear layers without bias, and nothing between them, as in the code."""
    wide, narrow = PROJECTIONS
    layers = [nn.Linear(features, wide, bias=False), nn.Linear(wide, narrow, bias=False)]
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
    return [*layers]


def _check(name: str, shape: Sequence[int], axes: Sequence[str]) -> None:
    if len(shape) != len(axes) or min(shape) < 1:
        raise ValueError(
            f"The encoder {name!r} is for inputs ({', '.join(axes)}), T segments a sample, received {tuple(shape)}. Choose "
            "another encoder for this modality, mlp for instance takes any shape."
        )
