"""Shapley contributions: what share of a prediction each modality has.

Coalitions -> logits of every coalition -> Shapley values -> contributions. Pure functions on tensors; nothing here
knows optimizers or training. Coalitions of `M` modalities come in bitmask order `1 .. 2**M - 1`: bit `i` of the number
says whether modality `i` is present. The empty coalition is worth 0 by definition, `v(empty) := 0`, as AGM's code has it
(Li et al. 2023); so the values of all modalities sum to the value of the full coalition.

Eq. 17 to 19 of the M-SAM paper need three corrections, which are made here: the sum includes the empty coalition (without
it Eq. 18 fails), the factor 1/2 of Eq. 19 stands before the whole bracket, and the modalities *outside* a coalition
are the ones replaced by zeros.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from msam import checks

Value = Literal["probability", "accuracy", "response", "likelihood", "logit"]
VALUES: tuple[Value, ...] = ("probability", "accuracy", "response", "likelihood", "logit")
MAX_EXACT = 12


@lru_cache(maxsize=32)
def coalitions(num_modalities: int) -> tuple[tuple[int, ...], ...]:
    """Return the `2**M - 1` non-empty coalitions of `M` modalities in bitmask order.

    Raises:
        ValueError: if `num_modalities` is not in 1 .. 12.

    >>> coalitions(2)
    ((0,), (1,), (0, 1))
    """
    _exact_size(num_modalities)
    return tuple(tuple(m for m in range(num_modalities) if mask >> m & 1) for mask in range(1, 2**num_modalities))


def shapley_values(values: Tensor) -> Tensor:
    r"""Return the Shapley values of a game given by the value of each of its coalitions.

    `phi_m = sum over S without m of |S|! (M - |S| - 1)! / M! * (v(S + m) - v(S))`, with `v(empty) = 0`. The result is
    linear in `values` and sums over the modalities to `values[-1]`.

    Arguments:
        values: `(2**M - 1, *S)`, the value of each coalition in the order of `coalitions(M)`.

    Returns:
        `(M, *S)`.

    Raises:
        ValueError: if the first size is not `2**M - 1` for an `M` in 1 .. 12.

    Two modalities, worth 0.5 and 0.3 alone and 1.0 together:

    >>> shapley_values(torch.tensor([0.5, 0.3, 1.0]))
    tensor([0.6000, 0.4000])
    """
    num_modalities = (len(values) + 1).bit_length() - 1
    if len(values) == 0 or 2**num_modalities - 1 != len(values):
        raise ValueError(
            f"`values` must have 2**M - 1 rows, one for each non-empty coalition, received shape {tuple(values.shape)}."
        )
    _exact_size(num_modalities)
    if not values.is_floating_point():
        values = values.to(torch.get_default_dtype())
    weights = _weights(num_modalities, values.dtype, values.device).unflatten(-1, (-1, *[1] * (values.dim() - 1)))
    return torch.stack([(weight * values).sum(0) for weight in weights])  # a product `@` would be rounded by autocast


class Sampled(NamedTuple):
    """Shapley values estimated from permutations.

    Attributes:
        values: `(M, *S)`, unbiased; they sum to the value of the full coalition exactly.
        standard_error: `(M, *S)`, of each value.
    """

    values: Tensor
    standard_error: Tensor


def sampled_shapley_values(
    value: Callable[[tuple[int, ...]], Tensor], num_modalities: int, *, permutations: int = 256, seed: int = 0
) -> Sampled:
    """Estimate Shapley values from random orders in which the modalities join; for more than 12 modalities.

    Every order is walked forwards and backwards (Castro et al. 2009, with antithetic pairs); the standard error is
    that of the mean over pairs. Coalitions met before are not asked for again.

    Arguments:
        value: the value `(*S)` of a non-empty coalition, given as sorted positions of its modalities.
        num_modalities: `M`, at least 1.
        permutations: how many orders, an even number, at least 4.
        seed: of the orders.

    Raises:
        ValueError: if `permutations` is odd or below 4, or `num_modalities` below 1.

    >>> sampled_shapley_values(lambda s: torch.tensor(float(len(s))), 3, permutations=4).values
    tensor([1., 1., 1.])
    """
    checks.in_range("num_modalities", num_modalities, checks.Range(ge=1))
    checks.in_range("permutations", permutations, checks.Range(ge=4))
    if permutations % 2:
        raise ValueError(f"`permutations` must be even (each order is walked both ways), received {permutations}.")
    known: dict[tuple[int, ...], Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(permutations // 2):
        order = torch.randperm(num_modalities, generator=generator).tolist()
        walks = [_marginals(value, walk, known) for walk in (order, order[::-1])]
        pairs.append((walks[0] + walks[1]) / 2)
    drawn = torch.stack(pairs)
    return Sampled(drawn.mean(0), drawn.std(0) / math.sqrt(len(drawn)))


def coalition_logits(
    model: Any,
    features_or_inputs: Mapping[str, Tensor],
    *,
    absent: Literal["feature", "input"] = "feature",
    only: Sequence[tuple[int, ...]] | None = None,
    graph: bool = False,
) -> Tensor:
    """Return the logits that every coalition of modalities gives; model left as it was.

    `absent="feature"` replaces the *features* of absent modalities by zeros: one batched call of the fusion, in
    evaluation mode, on the features as given. It is this library's default on purpose: it is cheap, and for a linear
    late fusion the Shapley logits are the split logits, `W_m h_m + b / M`. `absent="input"` replaces their *inputs* by
    zeros and runs the whole model, in evaluation mode, once per coalition, as AGM's code does; it takes any callable.

    Arguments:
        model: for "feature" a `MultimodalModel` (anything with `modalities` and a `fusion` module); for "input" any
            callable from the mapping of inputs to logits `(N, C)` or to an `Output`; modules are set to evaluation mode.
        features_or_inputs: modality -> `(B, ...)`: features for "feature", inputs for "input". For "input" its order
            is the order of the modalities unless the model has `modalities`.
        absent: see above.
        only: the coalitions wanted, as positions of modalities; default all, in the order of `coalitions(M)`.
        graph: keep the graph, for losses made of them; by default there is none.

    Returns:
        `(2**M - 1, N, C)`, or `(len(only), N, C)`.

    Raises:
        ValueError: if a modality is missing, `only` is empty or out of range, or `M` exceeds 12 and it is not given.
    """
    checks.one_of("absent", absent, ("feature", "input"))
    names = tuple(getattr(model, "modalities", None) or features_or_inputs)
    missing = [name for name in names if name not in features_or_inputs]
    if missing:
        raise ValueError(
            f"Modality {missing[0]!r} is missing; found {sorted(features_or_inputs)}, expected {list(names)}."
        )
    wanted = coalitions(len(names)) if only is None else _wanted(only, len(names))
    given = {n: features_or_inputs[n] if graph else features_or_inputs[n].detach() for n in names}
    with torch.set_grad_enabled(graph and torch.is_grad_enabled()):
        if absent == "feature":
            return _fused_coalitions(model.fusion, given, wanted)
        with evaluating(model):
            return torch.stack([_logits_of(model(_with_only(given, names, s))) for s in wanted])


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
    checks.one_of("value", value, VALUES)
    checks.one_of("reduction", reduction, ("batch", "none"))
    _fits(logits, target)
    logits = logits.detach().float() if logits.dtype in (torch.float16, torch.bfloat16) else logits.detach()
    if value in ("probability", "accuracy"):
        rate = _probability if value == "probability" else _hit
        per_sample = shapley_values(rate(logits, target))
    else:
        phi = shapley_values(logits)
        rate = {"response": _probability, "likelihood": _log_probability, "logit": _target_logit}[value]
        per_sample = rate(phi, target)
    worth = per_sample if reduction == "none" else per_sample.mean(1)
    if value == "likelihood":  # only ratios count: the largest becomes 1 and cannot vanish
        worth = (worth - worth.amax(0)).exp()
    return normalised(worth)


def normalised(worth: Tensor) -> Tensor:
    """Return `worth` `(M, ...)` divided by its sum over `M`, with negative and non-finite values set to 0; uniform where
    nothing is left.

    >>> normalised(torch.tensor([3.0, -1.0, 1.0]))
    tensor([0.7500, 0.0000, 0.2500])
    >>> normalised(torch.zeros(4))
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    worth = torch.nan_to_num(worth, nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0)
    largest = worth.amax(0, keepdim=True)  # divided by first, so that the sum cannot overflow
    scaled = torch.where(largest > 0, worth / torch.where(largest > 0, largest, 1.0), 1.0)
    return scaled / scaled.sum(0, keepdim=True)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _weights(num_modalities: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    def weight(m: int, members: tuple[int, ...]) -> float:
        others = len(members) - (m in members)
        size = 1.0 / (num_modalities * math.comb(num_modalities - 1, others))
        return size if m in members else -size

    rows = [[weight(m, members) for members in coalitions(num_modalities)] for m in range(num_modalities)]
    return torch.tensor(rows, dtype=torch.float64).to(device=device, dtype=dtype)


def _marginals(
    value: Callable[[tuple[int, ...]], Tensor], order: Sequence[int], known: dict[tuple[int, ...], Tensor]
) -> Tensor:
    gains: dict[int, Tensor] = {}
    before: Tensor | float = 0.0
    for position, m in enumerate(order, start=1):
        members = tuple(sorted(order[:position]))
        if members not in known:
            known[members] = torch.as_tensor(value(members))
        gains[m] = known[members] - before
        before = known[members]
    return torch.stack([gains[m] for m in range(len(order))])


def _fused_coalitions(fusion: nn.Module, features: dict[str, Tensor], wanted: Sequence[tuple[int, ...]]) -> Tensor:
    stacked = {}
    for position, (name, feature) in enumerate(features.items()):
        present = torch.tensor([position in s for s in wanted], device=feature.device)
        rows = torch.where(present.view(-1, *[1] * feature.dim()), feature, torch.zeros((), dtype=feature.dtype))
        stacked[name] = rows.flatten(0, 1)
    with evaluating(fusion):
        logits = _logits_of(fusion(stacked))
    return logits.reshape(len(wanted), -1, logits.shape[-1])


def _wanted(only: Sequence[tuple[int, ...]], num_modalities: int) -> tuple[tuple[int, ...], ...]:
    wanted = tuple(tuple(members) for members in only)
    if not wanted or not all(m in range(num_modalities) for members in wanted for m in members):
        raise ValueError(
            f"`only` must hold coalitions of positions 0 to {num_modalities - 1}, received {list(wanted)}."
        )
    return wanted


def _with_only(inputs: dict[str, Tensor], names: Sequence[str], members: tuple[int, ...]) -> dict[str, Tensor]:
    return {n: x if position in members else torch.zeros_like(x) for position, (n, x) in enumerate(inputs.items())}


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Have a module, and all inside it, in evaluation mode inside the block; any other callable is let be."""
    modules = [m for m in model.modules() if m.training] if isinstance(model, nn.Module) else []
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module in modules:
            module.training = True


def _logits_of(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


def _probability(logits: Tensor, target: Tensor) -> Tensor:
    return (
        _log_probability(logits, target).exp() if target.dim() == 1 else torch.sigmoid(_signed(logits, target)).mean(-1)
    )


def _log_probability(logits: Tensor, target: Tensor) -> Tensor:
    if target.dim() == 2:
        return nn.functional.logsigmoid(_signed(logits, target)).mean(-1)
    return _target_logit(logits.log_softmax(-1), target)


def _signed(logits: Tensor, target: Tensor) -> Tensor:
    return torch.where(target.bool(), logits, -logits)


def _target_logit(logits: Tensor, target: Tensor) -> Tensor:
    if target.dim() == 2:
        return _signed(logits, target).mean(-1)
    return logits.gather(-1, target.long().expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)


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


def _exact_size(num_modalities: int) -> None:
    if not 1 <= num_modalities <= MAX_EXACT:
        raise ValueError(
            f"Exact Shapley values are for 1 to {MAX_EXACT} modalities, received {num_modalities}. "
            "Use `sampled_shapley_values` for more."
        )
