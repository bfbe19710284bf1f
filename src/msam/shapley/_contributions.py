"""From the logits of coalitions to each modality's share of the result."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from msam import checks
from msam.shapley._values import shapley_values

Value = Literal["probability", "accuracy", "response", "likelihood", "logit"]
VALUES: tuple[Value, ...] = ("probability", "accuracy", "response", "likelihood", "logit")


def contributions(
    logits: Tensor,
    target: Tensor,
    value: Value = "probability",
    reduction: Literal["batch", "none"] = "batch",
) -> Tensor:
    """Return each modality's share of the result: `>= 0`, sums to 1.

    With `Phi_m` the Shapley values of the logits (`(M, N, C)`), `p = softmax` and `y` the target, a modality's worth is

        probability  the Shapley value of v(S) = mean_b p(z_S)[y]          (default)
        accuracy     the Shapley value of v(S) = mean_b [argmax z_S = y]
        response     mean_b p(Phi_m)[y]
        likelihood   exp(mean_b log p(Phi_m)[y])
        logit        mean_b Phi_m[y]

    Negative worths are set to 0, then all are divided by their sum (Eq. 20 of the paper, which leaves the
    scalarisation open). When nothing positive is left, the shares are uniform: never NaN. A multi-label target `(N, K)` of
    0 and 1 reads `p[y]` as the probability of the label that holds, averaged over labels.

    Arguments:
        logits: `(2**M - 1, N, C)`, from `coalition_logits`.
        target: `(N,)` integer classes, or `(N, K)` integer or bool labels.
        value: which worth.
        reduction: "batch" for one share per modality, "none" for one per modality and sample.

    Returns:
        `(M,)`, or `(M, N)` for `reduction="none"`.

    Raises:
        ValueError: for an unknown value or reduction, shapes that do not fit, or a floating (regression) target.

    >>> logits = torch.tensor([[[4.0, 0.0]], [[0.0, 0.0]], [[4.0, 0.0]]])  # the second modality knows nothing
    >>> contributions(logits, torch.tensor([0]), value="logit")
    tensor([1., 0.])
    """
    return normalised(worth(logits, target, value, reduction))


def worth(
    logits: Tensor, target: Tensor, value: Value = "probability", reduction: Literal["batch", "none"] = "batch"
) -> Tensor:
    """Return what every modality is worth, of any sign; see `contributions`, which are shares of it."""
    checks.one_of("reduction", reduction, ("batch", "none"))
    return _reduced(_rated(logits, target, value), value, reduction)


def of_batch_and_samples(logits: Tensor, target: Tensor, value: Value = "probability") -> tuple[Tensor, Tensor]:
    """Return the contributions of the batch, `(M,)`, and of its samples, `(M, N)`, for less than asking for each."""
    rated = _rated(logits, target, value)
    return normalised(_reduced(rated, value, "batch")), normalised(_reduced(rated, value, "none"))


def _rated(logits: Tensor, target: Tensor, value: Value) -> Tensor:
    """Return how good the logits of every sample are: of coalitions, or of modalities where it is those that are rated."""
    checks.one_of("value", value, VALUES)
    _fits(logits, target)
    logits = logits.detach().float() if logits.dtype in (torch.float16, torch.bfloat16) else logits.detach()
    if value in ("probability", "accuracy"):
        return (_probability if value == "probability" else _hit)(logits, target)
    rate = {"response": _probability, "likelihood": _log_probability, "logit": _target_logit}[value]
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


def _probability(logits: Tensor, target: Tensor) -> Tensor:
    if target.dim() == 2:
        return torch.sigmoid(_signed(logits, target)).mean(-1)
    return _at(_by_class(logits).softmax(-2), target)


def _log_probability(logits: Tensor, target: Tensor) -> Tensor:
    if target.dim() == 2:
        return nn.functional.logsigmoid(_signed(logits, target)).mean(-1)
    return _at(_by_class(logits).log_softmax(-2), target)


def _signed(logits: Tensor, target: Tensor) -> Tensor:
    return torch.where(target.bool(), logits, -logits)


def _target_logit(logits: Tensor, target: Tensor) -> Tensor:
    if target.dim() == 2:
        return _signed(logits, target).mean(-1)
    return logits.gather(-1, target.long().expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)


def _by_class(logits: Tensor) -> Tensor:
    """Return `(K, C, N)` of `(K, N, C)`: along the samples a softmax is vectorised, ten times faster for ten classes."""
    return logits.mT.contiguous()


def _at(by_class: Tensor, target: Tensor) -> Tensor:
    return by_class.gather(-2, target.long().expand(len(by_class), 1, -1)).squeeze(-2)


def _hit(logits: Tensor, target: Tensor) -> Tensor:
    if target.dim() == 2:
        return ((logits > 0) == target.bool()).to(logits.dtype).mean(-1)
    return (logits.argmax(-1) == target).to(logits.dtype)


def _fits(logits: Tensor, target: Tensor) -> None:
    if target.is_floating_point():
        raise ValueError(
            f"`target` must hold integer classes (N,) or integer labels (N, K), received {target.dtype}. For a "
            "regression give `shapley_values` a value of your own per coalition and pass the result to `normalised`."
        )
    expected = tuple(logits.shape[1:2]) if target.dim() == 1 else tuple(logits.shape[1:])
    if logits.dim() != 3 or tuple(target.shape) != expected:
        raise ValueError(
            "`logits` must be (2**M - 1, N, C) and `target` (N,) or (N, C), "
            f"received {tuple(logits.shape)} and {tuple(target.shape)}."
        )
