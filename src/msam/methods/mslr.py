"""MSLR: every modality trains with a learning rate of its own (Yao, Mihalcea, Findings of ACL 2022)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from msam import checks
from msam.checks import Range, Search
from msam.methods._about import About
from msam.methods._base import Method, Run
from msam.methods._gradients import parameters, scale
from msam.methods._window import within
from msam.models import MultimodalModel
from msam.types import Batch, Output


def ratio(history: Tensor, window: int) -> Tensor:
    """Return `D_m(t) / mean(D_m(t-1), .., D_m(t-window))` of validation accuracies `(T, M)`, `(M,)`.

    1 while fewer than `window` epochs are in memory before the last one, and where their mean is 0.

    >>> ratio(torch.tensor([[0.25, 0.5], [0.5, 1.0], [0.75, 0.75]]), window=2)
    tensor([2., 1.])
    >>> ratio(torch.tensor([[0.5, 1.0], [0.75, 0.75]]), window=2)
    tensor([1., 1.])
    """
    ones = history.new_ones(history.shape[1])
    if len(history) <= window:
        return ones
    before = history[-1 - window : -1].mean(0)
    return torch.where(before > 0, history[-1] / before, ones)


def smooth(rates: Tensor, smoothing: float) -> Tensor:
    """Return `exp((1 - s) ln c_m + s mean_j ln c_j)`, rates `(M,)` > 0 pulled towards their geometric mean.

    >>> smooth(torch.tensor([1.0, 4.0]), 1.0)
    tensor([2., 2.])
    """
    logs = rates.log()
    return logs.lerp(logs.mean().expand_as(logs), smoothing).exp()


@dataclass(frozen=True)
class MSLR(Method):
    """Multiply the learning rate of every modality's encoder and own head by a factor, once per epoch.

        keep      lr_m = c_m lr                                                  c_m = `rates`, all 1 if none are given
        smooth    lr_m = exp((1 - s) ln c_m + s mean_j ln c_j) lr
        dynamic   lr_m(t+1) = c_m lr D_m(t) / mean(D_m(t-1), .., D_m(t-r))       D_m(t) validation accuracy of modality m

    The fused loss alone trains, and shared layers of the fusion keep the scheduled rate. A ratio starts anew from
    `c_m lr` in every epoch, it does not pile up; lr is what the schedule gives.

    Where paper and official code (that of AGM) differ, the default is the paper. It sets learning rates; the code
    multiplies gradients (`mode="grad"`), which weight decay does not feel and an adaptive optimizer divides away
    again. The code is dynamic, with constants c for each dataset, and acts in a window of epochs alone, by default
    the first 20. For CREMA-D it counts audio as correct only where the picture is, so that both ratios are those of
    the picture; here each modality has its own. The paper's c_m are the best rates of unimodal models, to be found
    beforehand. Its rule of smoothing was not to be had: ours is a reconstruction. Keep and smooth without `rates` are
    joint training.

    Any number of modalities. D_m is the accuracy of the modality's part of the logits in a late fusion (the paper's
    setting) and of its Shapley logits in an early one, where no layer but the encoder is the modality's own. An
    accuracy of 0 throughout the window gives a ratio of 1.

    Arguments:
        strategy: "dynamic", "keep" or "smooth".
        rates: factor c_m of each modality, in order, > 0; empty for 1 each.
        window: r, epochs that the last one is compared with, >= 1; the ratio is 1 until there are so many before it.
        smoothing: s of "smooth", in [0, 1]: at 0 the rates are kept, at 1 all have their geometric mean.
        mode: "lr" or "grad", what is multiplied.
        first_epoch: first epoch in which factors act.
        last_epoch: last one, None for the end of the run.

    >>> MSLR(rates=(0.9, -1.1))
    Traceback (most recent call last):
    ValueError: `rates` must be > 0 and < inf, received -1.1.
    """

    about: ClassVar[About] = About(
        paper="Yao, Mihalcea, Findings of ACL 2022",
        family="optimization",
        changes="multiplies each modality's learning rate",
        neutral=("joint", {"strategy": "keep"}),
        pairs="A rule climbs as without it: factors act on the step. With `mode=grad` they also bend the climb, and Adam "
        "and AdamW divide a constant factor away.",
    )

    strategy: Literal["dynamic", "keep", "smooth"] = "dynamic"
    rates: tuple[float, ...] = ()
    window: Annotated[int, Range(ge=1), Search(1, 10)] = 5
    smoothing: Annotated[float, Range(ge=0, le=1)] = 0.5
    mode: Literal["lr", "grad"] = "lr"
    first_epoch: Annotated[int, Range(ge=1)] = 1
    last_epoch: Annotated[int | None, Range(ge=1)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for rate in self.rates:
            checks.in_range("rates", rate, Range(gt=0, lt=math.inf))

    def build(self, model: MultimodalModel, num_classes: int) -> MultimodalModel:
        """Return the model as it is.

        Raises:
            ValueError: if there are rates, but not one for each modality.
        """
        if self.rates and len(self.rates) != len(model.modalities):
            raise ValueError(
                f"`rates` must hold one factor for each of {list(model.modalities)}, received {len(self.rates)}: "
                f"{self.rates}. Give {len(model.modalities)} with `method.rates`, or none for 1 each."
            )
        return model

    def rate(self, run: Run, group: Mapping[str, Any]) -> float:
        """Return the factor of the modality that the group is of, 1 for what several share."""
        if self.mode != "lr" or group["modality"] is None:
            return 1.0
        return self._factors(run)[group["modality"]]

    def modulate(self, run: Run, output: Output, batch: Batch) -> None:
        """Note the factors; multiply the gradients by them if that is asked for.

        Raises:
            ValueError: if the strategy is dynamic and there are no accuracies, whose ratios it takes: of a regression.
        """
        if self.strategy == "dynamic" and batch.target.is_floating_point():
            raise ValueError(
                "MSLR's dynamic strategy takes ratios of accuracies, received the targets of a regression, "
                f"{tuple(batch.target.shape)} of {batch.target.dtype}. Use strategy 'keep' or 'smooth', or another method."
            )
        factors = self._factors(run)
        run.notes["coefficients"] = [round(factor, 6) for factor in factors.values()]
        if self.mode == "grad":
            for name, factor in factors.items():
                scale(parameters(run.network, name), factor)

    def epoch_end(self, run: Run, metrics: Mapping[str, Any]) -> None:
        """Remember the accuracies of the last `window + 1` epochs."""
        found = [metrics["modalities"][name] for name in run.modalities]
        accuracies = [m["shapley"] if m["head"] is None else m["head"] for m in found]
        run.state["accuracies"] = [*run.state.get("accuracies", []), accuracies][-1 - self.window :]

    def _factors(self, run: Run) -> dict[str, float]:
        """Return what each modality's rate is multiplied by in this epoch; pure in `run.state`."""
        count = len(run.modalities)
        factors = torch.tensor(self.rates or [1.0] * count, dtype=torch.float64)
        if not within(run, self.first_epoch, self.last_epoch):
            factors = torch.ones_like(factors)
        elif self.strategy == "smooth":
            factors = smooth(factors, self.smoothing)
        elif self.strategy == "dynamic":
            history = torch.tensor(run.state.get("accuracies", []), dtype=torch.float64).reshape(-1, count)
            factors = factors * ratio(history, self.window)
        return dict(zip(run.modalities, factors.tolist(), strict=True))
