"""Sharpness rules: objects beside any torch optimizer; the folder is the registry."""

from msam import _registry
from msam.sharpness._common import Common, Direction
from msam.sharpness._perturb import Sharpness
from msam.sharpness._tensors import Gradients, norm
from msam.sharpness.asam import ASAM
from msam.sharpness.fisher_sam import FisherSAM
from msam.sharpness.fsam import FSAM
from msam.sharpness.gam import GAM
from msam.sharpness.gnp import GNP
from msam.sharpness.gsam import GSAM
from msam.sharpness.imbsam import ImbSAM
from msam.sharpness.looksam import LookSAM
from msam.sharpness.msam import MSAM
from msam.sharpness.sam import SAM

__all__ = [
    "ASAM",
    "FSAM",
    "GAM",
    "GNP",
    "GSAM",
    "MSAM",
    "SAM",
    "Common",
    "Direction",
    "FisherSAM",
    "Gradients",
    "ImbSAM",
    "LookSAM",
    "Sharpness",
    "load",
    "names",
    "norm",
]


def load(name: str) -> type[Sharpness]:
    """Return the rule called `name`: of this folder, or of any importable module (`"my_lab.foo"`).

    Raises:
        ValueError: if there is none, with the nearest known name.

    >>> load("msam").__name__
    'MSAM'
    """
    found: type[Sharpness] = _registry.defined_class(_registry.module(__name__, "sharpness rule", name), Sharpness)
    return found


def names() -> list[str]:
    """Return the names of the rules of this folder."""
    return _registry.names(__name__)
