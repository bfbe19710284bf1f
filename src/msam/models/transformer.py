"""The transformer of UR-FUNNY: one for each modality, on features of words in the order they are spoken."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msam.models._encoder import Encoder

WIDTH, HEADS, HIDDEN, DEPTH, DROPOUT = 768, 4, 2048, 8, 0.1


def transformer(shape: Sequence[int]) -> Encoder:
    """Return the encoder of sequences as AGM's code has it: no positions, padding attended to; 768 features.

    It is as sure of a sentence as of a shuffled one but for its first word, whose output is the feature, and what it makes
    of a short sequence depends on how many zeros follow. `transformer_masked` corrects both; this is what was reported.

    Arguments:
        shape: (T, F), T words with F features each.

    Raises:
        ValueError: for another shape.

    >>> sum(p.numel() for p in transformer((50, 81)).parameters())
    44174080
    """
    return Encoder([SequenceTransformer(_features("transformer", shape))], WIDTH)


def transformer_masked(shape: Sequence[int]) -> Encoder:
    """Return the encoder of sequences with two corrections: positions are told, padding is not attended to; 768 features.

    It has as many parameters as `transformer`: positions are the sines of Vaswani et al. 2017. Padding is what is zero
    in all F features; word 0 is never taken for padding, so that a sequence of zeros has a feature too.

    Arguments:
        shape: (T, F), T words with F features each, padded at the end.

    Raises:
        ValueError: for another shape.
    """
    return Encoder([SequenceTransformer(_features("transformer_masked", shape), positions=True, mask=True)], WIDTH)


class SequenceTransformer(nn.Module):
    """`(B, T, F)` -> `(B, width)`: a projection, post-norm transformer layers, and the output at word 0.

    The defaults are AGM's code for UR-FUNNY: `Conv1d(F, 768, kernel 1)` without bias, then 8 of torch's
    `TransformerEncoderLayer(768, 4 heads, 2048, dropout 0.1, ReLU)`, which begin as copies of one another, as
    `nn.TransformerEncoder` makes them.

    Arguments:
        features: F, at least 1.
        width: of the layers, a multiple of `heads`; even with `positions`.
        heads: of attention.
        hidden: width of the feed-forward layers.
        depth: number of layers.
        dropout: in the layers, in [0, 1).
        positions: add sines of the position to the projected words.
        mask: attend to no word, but for word 0, that is zero in all features.
    """

    def __init__(
        self,
        features: int,
        *,
        width: int = WIDTH,
        heads: int = HEADS,
        hidden: int = HIDDEN,
        depth: int = DEPTH,
        dropout: float = DROPOUT,
        positions: bool = False,
        mask: bool = False,
    ) -> None:
        super().__init__()
        self.positions, self.mask = positions, mask
        self.project = nn.Conv1d(features, width, 1, bias=False)
        layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output at word 0, `(B, width)`."""
        words = self.project(x.transpose(1, 2)).transpose(1, 2)
        if self.positions:
            words = words + sines(*words.shape[1:]).to(words)
        return self.encoder(words, src_key_padding_mask=padding(x) if self.mask else None)[:, 0]


def padding(x: Tensor) -> Tensor:
    """Return `(B, T)` bool, True for words of `(B, T, F)` that are zero in all features; False for word 0.

    >>> padding(torch.tensor([[[0.0], [1.0], [0.0]]]))
    tensor([[False, False,  True]])
    """
    empty = (x == 0).all(-1)
    empty[:, 0] = False
    return empty


def sines(length: int, width: int) -> Tensor:
    """Return the positions of Vaswani et al. 2017, `(length, width)`: `sin(t / 10000^(2i / width))` beside its cosine.

    >>> sines(2, 2)
    tensor([[0.0000, 1.0000],
            [0.8415, 0.5403]])
    """
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _features(name: str, shape: Sequence[int]) -> int:
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(
            f"The encoder {name!r} is for sequences (T, F), T words with F features each, received {tuple(shape)}. Choose "
            "another encoder for this modality, mlp for instance takes any shape."
        )
    return shape[1]
