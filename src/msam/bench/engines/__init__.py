"""Engines: where the runs of a bench go, one machine or many; the folder is the registry."""

from msam import _registry
from msam.bench.engines._base import Engine, Lost

__all__ = ["Engine", "Lost", "load", "names"]


def load(name: str) -> type[Engine]:
    """Return the engine called `name`: of this folder, or of any importable module (`"my_lab.foo"`).

    Raises:
        ValueError: if there is none, with the nearest known name.

    >>> load("local").__name__
    'Local'
    """
    found: type[Engine] = _registry.defined_class(_registry.module(__name__, "engine", name), Engine)
    return found


def names() -> list[str]:
    """Return the names of the engines of this folder."""
    return _registry.names(__name__)
