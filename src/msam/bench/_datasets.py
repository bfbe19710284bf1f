"""Datasets that a worker keeps while it trains many runs on them."""

import json
from collections import OrderedDict

from msam.data import Dataset, TensorSplit
from msam.train import RunConfig, parts

BUDGET = 2**28
"""Bytes that all kept datasets may take."""

_kept: OrderedDict[str, Dataset] = OrderedDict()


def kept(settings: RunConfig) -> Dataset:
    """Return the dataset of a configuration; those asked for lately, as many as fit, are not loaded again."""
    key = json.dumps(settings.data, sort_keys=True)
    if key not in _kept:
        _kept[key] = parts.dataset(settings)
    _kept.move_to_end(key)
    while len(_kept) > 1 and sum(map(_size, _kept.values())) > BUDGET:
        _kept.popitem(last=False)
    return _kept[key]


def _size(dataset: Dataset) -> int:
    """Return the bytes of a dataset in memory; one that reads from disk counts as half of what there is for all."""
    splits = (dataset.train, dataset.valid, dataset.test)
    if not all(isinstance(split, TensorSplit) for split in splits):
        return BUDGET // 2
    return sum(
        x.nbytes for split in splits if isinstance(split, TensorSplit) for x in (*split.inputs.values(), split.target)
    )
