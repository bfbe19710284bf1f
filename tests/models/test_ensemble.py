"""The sum of fusions over one modality each."""

import pytest
import torch

from msam.models import ConcatFusion, MaxoutFusion, SumFusion
from msam.models.ensemble import EnsembleFusion


def test_its_logits_by_hand():
    alone = {"a": SumFusion({"a": 1}, 2), "b": ConcatFusion({"b": 2}, 2)}
    with torch.no_grad():
        for fusion, weight in ((alone["a"].linear["a"], [[1.0], [0.0]]), (alone["b"].linear, [[0.0, 2.0], [1.0, 0.0]])):
            fusion.weight.copy_(torch.tensor(weight))
            fusion.bias.fill_(0.5)
    features = {"a": torch.tensor([[3.0]]), "b": torch.tensor([[4.0, 5.0]])}
    # a: (3.5, 0.5), b: (10.5, 4.5)
    assert EnsembleFusion(alone)(features).tolist() == [[14.0, 5.0]]


def test_kinds_may_differ_and_it_splits_where_they_do_not():
    fusion = EnsembleFusion({"a": SumFusion({"a": 3}, 4), "b": MaxoutFusion({"b": 5}, 4, hidden=(6,))}).eval()
    features = {"a": torch.randn(7, 3), "b": torch.randn(7, 5)}
    gains, nothing = fusion.parts(features)
    torch.testing.assert_close(sum(gains) + nothing, fusion(features))
    assert fusion.dims == {"a": 3, "b": 5}


def test_part_of_it_is_an_ensemble_of_the_same_kinds_with_fresh_weights():
    fusion = EnsembleFusion({n: MaxoutFusion({n: 5}, 4, hidden=(6,)) for n in "abc"})
    part = fusion.over({"c", "a"})
    assert part.modalities == ("a", "c")
    assert str(part.alone["a"]) == str(fusion.alone["a"])
    assert not torch.equal(part.weight_of("a")[0], fusion.weight_of("a")[0])


@pytest.mark.parametrize(
    "alone",
    [
        {"a": SumFusion({"b": 3}, 4)},
        {"a": SumFusion({"a": 3, "b": 3}, 4)},
        {"a": SumFusion({"a": 3}, 4), "b": SumFusion({"b": 3}, 5)},
    ],
    ids=["another", "two", "other logits"],
)
def test_what_is_no_fusion_of_one_modality_is_refused(alone):
    with pytest.raises(ValueError, match=r"needs a fusion over each modality alone, all with one number of logits"):
        EnsembleFusion(alone)


def test_none_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one modality"):
        EnsembleFusion({})
