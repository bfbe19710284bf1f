"""Unimodal training: one encoder and a fusion over it alone; what a modality can do by itself."""

from dataclasses import dataclass
from typing import ClassVar

from msam.methods._about import About
from msam.methods._base import Method
from msam.models import MultimodalModel


@dataclass(frozen=True)
class Unimodal(Method):
    """`L = CE(f(h_m), y)` for one modality m; the other encoders do not exist.

    Late fusion: its encoder and one linear layer. Early fusion: its encoder and the trunk over its feature alone.
    AGM's code instead feeds the full network zeros for the other inputs, in training and test, which trains the
    absent encoders' BatchNorm on zeros; leaving them out gives the same functions without that.

    Arguments:
        modality: name of the modality; empty for the first one.

    >>> Unimodal(modality="audio").modality
    'audio'
    """

    stackable: ClassVar[bool] = True
    about: ClassVar[About] = About(
        paper="the baseline", family="data", changes="leaves out all modalities but one", ordered=True
    )

    modality: str = ""

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Return the model of this one modality.

        Raises:
            ValueError: if the model has no such modality.
        """
        return model.only(self.modality or model.modalities[0])
