"""ReconBoost: Hua, Xu, Bao, Yang and Huang, ICML 2024."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from msam.checks import Range, Search
from msam.methods._about import About
from msam.methods._base import Method, Passes, Run, Stage
from msam.models import MultimodalModel
from msam.types import Batch, Output

Residual = Literal["full", "true_class"]
Agreement = Literal["paper", "code"]


def residual_loss(
    logits: Tensor, ensemble_probability: Tensor, target: Tensor, w1: float, w2: float, residual: Residual
) -> Tensor:
    """Return the loss of one modality on what the ensemble of the others leaves over, `(B,)`.

    With `q` the softmax of the logits and `p` the ensemble's probabilities:

        full:        -sum_c (w1 [c = y] - w2 p_c) log q_c       true_class:  -(w1 - w2 p_y) log q_y / C

    The gradient of "full" on the logits is `(w1 - w2) q + w2 p - w1 [c = y]`; at `w1 = w2 = 1` it is `p - [c = y]`, the
    negative residual that gradient boosting fits. It can be negative and has no least value, but its slope is bounded. p is
    a weight: no gradient goes through it.

    Arguments:
        logits: `(B, C)` of the modality.
        ensemble_probability: `(B, C)`, zeros where there is no ensemble.
        target: `(B,)` classes.
        w1: weight of the target.
        w2: weight of the ensemble.
        residual: "full" or "true_class".

    Raises:
        ValueError: if the targets are not integer classes `(B,)`.

    Of two classes, both as probable for the modality (`-log q = 0.6931`); 4 and 4.5 / 2 times that:

    >>> z, p, y = torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    >>> residual_loss(z, p, y, w1=5.0, w2=1.0, residual="full")
    tensor([2.7726])
    >>> residual_loss(z, p, y, w1=5.0, w2=1.0, residual="true_class")
    tensor([1.5596])
    """
    if target.is_floating_point() or target.shape != logits.shape[:1]:
        raise ValueError(
            f"ReconBoost needs integer classes ({len(logits)},) as targets, "
            f"received {tuple(target.shape)} of {target.dtype}."
        )
    log_q = logits.log_softmax(1)
    wanted = functional.one_hot(target, logits.shape[1]).to(log_q.dtype)
    left = w1 * wanted - w2 * ensemble_probability.detach()
    if residual == "full":
        return -(left * log_q).sum(1)
    return -(left * wanted * log_q).mean(1)


def agreement_loss(logits: Tensor, previous_probability: Tensor) -> Tensor:
    """Return the mean over classes of `(softmax(logits) - previous_probability)^2`, `(B,)`.

    >>> agreement_loss(torch.zeros(1, 2), torch.tensor([[0.9, 0.1]]))
    tensor([0.1600])
    """
    return (logits.softmax(1) - previous_probability).square().mean(1)


@dataclass(frozen=True)
class Reconboost(Method):
    """The modalities take turns, each learning what the ensemble of the others leaves over; then all are rectified.

    The logits are a sum of parts, `z = sum_m z_m`. In each turn one modality k, the next in order, is boosted for
    `boost_epochs`: only its encoder and its head train, on

        residual_loss(z_k, softmax(sum over j != k of z_j), y) + alpha * agreement_loss(z_k, softmax(z_previous)),

    where the previous modality is that of the turn before. For `rectify_epochs` then everything trains on `CE(z, y)`. Both
    begin with a fresh optimizer; the schedule goes on. The turns fill the run's epochs exactly, and the last one may be cut
    short: give a run at least `M (boost_epochs + rectify_epochs)` epochs. In the very first boost there is no ensemble yet:
    p = 0 and no agreement, so that it is cross-entropy with weight w1 (divided by C in "true_class").

    Paper and official code differ. Where they do, the default is the paper, and the code's is a setting where said so:

    - residual: the code masks p with the target, so that the true class alone is left of the reconcilement, and takes the
      mean over classes, which divides the learning rate by C ("true_class").
    - agreement: the paper lets the boosted modality approach the previous one; the code detaches both, so that the term's
      gradient is exactly zero for any `alpha` (`agreement="code"`). That it is a squared distance of probabilities is the
      code's.
    - the ensemble: the code has one head for all modalities, which is the fusion `shared` here; it trains in every phase. A
      fusion with a layer per modality (`late`, the default) boosts more strictly. The code's learned scale of the sum is
      left out: the last layer has it. The reported numbers begin from unimodal checkpoints; here nothing is pre-trained.
    - in a boost the code keeps all encoders in training mode, so that BatchNorm statistics of the frozen ones move and p
      is noisy; here frozen modules are in evaluation mode.
    - without checkpoints the code's first boost has the weight `(w1 - w2) / C`, and it rectifies the modalities that have
      had a turn. Here, as we read the paper, all are rectified, and are in the ensemble from then on.
    - its 1001 turns on CREMA-D are selected on test; here the protocol of the run selects.

    Any number of modalities; with one, boosts have no ensemble. `concat`: z_k is the split logits `W_k h_k + b / M`, and
    weight decay is all that reaches the other columns of W in a boost. Early fusion: not defined, its logits do not split.
    An absent modality is a zero feature in its part of the logits, as in joint training.

    Arguments:
        boost_epochs: of one modality, >= 1.
        rectify_epochs: of all, after each boost, >= 1.
        w1: weight of the target, > 0. 5 with `w2` 1 for CREMA-D, 4 with 1 for AVE, 1 with 0.25 for sentiment.
        w2: weight of the ensemble's probabilities, in [0, w1].
        alpha: weight of the agreement, >= 0.
        residual: "full" (paper) or "true_class" (code).
        agreement: "paper" detaches the previous modality alone, "code" both, which switches the term off.

    Raises:
        ValueError: on construction also if `w2` exceeds `w1`.

    >>> Reconboost(w1=1.0, w2=2.0)
    Traceback (most recent call last):
    ValueError: `w2` must be <= `w1` (1.0), received 2.0: where the ensemble is sure, the loss would turn.
    """

    about: ClassVar[About] = About(
        paper="Hua, Xu, Bao, Yang, Huang, ICML 2024",
        family="objective",
        changes="modalities take turns on what the others leave over",
        early=False,
        ordered=True,
        pairs="In a boost a sharpness rule climbs in what trains alone; each phase has an optimizer without moments.",
    )

    boost_epochs: Annotated[int, Range(ge=1)] = 4
    rectify_epochs: Annotated[int, Range(ge=1)] = 4
    w1: Annotated[float, Range(gt=0), Search(1.0, 10.0, log=True)] = 5.0
    w2: Annotated[float, Range(ge=0), Search(0.1, 1.0)] = 1.0
    alpha: Annotated[float, Range(ge=0), Search(0.05, 2.0, log=True)] = 0.5
    residual: Residual = "full"
    agreement: Agreement = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.w2 > self.w1:
            raise ValueError(
                f"`w2` must be <= `w1` ({self.w1}), received {self.w2}: where the ensemble is sure, the loss would turn."
            )

    def passes(self, modalities: int) -> Passes:
        """Return the average over whole turns: a boost goes back through one encoder, a rectification through all."""
        turn = self.boost_epochs + self.rectify_epochs
        return Passes(backward=(self.boost_epochs / modalities + self.rectify_epochs) / turn)

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Return the model as it is.

        Raises:
            ValueError: if the logits of its fusion do not split.
        """
        if not model.fusion.splits:
            raise ValueError(
                f"ReconBoost needs logits that are a sum of parts of the modalities, found {type(model.fusion).__name__}, "
                "an early fusion. It is defined for late fusion: use the fusion late, concat or shared."
            )
        return model

    def stage(self, run: Run, k: int) -> Stage | None:
        """Return a boost for even k, a rectification for odd k, until the epochs of the run are spent."""
        spent = k // 2 * (self.boost_epochs + self.rectify_epochs) + k % 2 * self.boost_epochs
        left = run.epochs - spent
        if left <= 0:
            return None
        if k % 2:
            return Stage(min(self.rectify_epochs, left), new_optimizer=True)
        # a layer that sees all modalities (a shared head, a concatenation's) is the boosted one's head too
        boosted = frozenset({_boosted(run.modalities, k)})
        return Stage(min(self.boost_epochs, left), modalities=boosted, new_optimizer=True)

    def loss(self, run: Run, output: Output, batch: Batch) -> Tensor:
        """Return the residual's loss and the agreement in a boost, plain cross-entropy in a rectification."""
        if run.stage % 2:
            return super().loss(run, output, batch)
        name = run.notes["boosted"] = _boosted(run.modalities, run.stage)
        parts = run.network.fusion.modality_logits(output.features)
        if run.stage == 0 or len(parts) == 1:
            return residual_loss(
                parts[name], torch.zeros_like(parts[name]), batch.target, self.w1, self.w2, self.residual
            )
        previous = _boosted(run.modalities, run.stage - 2)
        ensemble = run.once("ensemble", lambda: ensemble_probability(parts, name))
        before = run.once("previous", lambda: parts[previous].detach().softmax(1))
        mine = parts[name].detach() if self.agreement == "code" else parts[name]
        learned = residual_loss(parts[name], ensemble, batch.target, self.w1, self.w2, self.residual)
        return learned + self.alpha * agreement_loss(mine, before)


def ensemble_probability(parts: Mapping[str, Tensor], without: str) -> Tensor:
    """Return the softmax of the sum of all parts of the logits but one, `(B, C)`, without a graph.

    >>> ensemble_probability({"a": torch.tensor([[9.0, 0.0]]), "b": torch.zeros(1, 2)}, without="a")
    tensor([[0.5000, 0.5000]])
    """
    return torch.stack([part.detach() for name, part in parts.items() if name != without]).sum(0).softmax(1)


def _boosted(modalities: tuple[str, ...], stage: int) -> str:
    return modalities[stage // 2 % len(modalities)]
