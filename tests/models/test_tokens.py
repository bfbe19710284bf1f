"""The encoder of token numbers."""

import pytest
import torch

from msam.models import encoder
from msam.models.tokens import VOCABULARY, MeanEmbedding


def test_the_feature_is_of_64_and_every_number_below_32768_is_known():
    made = encoder("token_mean", (4,))
    assert made.dim == 64
    assert made(torch.tensor([[1, 2, VOCABULARY - 1, 0]])).shape == (1, 64)


def test_it_is_the_mean_over_the_words_there_are_in_any_order():
    torch.manual_seed(0)
    layer = MeanEmbedding(10, 3)
    wanted = (layer.table.weight[4] + layer.table.weight[7]) / 2
    for row in ([4, 7, 0, 0], [7, 4, 0, 0], [0, 4, 0, 7], [4, 4, 7, 7]):
        assert torch.allclose(layer(torch.tensor([row]))[0], wanted)


def test_no_word_gives_zeros_and_its_embedding_is_not_trained():
    layer = MeanEmbedding(10, 3)
    assert torch.equal(layer(torch.zeros(2, 4, dtype=torch.long)), torch.zeros(2, 3))
    layer(torch.tensor([[4, 0]])).sum().backward()
    assert layer.table.weight.grad[0].abs().sum() == 0
    assert layer.table.weight.grad[4].abs().sum() > 0


@pytest.mark.parametrize("shape", [(4, 3), (), (0,)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="'token_mean' is for token numbers"):
        encoder("token_mean", shape)
