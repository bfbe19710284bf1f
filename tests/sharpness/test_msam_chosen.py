"""Controls of awareness: M-SAM with another than the dominant modality."""

import itertools

import pytest
import torch
from torch import nn

import msam
from msam.sharpness import _chosen
from tests.sharpness._flat import spent
from tests.sharpness._modal import NAMES, SHARES, by_block, in_one_call, model_of, rule_of

FORMS = pytest.mark.parametrize("options", [{}, {"loss": "masked"}, {"weighting": "sample"}], ids=str)
SCOPES = pytest.mark.parametrize("scope", ["all", "dominant", "dominant+fusion"])


@SCOPES
@pytest.mark.parametrize("form", [by_block, in_one_call])
def test_the_weakest_is_the_dominant_one_of_shares_turned_round(form, scope):
    """With two modalities whose shares change places, who is weakest was dominant; the weight is its own share."""
    shares = [0.7, 0.3]
    found = []
    for modality, given, share in (("weakest", shares, "contribution"), ("dominant", shares[::-1], 0.3)):
        rule = rule_of(model_of("sum"), scope=scope, modality=modality, share=share)
        form(rule, given)
        assert rule.last["share"] == pytest.approx(0.3)
        found.append(spent(rule.model))
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)


@SCOPES
def test_a_modality_by_name_climbs_whoever_dominates(scope):
    for m, name in enumerate(NAMES[:3]):
        rule = rule_of(model_of("concat", 3), scope=scope, modality=name)
        in_one_call(rule, SHARES[3])
        assert rule.last["share"] == pytest.approx(SHARES[3][m])


def test_a_name_that_dominates_changes_nothing():
    dominant = NAMES[SHARES[3].index(max(SHARES[3]))]
    found = []
    for modality in ("dominant", dominant):
        rule = rule_of(model_of("concat", 3), scope="dominant", modality=modality)
        in_one_call(rule, SHARES[3])
        found.append(spent(rule.model))
    assert torch.equal(*found)


def test_random_is_every_modality_in_turn_of_no_order_and_the_same_when_resumed():
    drawn = [_chosen.place("random", [0.5, 0.3, 0.2], None, step) for step in range(600)]
    assert all(160 < drawn.count(m) < 240 for m in range(3))
    repeats = sum(a == b for a, b in itertools.pairwise(drawn))
    assert 150 < repeats < 250
    assert drawn == [_chosen.place("random", [0.1, 0.1, 0.8], None, step) for step in range(600)]


@FORMS
def test_a_random_one_stays_the_same_within_a_step(options):
    rule = rule_of(model_of("sum"), modality="random", **options)
    for step in range(6):
        expected = _chosen.place("random", SHARES[2], None, step)
        contributions = torch.tensor(SHARES[2], dtype=torch.float64)
        if options.get("weighting") == "sample":
            contributions = contributions[:, None].expand(-1, 10)
        in_one_call(rule, contributions, step)
        assert rule.last["share"] == pytest.approx(SHARES[2][expected])


def test_words_and_names_that_are_not_known_are_refused():
    with pytest.raises(ValueError, match=r"'weekest'.*weakest"):
        rule_of(model_of("sum"), modality="weekest")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    with pytest.raises(ValueError, match="names of the modalities are not known"):
        msam.MSAM(optimizer, modality="audio")
    assert msam.MSAM(optimizer, modality="weakest").modality == "weakest"


def test_contributions_of_too_few_modalities_are_refused_where_the_modalities_are_known():
    rule = rule_of(model_of("sum", 3))
    with pytest.raises(ValueError, match="received 2 of them"):
        by_block(rule, [0.5, 0.5])
