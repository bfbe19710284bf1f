"""A worker keeps the datasets of its runs, as many as fit."""

import pytest

from msam.bench import _datasets
from msam.bench._datasets import kept
from tests.bench.stacks import seeds


@pytest.fixture
def loaded(monkeypatch):
    """Note which seeds are loaded; nothing is kept from before."""
    heard = []
    whole = _datasets.parts.dataset
    monkeypatch.setattr(_datasets.parts, "dataset", lambda c: heard.append(c.data["seed"]) or whole(c))
    monkeypatch.setattr(_datasets, "_kept", type(_datasets._kept)())
    return heard


def test_what_is_small_is_loaded_once(loaded):
    configs = seeds(3)
    for settings in [*configs, *configs]:
        assert kept(settings).name == "dial"
    assert loaded == [7, 8, 9]


def test_what_does_not_fit_goes_the_longest_unused_first(loaded, monkeypatch):
    one, two, three = seeds(3)
    monkeypatch.setattr(_datasets, "BUDGET", 2 * _datasets._size(kept(one)))
    for settings in (two, one, three, one, two):
        kept(settings)
    assert loaded == [7, 8, 9, 8]


def test_the_last_one_is_kept_however_large(loaded, monkeypatch):
    monkeypatch.setattr(_datasets, "BUDGET", 1)
    (settings,) = seeds(1)
    assert kept(settings) is kept(settings)
