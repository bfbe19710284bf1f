"""Ensemble: every unimodal net trained by its own loss alone, their logits summed; a model in which nothing is shared."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from msam._modules import held
from msam.methods._about import About
from msam.methods._base import Method, Run
from msam.methods._heads import head_losses
from msam.models import MultimodalModel
from msam.models.ensemble import EnsembleFusion
from msam.types import Batch, Output


@dataclass(frozen=True)
class Ensemble(Method):
    """`L = sum_m CE(z_m, y)` with `z_m = F_m(e_m(x_m))`; the model answers with `z = sum_m z_m`.

    The control of everything that claims to balance modalities: none can take from another what it could have learned,
    and none can learn anything from another. `F_m` is the configured fusion over modality m alone, as in `unimodal`: a
    linear layer for `late` and `concat`, the head for `shared`, a trunk of its own for the early ones. No parameter
    sees two modalities and the gradient of each net is that of its own loss, so that each follows the steps that it
    would take in a `unimodal` run with the same initial weights and batches. What looks at all parameters at once
    couples them: the climb of a sharpness rule. Their dropout masks are other ones.

    The sum of logits gives exactly the class and the probabilities of the sum of log-probabilities (`EnsembleFusion`
    says why), and is additive in the modalities, so that Shapley logits are the nets' own, up to a number that a
    modality adds to each class. As in every late fusion an absent modality is a zero feature, whose net then says the
    same of every sample. A sample that lacks a modality teaches its net nothing.

    It is the Uni-Modal Ensemble of Du, Teng, Li, Liu, Yuan, Wang, Yuan and Zhao (ICML 2023) with nets that train in one
    run, with one optimizer and schedule, for as long as each other, and are added without weights. The epoch is chosen
    for the sum, not for each net. Any fusion, any number of modalities; with one it is unimodal training.

    >>> Ensemble().passes(2).cost
    1.0
    """

    stackable: ClassVar[bool] = True
    about: ClassVar[About] = About(
        paper="Du, Teng, Li, Liu, Yuan, Wang, Yuan, Zhao, ICML 2023 (as a baseline)",
        family="objective",
        changes="trains each modality by its own loss alone, and sums the logits",
        heads="the fusion once per modality, in its place",
        pairs="A sharpness rule climbs in all nets at once, with one norm, which couples what otherwise trains apart.",
    )

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Return a model of the same encoders with a fresh fusion over each alone, and the sum of their logits."""
        like = next(model.fusion.parameters())
        alone = {name: model.fusion.over({name}) for name in model.modalities}
        return MultimodalModel(dict(model.encoders.items()), EnsembleFusion(alone).to(like))

    def loss(self, run: Run, output: Output, batch: Batch) -> Tensor:
        """Return the sum of the nets' losses."""
        with held(run.network.fusion):  # the sum has been made of the same batch, which must not count twice
            return head_losses(run, output, batch).sum(0)
