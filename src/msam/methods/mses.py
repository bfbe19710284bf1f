"""MSES: each modality stops when its own validation loss has stopped falling (Fujimori et al., ACPR 2019)."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from msam.checks import Range, Search
from msam.methods._about import About
from msam.methods._base import Method, Run, Stage
from msam.methods._gradients import parameters, scale
from msam.methods._heads import head_losses
from msam.models import MultimodalModel
from msam.tasks import per_sample_loss
from msam.types import Batch, Output


def smoothed(losses: Tensor, smoothing: float) -> Tensor:
    """Return `u(t) = s v(t-1) + (1 - s) v(t)` of losses `(T, M)`, with `u(1) = v(1)`: two taps, no running average.

    >>> smoothed(torch.tensor([[1.0, 4.0], [3.0, 4.0], [0.0, 0.0]]), 0.5)
    tensor([[1.0000, 4.0000],
            [2.0000, 4.0000],
            [1.5000, 2.0000]])
    """
    return losses.lerp(torch.cat([losses[:1], losses[:-1]]), smoothing)


def stops(losses: Tensor, patience: int) -> tuple[list[int], list[int]]:
    """Return for each modality its best epoch (from 1), and the epoch after which it stops, 0 while it trains.

    It stops after the first epoch `t >= best + patience`; what comes later changes nothing.

    Arguments:
        losses: `(T, M)`, one row per epoch.
        patience: epochs without a new minimum.

    >>> stops(torch.tensor([[3.0, 1.0], [2.0, 2.0], [1.0, 1.0], [1.5, 0.0]]), patience=2)
    ([3, 1], [0, 3])
    """
    best, stopped = [], []
    for column in losses.T.tolist():
        lowest, at, end = math.inf, 0, 0
        for epoch, loss in enumerate(column, start=1):
            if loss < lowest:
                lowest, at = loss, epoch
            elif epoch - at >= patience:
                end = epoch
                break
        best.append(at)
        stopped.append(end)
    return best, stopped


class Form(NamedTuple):
    """What paper and official code do differently."""

    unimodal_loss: bool
    smoothing: float
    restore: str
    mode: str


FORMS = {"paper": Form(True, 0.0, "modality", "lr"), "code": Form(False, 0.6, "model", "grad")}


@dataclass(frozen=True)
class MSES(Method):
    r"""Stop each modality by itself, at the best epoch of its own classifier.

        L = CE(z, y) + sum_m CE(o_m, y)                       o_m a linear head added on the feature of modality m
        u_m(t) = s v_m(t-1) + (1 - s) v_m(t)                  v_m(t) the validation NLL of o_m after epoch t
        stop m after the first t >= k_m + patience            k_m the epoch of the lowest u_m so far

    A modality that stops goes back to its weights of epoch k_m (encoder with its buffers, added head, and its own layer in
    the fusion where it has one) and rests. The others and the shared layers of the fusion train on. Training ends with the
    epochs, or when every modality has stopped: the last epoch's measures are then those from before the last return.

    Paper and official code (that of AGM) differ, `variant` chooses, and every part can be chosen by itself:

        paper     own losses, no smoothing, the modality's own weights come back, its learning rate is 0
        code      fused loss alone, s = 0.6, weights of ALL modalities and the optimizer's state come back, its gradient is
                  multiplied by 0 (momentum and weight decay go on moving it, BatchNorm statistics go on running), and it
                  stops one epoch later, after the first t > k_m + patience

    The paper is the default: what it stops stands still, and no modality undoes the training of another. Here epoch 1 is
    one to go back to, and a stop is for good: the code never stores epoch 1, and its multiplier of 0 ends with a window of
    epochs, by default after 20. Two modalities that stop together have the same best epoch, so their order means nothing.

    Any number of modalities. Early fusion: the paper's form alone, whose heads do not need the fusion to split.

    Arguments:
        variant: "paper" or "code".
        patience: epochs without a lower loss after which a modality stops, >= 1 (the code: 10 to 80).
        smoothing: weight s on the epoch before, in [0, 1); None for the variant's.
        unimodal_loss: whether every modality has a head and a loss of its own; without, its own part of the logits of a
            late fusion is what is watched. None for the variant's.
        restore: what goes back to the best epoch: "modality", "model" (all weights and the optimizer's state; a copy of
            both is kept for each modality) or "none"; None for the variant's.
        mode: "lr" (what stopped does not move, and its BatchNorm rests) or "grad" (times 0); None for the variant's.

    >>> MSES(variant="cod")
    Traceback (most recent call last):
    ValueError: Unknown variant 'cod'. Did you mean 'code'? Known: code, paper.
    """

    about: ClassVar[About] = About(
        paper="Fujimori, Endo, Kawai, Mochizuki, ACPR 2019",
        family="optimization",
        changes="stops each modality at its own best epoch",
        heads="one linear per modality",
        neutral=("uniform", {}),
        pairs="With `mode=lr` any optimizer keeps a stopped modality still and no rule climbs in it; with `mode=grad` "
        "momentum, weight decay and Adam's moments go on moving it.",
    )

    variant: Literal["paper", "code"] = "paper"
    patience: Annotated[int, Range(ge=1), Search(2, 100, log=True)] = 10
    smoothing: Annotated[float | None, Range(ge=0, lt=1)] = None
    unimodal_loss: bool | None = None
    restore: Literal["modality", "model", "none"] | None = None
    mode: Literal["lr", "grad"] | None = None

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Add a linear head per modality, if it has a loss of its own.

        Raises:
            ValueError: if it has none and the logits of the fusion do not split.
        """
        if self._form().unimodal_loss:
            model.add_heads(num_classes)
        elif not model.fusion.splits:
            raise ValueError(
                f"MSES without losses of the modalities needs a late fusion (late or concat), whose logits split; found "
                f"{type(model.fusion).__name__}. Give every modality a head with `method.unimodal_loss true`."
            )
        return model

    def stage(self, run: Run, k: int) -> Stage | None:
        """Return one epoch of the modalities that have not stopped before it."""
        stopped: Mapping[str, int] = run.state.get("stopped", {})
        active = frozenset(name for name in run.modalities if stopped.get(name, run.epochs) > k)
        if k >= run.epochs or not active:
            return None
        return Stage(1, modalities=active if self._form().mode == "lr" else None)

    def loss(self, run: Run, output: Output, batch: Batch) -> Tensor:
        """Return the fused loss plus each head's."""
        fused = per_sample_loss(output.logits, batch.target)
        return fused + head_losses(run, output, batch).sum(0) if self._form().unimodal_loss else fused

    def modulate(self, run: Run, output: Output, batch: Batch) -> None:
        """Take the gradients of stopped modalities away, where freezing has not."""
        stopped = run.state.get("stopped", {})
        run.notes["coefficients"] = [float(name not in stopped) for name in run.modalities]
        if self._form().mode == "grad":
            for name in stopped:
                scale(parameters(run.network, name), 0.0)

    def epoch_end(self, run: Run, metrics: Mapping[str, Any]) -> None:
        """Keep the weights of a modality's best epoch; where one stops, put them back."""
        form, names = self._form(), run.modalities
        losses = [*run.state.get("losses", []), [metrics["modalities"][name]["head_nll"] for name in names]]
        means = smoothed(torch.tensor(losses, dtype=torch.float64), form.smoothing)
        best, stopped = stops(means, self.patience + (self.variant == "code"))
        kept = run.state.setdefault("kept", {})
        for name, epoch in zip(names, best, strict=True):
            if epoch == len(losses) and form.restore != "none":
                kept[name] = _copy(run, name, form.restore)
        for name, epoch in zip(names, stopped, strict=True):
            if epoch == len(losses) and name in kept:
                _put_back(run, name, kept.pop(name))
        run.state["losses"] = losses
        run.state["stopped"] = {name: epoch for name, epoch in zip(names, stopped, strict=True) if epoch}

    def _form(self) -> Form:
        chosen = {key: getattr(self, key) for key in Form._fields if getattr(self, key) is not None}
        return FORMS[self.variant]._replace(**chosen)


def _copy(run: Run, name: str, restore: str) -> dict[str, Any]:
    """Return what a modality goes back to, as values that later steps do not reach."""
    network = run.network
    if restore == "model":
        return copy.deepcopy({"model": dict(network.state_dict()), "optimizer": run.optimizer.state_dict()})
    heads = [p.detach().clone() for p in parameters(network, name, ("head",))]
    return {"encoder": copy.deepcopy(dict(network.encoders[name].state_dict())), "heads": heads}


@torch.no_grad()
def _put_back(run: Run, name: str, kept: Mapping[str, Any]) -> None:
    if "model" in kept:
        run.network.load_state_dict(kept["model"])
        run.optimizer.load_state_dict(kept["optimizer"])
        return
    run.network.encoders[name].load_state_dict(kept["encoder"])
    for p, value in zip(parameters(run.network, name, ("head",)), kept["heads"], strict=True):
        p.copy_(value)
