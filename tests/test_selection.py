import math
from pathlib import Path

import pytest

from msam import selection
from msam.record import Record


def test_best_validation_takes_the_earliest_of_equals() -> None:
    assert selection.load("best_validation").choose([{"accuracy": a} for a in (0.1, 0.8, 0.8, 0.3)]) == 1


def test_best_validation_passes_over_what_is_no_number() -> None:
    assert selection.load("best_validation").choose([{"accuracy": a} for a in (math.nan, 0.2, None)]) == 1


def test_best_validation_of_nothing_but_nan_is_the_first() -> None:
    assert selection.load("best_validation").choose([{"accuracy": math.nan}] * 2) == 0


def test_last_is_the_last() -> None:
    assert selection.load("last").choose([{"accuracy": 0.9}, {"accuracy": 0.1}]) == 1


def test_unknown_selection_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Unknown selection 'best_valid'\. Did you mean 'best_validation'"):
        selection.load("best_valid")


def test_every_name_loads() -> None:
    assert [selection.load(name).name for name in selection.names()] == selection.names()


def test_epochs_that_served_the_method_s_own_ends_do_not_count(tmp_path: Path) -> None:
    lines = [{"epoch": 1, "auxiliary": True}, {"epoch": 2}, {"epoch": 3}]
    steps = [{"step": epoch, "epoch": epoch} for epoch in (1, 2, 3)]
    found = selection.without_auxiliary(Record(tmp_path, {}, steps, lines))
    assert [line["epoch"] for line in found.epochs] == [line["epoch"] for line in found.steps] == [2, 3]
    assert selection.without_auxiliary(found) is found
