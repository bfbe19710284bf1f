"""The folder is the registry: a module of the folder is a method, a rule, a dataset; its name is the public name."""

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

from msam import checks


def names(package: str) -> list[str]:
    """Return the names of the modules of `package` that are not helpers (`_name`)."""
    folder = importlib.import_module(package)
    return sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_"))


def module(package: str, kind: str, name: str) -> ModuleType:
    """Import the module that `name` stands for: of `package`, or as it stands when the name is dotted.

    Raises:
        ValueError: if there is none, with the nearest known name.
    """
    if "." in name and not name.startswith("."):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"Unknown {kind} {name!r}: {error}. A dotted name must be an importable module."
            ) from error
    return importlib.import_module(f"{package}.{checks.one_of(kind, name, names(package))}")


def defined_class(found: ModuleType, base: type) -> Any:
    """Return the one concrete subclass of `base` that the module defines.

    Raises:
        ValueError: if it defines none or several.
    """
    classes = [
        value
        for value in vars(found).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == found.__name__
        and not inspect.isabstract(value)
    ]
    if len(classes) != 1:
        raise ValueError(
            f"Module {found.__name__} must define exactly one final subclass of {base.__name__}, "
            f"found {len(classes)}: {[c.__name__ for c in classes]}."
        )
    return classes[0]
