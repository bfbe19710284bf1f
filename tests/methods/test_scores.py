"""Scores of modalities where samples lack some: means over those that have it, and nothing from one that nobody has."""

import pytest
import torch

from msam.methods._scores import accuracy, cross_entropy, target_probability

SCORES = [target_probability, cross_entropy, accuracy]


def drawn(seed: int = 0):
    made = torch.Generator().manual_seed(seed)
    logits = [torch.randn(6, 3, generator=made, dtype=torch.float64) for _ in range(3)]
    return logits, torch.randint(3, (6,), generator=made)


@pytest.mark.parametrize("score", SCORES)
def test_where_all_have_all_it_says_nothing_new(score):
    logits, target = drawn()
    assert torch.allclose(score(logits, target, torch.ones(6, 3, dtype=torch.bool)), score(logits, target))


@pytest.mark.parametrize("score", SCORES)
def test_a_modality_is_scored_on_the_samples_that_have_it(score):
    logits, target = drawn()
    present = torch.tensor([[True, True, False]] * 2 + [[False, True, True]] * 4)
    found = score(logits, target, present)
    for m, rows in enumerate(present.T):
        assert torch.allclose(found[m], score([logits[m][rows]], target[rows])[0])


@pytest.mark.parametrize("score", SCORES)
def test_a_modality_that_nobody_has_scores_as_the_others_do_on_average(score):
    logits, target = drawn()
    present = torch.tensor([[True, False, True]]).expand(6, 3)
    found = score(logits, target, present)
    assert torch.allclose(found[1], found[[0, 2]].mean())


@pytest.mark.parametrize("score", SCORES)
def test_segments_have_what_their_sample_has(score):
    logits, target = drawn()
    present = torch.tensor([[True, True, False], [False, True, True]])
    assert torch.equal(score(logits, target, present), score(logits, target, present.repeat_interleave(3, 0)))
