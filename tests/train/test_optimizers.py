"""Optimizers and schedules are torch's own, with the parameters one names."""

import inspect
import math

import pytest
import torch

from msam.train.config import config, options
from msam.train.optimizers import OPTIMIZERS, SCHEDULES
from msam.train.parts import schedule


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("sgd", {"lr": 0.3, "momentum": 0.5, "weight_decay": 0.1, "nesterov": True}, {}),
        ("adam", {"lr": 0.3, "beta1": 0.5, "beta2": 0.6, "weight_decay": 0.1}, {"betas": (0.5, 0.6)}),
        ("adamw", {"lr": 0.3, "beta1": 0.5, "beta2": 0.6, "weight_decay": 0.1}, {"betas": (0.5, 0.6)}),
    ],
)
def test_options_arrive(name, given, expected):
    weight = torch.nn.Parameter(torch.ones(2))
    made = OPTIMIZERS[name]([{"params": [weight], "role": "encoder"}], **given)
    group = made.param_groups[0]
    plain = {key: value for key, value in given.items() if not key.startswith("beta")}
    assert {key: group[key] for key in [*plain, *expected]} == plain | expected
    assert group["role"] == "encoder"
    assert type(made).__name__.lower() == name
    assert set(given) == set(options("optimizer", name))


def rates(epochs: int, **given) -> list[float]:
    factor = schedule(config(schedule=given, epochs=epochs))
    return [2.0 * factor(epoch) for epoch in range(epochs)]


def test_schedules_by_hand():
    assert rates(4, name="constant") == [2.0] * 4
    assert rates(10, name="step") == pytest.approx([2.0] * 7 + [0.2] * 3)
    assert rates(4, name="step", at=0.5, gamma=0.3) == pytest.approx([2.0, 2.0, 0.6, 0.6])
    assert rates(4, name="cosine", final=0.1) == pytest.approx(
        [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * e / 4)) / 2) for e in range(4)]
    )


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_every_schedule_begins_at_the_rate_that_is_asked_for_and_stays_above_zero(name, epochs):
    found = rates(epochs, name=name)
    assert found[0] == 2.0
    assert all(0 < rate <= 2.0 for rate in found)


def test_all_have_ranges_where_they_have_numbers():
    for kind, table in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        for name in table:
            assert inspect.getdoc(table[name])
            for option in options(kind, name).values():
                assert isinstance(option.default, bool) or option.range is not None
