"""Uniform: joint training plus one loss per modality on a head of its own, all with weight 1."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from msam.checks import Range, Search
from msam.methods._about import About
from msam.methods._base import Method, Run
from msam.methods._heads import head_losses
from msam.models import MultimodalModel
from msam.tasks import per_sample_loss
from msam.types import Batch, Output


@dataclass(frozen=True)
class Uniform(Method):
    """`L = CE(z, y) + weight * sum_m CE(o_m, y)`, `o_m` a linear head added on the feature of modality m.

    The "uniform baseline" of MMPareto (Wei and Hu, ICML 2024): the plain sum that its gradient surgery is compared with. A
    modality that the fused loss has stopped teaching is still taught by its own.

    Arguments:
        weight: of every modality's loss, >= 0; at 0 the fused model trains as joint training.

    >>> Uniform(weight=-1.0)
    Traceback (most recent call last):
    ValueError: `weight` must be >= 0, received -1.0.
    """

    stackable: ClassVar[bool] = True
    about: ClassVar[About] = About(
        paper="Wei, Hu, ICML 2024 (as a baseline)",
        family="objective",
        changes="adds each modality's loss",
        heads="one linear per modality",
        neutral=("joint", {"weight": 0.0}),
    )

    weight: Annotated[float, Range(ge=0), Search(0.1, 3.0, log=True)] = 1.0

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Add a linear head per modality."""
        model.add_heads(num_classes)
        return model

    def loss(self, run: Run, output: Output, batch: Batch) -> Tensor:
        """Return the fused loss plus each head's."""
        own = head_losses(run, output, batch).sum(0)
        return per_sample_loss(output.logits, batch.target) + self.weight * own
