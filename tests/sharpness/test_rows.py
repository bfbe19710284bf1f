"""Several runs at once, a row each: every row is what the rule makes of it alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from msam import sharpness
from msam.sharpness._rows import blended, climbed, climbs, done, intended

ROWS = [name for name in sharpness.names() if sharpness.load(name).stackable is not None]
OPTIONS = {"rho": [0.0, 0.3], "alpha": [0.0, 0.7], "share": ["contribution", "one", 0.4], "compensate": [False, True]}
OPTIONS |= {"rho_schedule": ["constant", "inverse_sqrt"]}


def gradient(weights, curvature):
    """Return that of `sum(c w^4 / 4)`, another one at every point."""
    return curvature * weights**3


def by_rule(rule, w, curvature, contributions):
    w.grad = gradient(w.detach(), curvature)
    with rule.perturbed(contributions) as climbing:
        if climbing:
            w.grad = gradient(w.detach(), curvature)
    return w.grad


def made(name, w, options):
    return sharpness.load(name)(torch.optim.SGD([w], lr=0.1), **options)


numbers = st.floats(-2, 2, allow_nan=False)


@pytest.mark.parametrize("name", ROWS)
@given(data=st.data())
def test_a_row_is_what_the_rule_makes_of_it(name, data):
    free = sharpness.load(name).stackable
    options = {key: data.draw(st.sampled_from(OPTIONS[key]), key) for key in sorted(free)}
    count, size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    row = st.lists(numbers, min_size=size, max_size=size)
    weights = torch.tensor(data.draw(st.lists(row, min_size=count, max_size=count)), dtype=torch.float64)
    curvature = torch.tensor(data.draw(row), dtype=torch.float64)
    dominant = data.draw(st.lists(st.floats(0.5, 1), min_size=count, max_size=count))
    contributions = [[1 - share, share] for share in dominant]

    alone = [nn.Parameter(w.clone()) for w in weights]
    rules = [made(name, w, options) for w in alone]
    copies = [made(name, nn.Parameter(w.clone()), options) for w in weights]
    for _ in range(2):  # two steps, for schedules
        expected = [by_rule(*of, c) for *of, c in zip(rules, alone, [curvature] * count, contributions, strict=True)]
        first = gradient(weights, curvature)
        shares, radii = zip(*(intended(rule, c) for rule, c in zip(copies, contributions, strict=True)), strict=True)
        there, factors = climbs(first, torch.tensor(radii, dtype=torch.float64))
        second = gradient(climbed(weights, first, factors), curvature)
        spent = blended(first, second, torch.tensor(shares, dtype=torch.float64), there)
        torch.testing.assert_close(spent, torch.stack(expected), rtol=0, atol=1e-10)
        for k, (rule, copied) in enumerate(zip(rules, copies, strict=True)):
            done(copied, shares[k], radii[k] if there[k] else 0.0)
            assert copied.last == pytest.approx(rule.last)
            assert str(copied.state_dict()) == str(rule.state_dict())


def test_a_row_that_is_not_finite_climbs_nowhere_and_touches_no_other():
    first = torch.tensor([[3.0, 4.0], [torch.inf, 1.0], [torch.nan, 1.0], [0.0, 0.0]])
    there, factors = climbs(first, torch.full((4,), 0.5))
    assert there.tolist() == [True, False, False, False]
    assert climbed(torch.zeros(4, 2), first, factors).tolist() == [pytest.approx([0.3, 0.4]), [0, 0], [0, 0], [0, 0]]
    spent = blended(first, torch.full((4, 2), torch.nan), torch.ones(4), there)
    assert spent[1:].nan_to_num(nan=-1.0).equal(first[1:].nan_to_num(nan=-1.0))


def test_rules_that_climb_otherwise_are_not_for_rows():
    assert {"sam", "gnp", "msam"} <= set(ROWS)
    assert not {"asam", "gsam", "gam", "imbsam", "looksam", "fisher_sam", "fsam"} & set(ROWS)
