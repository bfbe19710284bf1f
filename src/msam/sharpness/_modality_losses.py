"""Losses of modalities: the fused loss by contributions, or each modality's own."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from msam import shapley
from msam.sharpness._common import Contributions
from msam.sharpness._split import Parts
from msam.sharpness._tensors import vector

if TYPE_CHECKING:
    from msam.sharpness.msam import MSAM

Kind = Literal["weighted", "response", "masked"]


def modality_parts(
    rule: "MSAM",
    model: Any,
    losses: Callable[[Any], Tensor],
    contributions: Contributions | Callable[[Any], Contributions] | None,
    kind: str,
) -> Callable[[Any], Parts]:
    """Return the function from an output to what climbs, `L_d`, and what stays, `L_s = sum over m != d of L_m`.

    `L_m = mean_b nu_m,b l_m,b`, where `l_m` is the loss of the fused logits ("weighted"), of the modality's Shapley logits
    ("response"), or of the logits with the others' features absent ("masked"). Contributions `nu`, `(M,)` or `(M, N)`, and
    `d` are those of the first call, at theta.
    """
    weights: list[Tensor] = []

    def parts(output: Any) -> Parts:
        own = _losses_of_modalities(rule.model or model, output, losses, kind)
        if not weights:
            weights.append(_weights(rule, output, contributions, own))
        weight = weights[0]
        assert rule.kept is not None
        dominant = rule.chosen(rule.kept)
        climbing = weight[dominant] * own[dominant if len(own) > 1 else 0]
        if len(own) == 1:
            staying = (weight.sum(0) - weight[dominant]) * own[0]
        else:
            staying = sum(
                (weight[m] * loss for m, loss in enumerate(own) if m != dominant), start=torch.zeros_like(climbing)
            )
        return climbing.mean(), staying.mean()

    return parts


def _weights(
    rule: "MSAM", output: Any, contributions: Contributions | Callable[[Any], Contributions] | None, own: list[Tensor]
) -> Tensor:
    given = contributions(output) if callable(contributions) else contributions
    if given is None:
        rule.agreed(None)  # the kept ones, or an error that says what is missing
        weight = torch.tensor(rule.kept, dtype=torch.float64)
    else:
        weight = torch.as_tensor(given).detach()
        if rule.by_sample and (weight.dim() != 2 or weight.shape[1] != len(own[0])):
            raise ValueError(
                f'weighting="sample" needs contributions (M, {len(own[0])}), received {tuple(weight.shape)}. Compute them '
                'with reduction="none".'
            )
        if rule.by_sample and not bool(((weight >= -1e-6).all(0) & ((weight.sum(0) - 1).abs() <= 1e-3)).all()):
            raise ValueError("`contributions` must be finite, >= 0 and sum to 1 for every sample, (M, N).")
        rule.agreed(weight.mean(1) if weight.dim() == 2 else weight)
        weight = weight if rule.by_sample else torch.tensor(rule.kept, dtype=torch.float64)
    return weight.to(own[0].device, own[0].dtype)


def _losses_of_modalities(model: Any, output: Any, losses: Callable[[Any], Tensor], kind: str) -> list[Tensor]:
    """Return the losses `(N,)` of every modality, or the one of the fused logits."""
    if kind == "weighted":
        return [vector(losses(output))]
    count = len(output.features)
    if kind == "masked":
        alone = [(m,) for m in range(count)]
        logits = shapley.coalition_logits(model, output.features, only=alone, graph=True)
    else:
        logits = shapley.shapley_values(shapley.coalition_logits(model, output.features, graph=True))
    return [vector(losses(output._replace(logits=z))) for z in logits]
