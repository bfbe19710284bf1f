"""Datasets: one file each; the folder is the registry.

A dataset module `NAME.py` defines, by these names:

    NAME(*, root="", ...) -> Dataset            ready to train on; keyword-only parameters are its configuration
    card(**the same) -> Card                    what is known before any file is read
    prepare(root, out, *, ...) -> Path          raw release -> prepared folder (`_prepare`); only where there is a need
    check(root, *, ...) -> Check                what is there, missing, broken (`_check`)

`msam data prepare NAME` and `msam data check NAME` take their flags from the keyword-only parameters of the last two.
"""

from collections.abc import Callable
from typing import Any, cast

from msam import _registry
from msam.data._card import Card
from msam.data._loaders import Dataset, Split, TensorSplit, fingerprint

__all__ = ["Card", "Dataset", "Split", "TensorSplit", "card", "fingerprint", "load", "names"]


def load(name: str) -> Callable[..., Dataset]:
    """Return the dataset function called `name`: of this folder, or of any importable module (`"my_lab.foo"`).

    The function's keyword-only parameters are the dataset's configuration.

    Raises:
        ValueError: if there is none, with the nearest known name.

    >>> load("dial").__name__
    'dial'
    """
    module = _registry.module(__name__, "dataset", name)
    function = getattr(module, name.rpartition(".")[2], None)
    if not callable(function):
        raise ValueError(f"Module {module.__name__} must define a function {name.rpartition('.')[2]}(...) -> Dataset.")
    return cast(Callable[..., Dataset], function)


def card(name: str, **options: Any) -> Card:
    """Return what is known of a dataset before any file of its is read; what is made on the spot is made for it.

    Arguments:
        name: as for `load`.
        options: the dataset's configuration.

    Raises:
        ValueError: if there is no such dataset, or an option is out of range.

    >>> card("avdigits").shapes["audio"]
    (1, 32, 32)
    """
    dataset = load(name)
    known = getattr(_registry.module(__name__, "dataset", name), "card", None)
    if known is not None:
        return cast(Card, known(**options))
    made = dataset(**options)
    return Card(made.name, made.shapes, made.encoders, made.num_classes, made.classes)


def names() -> list[str]:
    """Return the names of the datasets of this folder."""
    return _registry.names(__name__)
