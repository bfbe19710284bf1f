"""MLB, multi-loss balanced gradient modulation (Kontras, Chatzichristos, Blaschko, De Vos, BMVC 2024)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from msam.checks import Range, Search
from msam.methods._about import About
from msam.methods._base import Method, Run
from msam.methods._gradients import parameters, scale
from msam.methods._heads import head_losses
from msam.methods._scores import compared, modality_logits, target_probability
from msam.methods._window import within
from msam.models import MultimodalModel
from msam.tasks import per_sample_loss
from msam.types import Batch, Output


def coefficients(scores: Tensor, alpha: float, beta_max: float) -> Tensor:
    """Return `k_m = 1 + (b_m - 1) tanh(alpha (r_m - 1))` with `r_m = mean_{j != m} s_j / s_m`, `b_m = beta_max` if
    `r_m > 1` (m lags), else 2.

    k is 1 at balance and continuous there; it lies between `1 - tanh(alpha)` and `beta_max`.

    Arguments:
        scores: `(M,)`, at least two, the probabilities `s_m` in [0, 1] of the target.
        alpha: >= 0; at 0 every coefficient is 1.
        beta_max: >= 1, how far one that lags is sped up.

    The second is half as good: `r = (1/2, 2)`, so `1 - tanh(1/2)` and `1 + 2 tanh(1)`:

    >>> coefficients(torch.tensor([0.5, 0.25]), alpha=1.0, beta_max=3.0)
    tensor([0.5379, 2.5232])
    """
    # r - 1 by differences: exactly 0 at balance, however many there are
    lag = (scores - scores[:, None]).sum(1) / (len(scores) - 1) / scores.clamp_min(torch.finfo(scores.dtype).tiny)
    return 1 + torch.where(lag > 0, beta_max - 1, torch.ones_like(lag)) * torch.tanh(alpha * lag)


@dataclass(frozen=True)
class MLB(Method):
    r"""One loss per modality on a head of its own, and gradients that hold back who is ahead and speed up who lags.

        L = CE(z, y) + weight * sum_m CE(o_m, y)         o_m a linear head added on the feature of modality m
        s_m = mean_b softmax(o_m)[y]                     r_m = mean_{j != m} s_j / s_m
        k_m = 1 + (b_m - 1) tanh(alpha (r_m - 1))        b_m = beta_max if r_m > 1, else 2
        g <- k_m g                                       for encoder m, its head, and its slice of the fused layer's weight

    After one backward pass of the whole loss. Every tensor of encoder and head is scaled, BatchNorm and biases too; of the
    fused layer the columns that meet the feature of m are, its bias is not. The coefficients leave by themselves: as all
    modalities come to fit, the scores approach 1, r and k too.

    Defaults are those of the official code, whose configurations set alpha 0.8 (CREMA-D, AVE, MOSEI) or 1.0 (UCF101) and no
    `beta_max`, which is then 2: holding back and speeding up are symmetric. The equations hold for any number of
    modalities, from two. Where no part of the last layer meets one modality alone (early fusion, one head for all), only
    encoders and added heads are scaled.

    Arguments:
        alpha: strength, >= 0; at 0 this is `Uniform`.
        beta_max: limit of the coefficient of a modality that lags, >= 1; at 1 none is sped up.
        weight: of every modality's loss, > 0.
        first_epoch: first epoch that is modulated, >= 1; before, this is `Uniform`, whose heads train on.
        last_epoch: last one, >= 1; after, this is `Uniform`. None for the end of the run.

    >>> MLB(beta_max=0.5)
    Traceback (most recent call last):
    ValueError: `beta_max` must be >= 1, received 0.5.
    """

    stackable: ClassVar[bool] = True
    about: ClassVar[About] = About(
        paper="Kontras, Chatzichristos, Blaschko, De Vos, BMVC 2024",
        family="optimization",
        changes="adds each modality's loss, scales its gradients",
        heads="one linear per modality",
        neutral=("uniform", {"alpha": 0.0}),
        pairs="A rule climbs along the modulated gradient and its second pass reuses the coefficients; adaptive optimizers "
        "divide a steady coefficient away.",
    )

    alpha: Annotated[float, Range(ge=0), Search(0.1, 3.0, log=True)] = 0.8
    beta_max: Annotated[float, Range(ge=1), Search(1.0, 8.0)] = 2.0
    weight: Annotated[float, Range(gt=0), Search(0.1, 3.0, log=True)] = 1.0
    first_epoch: Annotated[int, Range(ge=1)] = 1
    last_epoch: Annotated[int | None, Range(ge=1)] = None

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Add a linear head per modality.

        Raises:
            ValueError: for one modality.
        """
        compared("MLB", model).add_heads(num_classes)
        return model

    def loss(self, run: Run, output: Output, batch: Batch) -> Tensor:
        """Return the fused loss plus each head's."""
        own = head_losses(run, output, batch).sum(0)
        return per_sample_loss(output.logits, batch.target) + self.weight * own

    def modulate(self, run: Run, output: Output, batch: Batch) -> None:
        """Scale the gradients of every modality; the second pass of a rule reuses the coefficients of the first."""
        if not within(run, self.first_epoch, self.last_epoch):
            return
        factors = run.once("factors", lambda: self._factors(run, output, batch))
        run.notes["coefficients"] = [round(k, 6) for k in factors]
        for name, factor in zip(run.modalities, factors, strict=True):
            _scale_modality(run.network, name, factor)

    def _factors(self, run: Run, output: Output, batch: Batch) -> list[float]:
        scores = target_probability(modality_logits(run.network, output, "heads"), batch.target, batch.present)
        found: list[float] = coefficients(scores, self.alpha, self.beta_max).tolist()
        return found


def _scale_modality(network: MultimodalModel, name: str, factor: float) -> None:
    # not by the role "head": the own layer of a sum has it too, and is the fused layer here, whose bias is left
    scale([*parameters(network, name, ("encoder",)), *network.heads[name].parameters()], factor)
    weight, columns = network.fusion.weight_of(name)
    if _has_slices(network) and weight.grad is not None:
        weight.grad[:, columns].mul_(factor)


def _has_slices(network: MultimodalModel) -> bool:
    """Tell whether every modality has columns of the fused layer to itself."""
    found = [network.fusion.weight_of(name) for name in network.modalities]
    return len({(weight, columns.start, columns.stop) for weight, columns in found}) == len(found)
