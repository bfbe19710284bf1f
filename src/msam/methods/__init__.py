"""Methods: each makes gradients in its own way; the folder is the registry."""

from msam import _registry
from msam.methods._about import About
from msam.methods._base import Method, Passes, Run, Stage
from msam.tasks import per_sample_loss

__all__ = ["About", "Method", "Passes", "Run", "Stage", "load", "names", "per_sample_loss"]


def load(name: str) -> type[Method]:
    """Return the method called `name`: of this folder, or of any importable module (`"my_lab.foo"`).

    Raises:
        ValueError: if there is none, with the nearest known name.

    >>> load("joint").__name__
    'Joint'
    """
    found: type[Method] = _registry.defined_class(_registry.module(__name__, "method", name), Method)
    return found


def names() -> list[str]:
    """Return the names of the methods of this folder."""
    return _registry.names(__name__)
