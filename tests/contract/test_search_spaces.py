"""Where tuning looks for a hyper-parameter is declared beside it: laws for every part that ships."""

import itertools
from typing import Any

import pytest
import torch

from msam import methods, sharpness
from msam.checks import Search
from msam.models import MultimodalModel, SumFusion
from msam.recipes import paper
from msam.train.config import KINDS, Option, config, options
from msam.train.optimizers import OPTIMIZERS

PARTS = [
    (kind, name) for kind in ("optimizer", "method", "sharpness") for name in KINDS[kind].names() if name != "none"
]
every_part = pytest.mark.parametrize(("kind", "name"), PARTS, ids=lambda p: p)


def searched(kind: str, name: str) -> dict[str, tuple[Option, Search]]:
    return {key: (option, option.search) for key, option in options(kind, name).items() if option.search}


def ends(space: Search) -> tuple[Any, ...]:
    return space.choices or (space.low, space.high)


@every_part
def test_the_default_lies_in_the_space(kind, name):
    for key, (option, space) in searched(kind, name).items():
        assert space.holds(option.default), f"{kind} {name}: {key} = {option.default} is not in {space.describe()}"


@every_part
def test_every_value_of_the_space_is_admitted(kind, name):
    spaces = {key: ends(space) for key, (_, space) in searched(kind, name).items()}
    for corner in itertools.product(*spaces.values()):
        values = dict(zip(spaces, corner, strict=True))
        config({kind: {"name": name, **values}})
        build(kind, name, values)


def build(kind: str, name: str, values: dict[str, Any]) -> None:
    """Make the part itself: what options exclude of each other is only known there."""
    if kind == "method":
        methods.load(name)(**values)
        return
    model = MultimodalModel({"a": torch.nn.Linear(2, 3), "b": torch.nn.Linear(2, 3)}, SumFusion({"a": 3, "b": 3}, 2))
    lr = {"lr": 0.1} if kind == "sharpness" else {}
    optimizer = OPTIMIZERS["sgd" if lr else name](model.parameter_groups(), **(lr or values))
    if kind == "sharpness":
        sharpness.load(name)(optimizer, model=model, **values)


@every_part
def test_a_part_with_numbers_has_a_space_of_one_to_three_dimensions_and_a_neutral_one_has_none(kind, name):
    found = searched(kind, name)
    numbers = [option for option in options(kind, name).values() if option.range]
    assert bool(found) == bool(numbers)
    assert len(found) <= 3


def test_every_rule_tunes_its_radius_and_every_optimizer_its_rate():
    wanted = {"sharpness": "rho", "optimizer": "lr"}
    assert all(wanted[kind] in searched(kind, name) for kind, name in PARTS if kind in wanted)


def test_values_of_the_paper_s_recipes_lie_in_the_spaces():
    """Tuning begins at them."""
    rows = [paper.settings(name) for name in paper.names()]
    assert rows
    for row in rows:
        complete = config(row)
        for kind in ("optimizer", "method", "sharpness"):
            part = getattr(complete, kind)
            for key, (_, space) in searched(kind, part["name"]).items() if part else ():
                assert space.holds(part[key]), f"{kind} {part['name']}: {key} = {part[key]}"
