"""G-Blending: losses of modalities and fusion, weighted by how each generalises and overfits (Wang et al., CVPR 2020)."""

import copy
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from msam import checks, shapley
from msam.checks import Range, Search
from msam.methods._about import About
from msam.methods._base import Method, Run, Stage
from msam.methods._heads import head_losses
from msam.models import MultimodalModel
from msam.tasks import per_sample_loss
from msam.types import Batch, Output

SMALLEST = 1e-8


def weights(gain: Tensor, overfit: Tensor) -> Tensor:
    """Return `w_k = max(G_k, 0) / max(O_k^2, 1e-8)`, divided by their sum; `(M + 1,)`, the multimodal one last.

    All are equal where no gain is above 0.

    >>> weights(torch.tensor([1.0, 2.0, -1.0]), torch.tensor([1.0, -2.0, 0.5]))
    tensor([0.6667, 0.3333, 0.0000])
    """
    raw = gain.clamp_min(0) / overfit.square().clamp_min(SMALLEST)
    total = raw.sum()
    return raw / total if total > 0 else torch.full_like(raw, 1 / len(raw))


def gain_and_overfit(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Return `G = V(N) - V(N+n)` and `O = [V(N+n) - T(N+n)] - [V(N) - T(N)]`, `(M + 1,)` each.

    Arguments:
        before: `(2, M + 1)`, mean losses T on what trains and V on what is held out, at N.
        after: the same at N + n.

    >>> gain_and_overfit(torch.tensor([[2.0], [2.5]]), torch.tensor([[0.5], [1.5]]))
    (tensor([1.]), tensor([0.5000]))
    """
    gap_before, gap_after = before[1] - before[0], after[1] - after[0]
    return before[1] - after[1], gap_after - gap_before


@dataclass(frozen=True)
class GBlending(Method):
    """Train `L = sum_m w_m CE(o_m, y) + w_f CE(z, y)`, the weights from gain and overfitting of each head trained alone.

        w_k = G_k / O_k^2 / Z        G_k the fall of the head's held-out loss, O_k the growth of its gap between the losses

    over n epochs from the same weights, `o_m` a linear head added on the feature of modality m. Held out is a part of the
    training samples, never validation or test; losses are means per sample in evaluation mode. The unimodal heads and
    their encoders share no parameter, so that the sum of their losses trains each of them alone, at once; then the
    weights go back and the fused head trains alone. These epochs are auxiliary: they triple the cost and are not reported.

        offline   one estimate from the initial weights over all epochs; back to these, the blend trains on all of train
        online    an estimate for every super-epoch of n epochs, from the weights it begins with, at its place in the
                  schedule; then the blend trains n epochs, its optimizer going on as if nothing had come between. It never
                  sees what is held out, since the next estimate needs it unseen

    Paper and official code: the code takes fixed weights alone (`fixed`; audio 0.014, visual 0.630, fused 0.356 for
    Kinetics). Of the paper's two forms offline is the default: its blend trains on what every other method trains on.
    The guards are ours: a head without gain has weight 0, `O^2` is at least 1e-8, and where no head gains all weigh
    the same. A weight of 0 for the fused loss leaves the fusion without a lesson; that is the definition.

    Any number of modalities, late fusion and early.

    Arguments:
        strategy: "offline" or "online".
        super_epoch: epochs between two estimates of "online", >= 1.
        held_out: share of the training samples that estimates measure on, in (0, 1).
        fixed: weights, one for each modality in order and the fused one last, >= 0, divided by their sum; empty to
            estimate them.

    >>> GBlending(fixed=(0.5, -0.1, 0.6))
    Traceback (most recent call last):
    ValueError: `fixed` must be >= 0 and < inf, received -0.1.
    """

    about: ClassVar[About] = About(
        paper="Wang, Tran, Feiszli, CVPR 2020",
        family="objective",
        changes="weights the losses of modalities and fusion by estimates",
        heads="one linear per modality",
        pairs="Estimates train with the same optimizer and rule as the blend; a sharpness rule takes one radius over all "
        "unimodal heads there, which couples what otherwise trains apart.",
    )

    strategy: Literal["offline", "online"] = "offline"
    super_epoch: Annotated[int, Range(ge=1)] = 5
    held_out: Annotated[float, Range(gt=0, lt=1), Search(0.05, 0.3)] = 0.1
    fixed: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for weight in self.fixed:
            checks.in_range("fixed", weight, Range(ge=0, lt=math.inf))
        if self.fixed and not sum(self.fixed):
            raise ValueError(f"`fixed` must hold a weight above 0, received {self.fixed}.")

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Add a linear head per modality.

        Raises:
            ValueError: if weights are fixed, but not one for each modality and one more.
        """
        if self.fixed and len(self.fixed) != len(model.modalities) + 1:
            raise ValueError(
                f"`fixed` must hold a weight for each of {list(model.modalities)} and one for the fused loss, received "
                f"{len(self.fixed)}: {self.fixed}. Give {len(model.modalities) + 1} with `method.fixed`, or none to "
                "estimate them."
            )
        model.add_heads(num_classes)
        return model

    def stage(self, run: Run, k: int) -> Stage | None:
        """Return the estimate of the unimodal heads, that of the fused head, the blend; and so on."""
        if self.fixed:
            return Stage(run.epochs) if k == 0 else None
        turn, phase = divmod(k, 3)
        online = self.strategy == "online"
        length = self.super_epoch if online else run.epochs
        start = turn * length
        if start >= run.epochs:
            return None
        epochs, seen = min(length, run.epochs - start), (0.0, 1 - self.held_out)
        if phase < 2:
            roles = frozenset({"encoder", "head"}) if phase == 0 else None
            return Stage(epochs, roles, part=seen, auxiliary=True, new_optimizer=True, schedule_from=start)
        return Stage(epochs, part=seen if online else (0.0, 1.0), new_optimizer=turn == 0, schedule_from=start)

    def stage_begin(self, run: Run) -> None:
        """Keep what the estimates begin with and measure there; or go back to it."""
        if self.fixed:
            return
        phase, state = run.stage % 3, run.state
        if phase == 0:
            model, optimizer = dict(run.network.state_dict()), run.optimizer.state_dict()
            state["begun"] = copy.deepcopy({"model": model, "optimizer": optimizer})
            state["before"] = self._losses(run)
        else:
            run.network.load_state_dict(state["begun"]["model"])
        if phase == 2:
            run.optimizer.load_state_dict(state.pop("begun")["optimizer"])

    def stage_end(self, run: Run) -> None:
        """Measure the heads that trained; after the fused one, weigh them."""
        phase, state = run.stage % 3, run.state
        if self.fixed or phase == 2:
            return
        losses = self._losses(run)
        if phase == 0:
            state["unimodal"] = losses[:, :-1]
        else:
            after = torch.cat([state.pop("unimodal"), losses[:, -1:]], 1)
            state["weights"] = weights(*gain_and_overfit(state.pop("before"), after)).tolist()

    def loss(self, run: Run, output: Output, batch: Batch) -> Tensor:
        """Return the loss of the unimodal heads, of the fused head, or the blend."""
        losses = _per_sample_losses(run, output, batch)
        if not self.fixed and run.stage % 3 < 2:
            return torch.stack(losses[:-1]).sum(0) if run.stage % 3 == 0 else losses[-1]
        blend = [w / sum(self.fixed) for w in self.fixed] if self.fixed else run.state["weights"]
        *unimodal, fused = (round(weight, 6) for weight in blend)
        run.notes.update(coefficients=unimodal, fused=fused)
        return torch.stack([w * loss for w, loss in zip(blend, losses, strict=True)]).sum(0)

    def _losses(self, run: Run) -> Tensor:
        """Return mean losses on what trains and on what is held out, `(2, M + 1)`."""
        parts = ((0.0, 1 - self.held_out), (1 - self.held_out, 1.0))
        return torch.stack([_mean_losses(run, *part) for part in parts])


@torch.no_grad()
def _mean_losses(run: Run, start: float, stop: float) -> Tensor:
    """Return each head's mean loss per sample over a part of the training samples, in evaluation mode."""
    with shapley.evaluating(run.network):
        losses = [
            torch.stack(_per_sample_losses(run, run.network(batch.inputs, batch.present), batch)).cpu().double()
            for batch in run.train_batches(start, stop)
        ]
    return torch.cat(losses, 1).mean(1)


def _per_sample_losses(run: Run, output: Output, batch: Batch) -> list[Tensor]:
    # apart, as the heads that rest in an estimate are to have no gradient: weight decay moves what has one of zero
    return [*head_losses(run, output, batch), per_sample_loss(output.logits, batch.target)]
