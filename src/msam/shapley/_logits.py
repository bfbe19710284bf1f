"""What a model says when some of its modalities are absent."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from msam import checks
from msam._modules import evaluating, inside
from msam.shapley._values import coalitions


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
            Where it has a method `with_only(inputs, present)`, as `msam.adapt` gives it, that says what is absent.
        features_or_inputs: modality -> `(B, ...)`: features for "feature", inputs for "input" (of an adapted model, name
            of an input -> it). For "input" its order is the order of the modalities unless the model has `modalities`.
        absent: see above.
        only: the coalitions wanted, as positions of modalities; default all, in the order of `coalitions(M)`.
        graph: keep the graph, for losses made of them; by default there is none.

    Returns:
        `(2**M - 1, N, C)`, or `(len(only), N, C)`.

    Raises:
        ValueError: if a modality is missing, `only` is empty or out of range, `M` exceeds 12 and it is not given, or
            features are to be absent of a model that has no `fusion`.
    """
    checks.one_of("absent", absent, ("feature", "input"))
    if absent == "feature" and not hasattr(model, "fusion"):
        raise ValueError(
            f"{type(model).__name__} has no `fusion` that could do without features. Pass the model itself where this is "
            "a wrapper of it; else give inputs and say absent='input'."
        )
    names = tuple(getattr(model, "modalities", None) or features_or_inputs)
    without = getattr(model, "with_only", None) if absent == "input" else None
    missing = [] if without else [name for name in names if name not in features_or_inputs]
    if missing:
        raise ValueError(
            f"Modality {missing[0]!r} is missing; found {sorted(features_or_inputs)}, expected {list(names)}."
        )
    wanted = coalitions(len(names)) if only is None else _wanted(only, len(names))
    kept = features_or_inputs if without else names
    given = {n: features_or_inputs[n] if graph else _detached(features_or_inputs[n]) for n in kept}
    with torch.set_grad_enabled(graph and torch.is_grad_enabled()):
        if absent == "feature":
            return _fused_coalitions(model.fusion, given, wanted)
        leave = without or _with_only
        with evaluating(model):
            return torch.stack([_logits_of(model(leave(given, [names[m] for m in s]))) for s in wanted])


def _fused_coalitions(fusion: nn.Module, features: dict[str, Tensor], wanted: Sequence[tuple[int, ...]]) -> Tensor:
    if _can_be_split(fusion):
        parts: Any = fusion.parts
        gains, nothing = parts(features)
        return _sums(gains, nothing, wanted)
    stacked = {}
    for position, (name, feature) in enumerate(features.items()):
        present = torch.tensor([position in s for s in wanted], device=feature.device)
        rows = torch.where(present.view(-1, *[1] * feature.dim()), feature, torch.zeros((), dtype=feature.dtype))
        stacked[name] = rows.flatten(0, 1)
    with evaluating(fusion):
        logits = _logits_of(fusion(stacked))
    return logits.reshape(len(wanted), -1, logits.shape[-1])


def _can_be_split(fusion: nn.Module) -> bool:
    """Tell whether the fusion's logits are sums of parts that may be asked for without calling it.

    Not so where something waits for the call to bring the weights together, as FSDP does.
    """
    if not getattr(type(fusion), "splits", False) or fusion._forward_pre_hooks:
        return False
    return not any(hasattr(p, "to_local") for module in inside(fusion) for p in module._parameters.values())


def _sums(gains: Sequence[Tensor], nothing: Tensor, wanted: Sequence[tuple[int, ...]]) -> Tensor:
    """Return the logits of coalitions whose modalities each add a part of their own.

    Arguments:
        gains: `M` times `(N, C)`, what each adds.
        nothing: `(1, C)`, the logits of none.
        wanted: the coalitions.
    """
    sums = [nothing]
    for gain in gains:  # every coalition so far, without and with one modality more: bitmask order
        sums += [logits + gain for logits in sums]
    numbers = range(1, len(sums)) if wanted is coalitions(len(gains)) else [sum(1 << m for m in set(s)) for s in wanted]
    return torch.stack([sums[number].expand_as(gains[0]) if number == 0 else sums[number] for number in numbers])


def _wanted(only: Sequence[tuple[int, ...]], num_modalities: int) -> tuple[tuple[int, ...], ...]:
    wanted = tuple(tuple(members) for members in only)
    if not wanted or not all(m in range(num_modalities) for members in wanted for m in members):
        raise ValueError(
            f"`only` must hold coalitions of positions 0 to {num_modalities - 1}, received {list(wanted)}."
        )
    return wanted


def _with_only(inputs: dict[str, Tensor], present: Sequence[str]) -> dict[str, Tensor]:
    return {n: x if n in present else torch.zeros_like(x) for n, x in inputs.items()}


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _logits_of(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits
