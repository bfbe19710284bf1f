"""Multimodal training that stays balanced: M-SAM, SAM, Shapley contributions and models of several modalities.

    import msam

    sharpness = msam.MSAM(optimizer, rho=0.3, model=model)
    ...
    with sharpness.perturbed(contributions):
        criterion(model(x).logits, y).backward()

Imports torch and nothing heavier; training, data and reports live in `msam.train`, `msam.data`, `msam.report`.
"""

import importlib
from types import ModuleType
from typing import Any

from msam import shapley, tasks
from msam.models import Adapted, ConcatFusion, Fusion, MaxoutFusion, MultimodalModel, SharedFusion, SumFusion, adapt
from msam.monitor import Monitor
from msam.sharpness import ASAM, FSAM, GAM, GNP, GSAM, MSAM, SAM, FisherSAM, ImbSAM, LookSAM, Sharpness
from msam.types import Batch, Output

__version__ = "0.1.0"

__all__ = [
    "ASAM",
    "FSAM",
    "GAM",
    "GNP",
    "GSAM",
    "MSAM",
    "SAM",
    "Adapted",
    "Batch",
    "ConcatFusion",
    "FisherSAM",
    "Fusion",
    "ImbSAM",
    "LookSAM",
    "MaxoutFusion",
    "Monitor",
    "MultimodalModel",
    "Output",
    "SharedFusion",
    "Sharpness",
    "SumFusion",
    "adapt",
    "diagnose",
    "shapley",
    "tasks",
]

_LATE = {"diagnose": "msam.diagnosis"}
"""Names of the front door that need more than torch, imported when they are asked for."""


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(_late(name), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _late(name: str) -> ModuleType:
    try:
        return importlib.import_module(_LATE[name])
    except ModuleNotFoundError as error:
        from msam._missing import remedy

        words = remedy(error, f"`msam.{name}`", "train")
        if not words:
            raise
        raise ModuleNotFoundError(words, name=error.name) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
