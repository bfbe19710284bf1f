"""Loggers by name."""

import importlib.util
from collections.abc import Sequence

from msam import _registry
from msam.loggers._base import Logger

PACKAGE = "msam.loggers"


def load(name: str) -> type[Logger]:
    """Return the logger called `name`: of this folder, or of any importable module (`"my_lab.foo"`).

    Raises:
        ValueError: if there is none, with the nearest known name, or if its package is not installed, with its extra.

    >>> load("tensorbord")
    Traceback (most recent call last):
    ValueError: Unknown logger 'tensorbord'. Did you mean 'tensorboard'? Known: mlflow, tensorboard, trackio, wandb.
    """
    found = find(name)
    if not installed(found):
        what = f"'msam[{found.extra}]'" if found.extra else found.package
        raise ValueError(
            f"Logger {name!r} needs the package {found.package}, which is not installed. Install it with "
            f"`pip install {what}`."
        )
    return found


def find(name: str) -> type[Logger]:
    """Return the logger called `name`, whether its package is installed or not.

    Raises:
        ValueError: if there is none, with the nearest known name.
    """
    found: type[Logger] = _registry.defined_class(_registry.module(PACKAGE, "logger", name), Logger)
    return found


def installed(kind: type[Logger]) -> bool:
    """Tell whether the package of a logger is installed."""
    return not kind.package or importlib.util.find_spec(kind.package) is not None


def load_all(names: Sequence[str]) -> dict[str, type[Logger]]:
    """Return loggers by their names.

    Raises:
        ValueError: as `load`, and if there is no name.
    """
    if not names:
        raise ValueError(f"Name at least one logger: {', '.join(_registry.names(PACKAGE))}.")
    return {name: load(name) for name in names}


def names() -> list[str]:
    """Return the names of the loggers of this folder, whether their packages are installed or not."""
    return _registry.names(PACKAGE)
