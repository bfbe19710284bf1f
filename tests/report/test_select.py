import math

import pytest

from msam.report import select


def test_best_validation_takes_the_earliest_of_equals() -> None:
    assert select.load("best_validation").choose([{"accuracy": a} for a in (0.1, 0.8, 0.8, 0.3)]) == 1


def test_best_validation_passes_over_what_is_no_number() -> None:
    assert select.load("best_validation").choose([{"accuracy": a} for a in (math.nan, 0.2, None)]) == 1


def test_best_validation_of_nothing_but_nan_is_the_first() -> None:
    assert select.load("best_validation").choose([{"accuracy": math.nan}] * 2) == 0


def test_last_is_the_last() -> None:
    assert select.load("last").choose([{"accuracy": 0.9}, {"accuracy": 0.1}]) == 1


def test_unknown_selection_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Unknown selection 'best_valid'\. Did you mean 'best_validation'"):
        select.load("best_valid")


def test_every_name_loads() -> None:
    assert [select.load(name).name for name in select.names()] == select.names()
