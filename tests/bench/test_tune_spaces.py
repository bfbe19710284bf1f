"""What is tuned of a row is what its parts declare, and what the user says of it."""

import sys
import textwrap
from pathlib import Path

import pytest

from msam.bench._plans import plans
from msam.bench.tune import space, tune
from msam.checks import Search
from msam.recipes.grids import GRIDS
from tests.bench._tuning import Runs
from tests.bench.grids import WORLD

OGM = {"method": "ogm_ge", "sharpness": {"name": "sam", "rho": 0.1}}


def test_it_is_that_of_optimizer_method_and_rule():
    assert space(OGM) == {
        "optimizer.lr": Search(0.0005, 0.2, log=True),
        "optimizer.weight_decay": Search(1e-5, 1e-2, log=True),
        "method.alpha": Search(0.05, 2.0, log=True),
        "sharpness.rho": Search(0.01, 0.5, log=True),
    }
    assert list(space({})) == list(space({"method": "joint", "optimizer": "adam"}))


def test_a_row_widens_adds_and_fixes():
    found = space(
        {
            **OGM,
            "search": {
                "optimizer.lr": None,
                "method.alpha": Search(0.01, 4.0),
                "method.last_epoch": Search(1, 20),
                "method.noise": Search(choices=(False, True)),
            },
        }
    )
    assert list(found) == [
        "optimizer.weight_decay",
        "method.alpha",
        "method.noise",
        "method.last_epoch",
        "sharpness.rho",
    ]
    assert found["method.alpha"].high == 4.0
    assert found["method.last_epoch"].whole


def test_spaces_for_all_rows_hold_where_the_key_is_and_a_row_s_own_go_over_them():
    spaces = {"optimizer.lr": Search(0.01, 0.1), "method.alpha": None}
    assert space(OGM, spaces)["optimizer.lr"] == Search(0.01, 0.1)
    assert "method.alpha" not in space(OGM, spaces)
    assert space({}, spaces)["optimizer.lr"] == Search(0.01, 0.1)
    own = {**OGM, "search": {"optimizer.lr": Search(0.02, 0.2), "method.alpha": Search(0.1, 1.0)}}
    assert [space(own, spaces)[key].low for key in spaces] == [0.02, 0.1]


@pytest.mark.parametrize(
    ("row", "spaces", "words"),
    [
        (
            {"search": {"optimizer.rl": None}},
            {},
            r"Unknown key 'optimizer.rl' to search of this row\. Did you mean 'optimizer.lr'",
        ),
        ({"search": {"lr": None}}, {}, r"Unknown key 'lr' .*Known: optimizer\.lr, "),
        ({}, {"sharpness.rho": None}, r"Unknown key 'sharpness.rho' to search of any row"),
        ({}, {"optimizer.lr": None, "optimizer.weight_decay": None}, r"Nothing of it is tuned.* Leave it out"),
        ({"optimizer": {"lr": 0.3}}, {}, r"`optimizer\.lr` begins at 0\.3, outside of its space, 0\.0005 to 0\.2, log"),
        ({}, {"optimizer.lr": Search(0.0, 0.1)}, r"The space 0 to 0\.1 leaves the range: `optimizer\.lr` must be > 0"),
        ({}, {"optimizer.momentum": Search(0.5, 1.0)}, r"must be >= 0 and < 1, received 1\.0"),
        (
            {"method": "mses", "search": {"method.patience": Search(1.5, 20)}},
            {},
            r"A search of whole numbers goes from one to another, received 1\.5 and 20",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_tuned_is_refused_with_the_row(tmp_path, row, spaces, words):
    with pytest.raises(ValueError, match=words):
        tune({"mine": {"data": WORLD, **row}}, tmp_path, spaces=spaces, runner=Runs(), quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_method_of_one_s_own_brings_its_space(tmp_path, monkeypatch):
    (tmp_path / "tuning_lab").mkdir()
    (tmp_path / "tuning_lab" / "smoothed.py").write_text(
        textwrap.dedent("""
            from dataclasses import dataclass
            from typing import Annotated

            from msam.checks import Range, Search
            from msam.methods import Method


            @dataclass(frozen=True)
            class Smoothed(Method):
                alpha: Annotated[float, Range(ge=0, lt=1), Search(0.01, 0.5, log=True)] = 0.1
                taps: Annotated[int, Range(ge=1), Search(1, 9)] = 3
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    row = {"data": WORLD, "method": "tuning_lab.smoothed"}
    assert space(row)["method.taps"] == Search(1, 9, whole=True)
    found = tune({"mine": row}, tmp_path / "tuning", trials=4, runner=Runs(), quiet=True)["mine"]
    assert {"method.alpha", "method.taps"} <= found.values.keys()
    for name in ("tuning_lab", "tuning_lab.smoothed"):
        monkeypatch.delitem(sys.modules, name)


def test_the_page_shows_what_is_so():
    page = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text()
    found = space({"method": "ogm_ge", "sharpness": "msam"})
    assert "\n".join(f"{key} {one.describe()}" for key, one in found.items()) in page


@pytest.mark.parametrize("name", [name for name in GRIDS if not name.startswith("paper/")])
def test_every_grid_that_ships_begins_inside_its_spaces(name):
    """The paper's rows do too: tests/contract/test_search_spaces.py."""
    rows = GRIDS[name]().rows
    made = plans(rows, trials=2, seeds=(1000,), sampler="sobol", spaces={})
    assert [row.name for row in made] == list(rows)
