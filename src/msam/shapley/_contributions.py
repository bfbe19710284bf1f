"""From the logits of coalitions to each modality's share of the result."""

import math
from typing import Literal

import torch
from torch import Tensor

from msam import checks, tasks
from msam.shapley._values import shapley_values

Value = Literal["probability", "accuracy", "response", "likelihood", "logit"]
VALUES: tuple[Value, ...] = ("probability", "accuracy", "response", "likelihood", "logit")


def contributions(
    logits: Tensor,
    target: Tensor,
    value: Value = "probability",
    reduction: Literal["batch", "none"] = "batch",
    task: tasks.Name | None = None,
) -> Tensor:
    """Return each modality's share of the result: `>= 0`, sums to 1.

    With `Phi_m` the Shapley values of the logits (`(M, N, C)`), `p = softmax` and `y` the target, a modality's worth is

        probability  the Shapley value of v(S) = mean_b p(z_S)[y]          (default)
        accuracy     the Shapley value of v(S) = mean_b [argmax z_S = y]
        response     mean_b p(Phi_m)[y]
        likelihood   exp(mean_b log p(Phi_m)[y])
        logit        mean_b Phi_m[y]

    Negative worths are set to 0, then all are divided by their sum (Eq. 20 of the paper, which leaves the
    scalarisation open). When nothing positive is left, the shares are uniform: never NaN.

    The same words serve other tasks (`msam.tasks`), with means over labels or numbers `k` inside:

                     multi-label (y 0 or 1, s = 2 y - 1)      regression (y floats, standardised)
        p(z)[y]      sigmoid(s z)                             exp(-(z - y)**2 / 2) - exp(-y**2 / 2)
        argmax z = y [z > 0] = y                              y**2 - (z - y)**2
        z[y]         s z                                      y z

    Arguments:
        logits: `(2**M - 1, N, C)`, from `coalition_logits`.
        target: `(N,)` integer classes, `(N, C)` integer or bool labels, or `(N, C)` floats; `(N,)` where C = 1.
        value: which worth.
        reduction: "batch" for one share per modality, "none" for one per modality and sample.
        task: "single-label", "multi-label" or "regression"; None: as the type of `target` says, see `msam.tasks.of`.

    Returns:
        `(M,)`, or `(M, N)` for `reduction="none"`.

    Raises:
        ValueError: for an unknown value, reduction or task, or shapes that do not fit.

    >>> logits = torch.tensor([[[4.0, 0.0]], [[0.0, 0.0]], [[4.0, 0.0]]])  # the second modality knows nothing
    >>> contributions(logits, torch.tensor([0]), value="logit")
    tensor([1., 0.])
    """
    return normalised(worth(logits, target, value, reduction, task))


def worth(
    logits: Tensor,
    target: Tensor,
    value: Value = "probability",
    reduction: Literal["batch", "none"] = "batch",
    task: tasks.Name | None = None,
) -> Tensor:
    """Return what every modality is worth, of any sign; see `contributions`, which are shares of it."""
    checks.one_of("reduction", reduction, ("batch", "none"))
    return _reduced(_rated(logits, target, value, task), value, reduction)


def of_batch_and_samples(logits: Tensor, target: Tensor, value: Value = "probability") -> tuple[Tensor, Tensor]:
    """Return the contributions of the batch, `(M,)`, and of its samples, `(M, N)`, for less than asking for each."""
    rated = _rated(logits, target, value)
    return normalised(_reduced(rated, value, "batch")), normalised(_reduced(rated, value, "none"))


def _rated(logits: Tensor, target: Tensor, value: Value, task: tasks.Name | None = None) -> Tensor:
    """Return how good the logits of every sample are: of coalitions, or of modalities where it is those that are rated."""
    checks.one_of("value", value, VALUES)
    if logits.dim() != 3:
        raise ValueError(f"`logits` must be (2**M - 1, N, C), received {tuple(logits.shape)}.")
    kind = tasks.load(task) if task else tasks.of(target, logits.shape[2])
    target = kind.fitting(target, *logits.shape[1:])
    logits = logits.detach().float() if logits.dtype in (torch.float16, torch.bfloat16) else logits.detach()
    if value in ("probability", "accuracy"):
        return (kind.probability if value == "probability" else kind.hit)(logits, target)
    rate = {"response": kind.probability, "likelihood": kind.log_probability, "logit": kind.logit}[value]
    return rate(shapley_values(logits), target)


def _reduced(rated: Tensor, value: Value, reduction: str) -> Tensor:
    rated = rated if reduction == "none" else rated.mean(1)  # before Shapley values, which are linear: for less
    if value in ("probability", "accuracy"):
        return shapley_values(rated)
    if value == "likelihood":  # only ratios count: the largest becomes 1 and cannot vanish
        return (rated - rated.amax(0)).exp()
    return rated


def normalised(worth: Tensor) -> Tensor:
    """Return `worth` `(M, ...)` divided by its sum over `M`, with negative and non-finite values set to 0; uniform where
    nothing is left.

    >>> normalised(torch.tensor([3.0, -1.0, 1.0]))
    tensor([0.7500, 0.0000, 0.2500])
    >>> normalised(torch.zeros(4))
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    if worth.dim() == 1:
        positive = worth.clamp_min(0)
        total = positive.sum()
        if 0 < float(total) < math.inf:  # as nearly always, for half the operations
            return positive / total
    worth = torch.nan_to_num(worth, nan=0.0, posinf=0.0, neginf=0.0).clamp_min_(0)
    scaled = worth / worth.amax(0, keepdim=True)  # divided by the largest first, so that the sum cannot overflow
    scaled = torch.nan_to_num(scaled, nan=1.0)  # 0 / 0 where nothing is left
    return scaled / scaled.sum(0, keepdim=True)
