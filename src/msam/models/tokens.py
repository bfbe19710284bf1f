"""The encoder of words that come as numbers."""

from collections.abc import Sequence

from torch import Tensor, nn

from msam.models._encoder import Encoder

VOCABULARY, WIDTH = 32768, 64
"""Numbers a word can have, 0 for no word; size of the feature."""


def token_mean(shape: Sequence[int]) -> Encoder:
    """Return the encoder of token numbers: the mean of their embeddings, then a linear layer and ReLU; 64 features.

    The order of the words does not matter; 0 is no word and counts for nothing. 2.1 million parameters, nearly all of them
    the table of 32768 embeddings.

    Arguments:
        shape: (T,), T numbers from 0 to 32767, padded with 0.

    Raises:
        ValueError: for another shape.

    >>> import torch
    >>> token_mean((5,))(torch.tensor([[7, 9, 0, 0, 0]])).shape
    torch.Size([1, 64])
    """
    if len(shape) != 1 or shape[0] < 1:
        raise ValueError(
            f"The encoder 'token_mean' is for token numbers (T,), received {tuple(shape)}. Choose another encoder for this "
            "modality, mlp for instance takes any shape."
        )
    return Encoder([MeanEmbedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, WIDTH), nn.ReLU()], WIDTH)


class MeanEmbedding(nn.Module):
    """Token numbers `(B, T)` -> the mean of their embeddings, `(B, width)`; zeros where there is no word.

    Arguments:
        vocabulary: how many numbers there are; 0 is padding.
        width: size of an embedding.
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width, padding_idx=0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over all numbers but 0."""
        x = x.long()
        count = (x != 0).sum(1, keepdim=True).clamp(min=1)
        summed: Tensor = self.table(x).sum(1)
        return summed / count.to(summed.dtype)
