"""Datasets that a worker keeps while it trains many runs on them."""

import json
from functools import lru_cache

from msam.data import Dataset
from msam.train import RunConfig, config, parts


def kept(settings: RunConfig) -> Dataset:
    """Return the dataset of a configuration; the last two that were asked for are not loaded again."""
    return _loaded(json.dumps(settings.data, sort_keys=True))


@lru_cache(maxsize=2)
def _loaded(data: str) -> Dataset:
    return parts.dataset(config(data=json.loads(data)))
