"""Multimodal training that stays balanced: M-SAM, SAM, Shapley contributions and models of several modalities.

    import msam

    sharpness = msam.MSAM(optimizer, rho=0.3, model=model)
    ...
    with sharpness.perturbed(contributions):
        criterion(model(x).logits, y).backward()

Imports torch and nothing heavier; training, data and reports live in `msam.train`, `msam.data`, `msam.report`.
"""

from msam import shapley
from msam.models import Adapted, ConcatFusion, Fusion, MaxoutFusion, MultimodalModel, SharedFusion, SumFusion, adapt
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
    "MultimodalModel",
    "Output",
    "SharedFusion",
    "Sharpness",
    "SumFusion",
    "adapt",
    "shapley",
]
