"""Gradients of modalities: how long they are, and which way they point where they meet (Fig. 3 of the paper, measured)."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from torch import Tensor, nn

from msam.models import MultimodalModel
from msam.train.probes._base import Study, finite, inner, norm


def measure(study: Study) -> dict[str, Any]:
    """Return the lengths of the modalities' gradients and the angles between them.

    Returns:
        `loss`: the joint loss `L`. `logits`: of which logits a modality's own loss `L_m` is made, "split" or "shapley".
        `shared`: the parameters that every modality's loss reaches, None where there are none (a sum of heads):
        `of`, "fusion", or "bias" where the weights beside it belong to modalities (a concatenation); `parameters`, their
        number; `joint`, the norm of the gradient of `L` on them; `cosines`, for every pair of `modalities` the `cosine`
        between the gradients of their own losses there. `modalities`: name -> `loss`, its own; `shared`, the norm of its
        gradient on the shared parameters; `encoder`, on the modality's encoder; `joint`, the norm of the gradient of `L`
        on the encoder; `cosine`, between both on the encoder. None: not finite, or a gradient of length 0 has no direction.
    """
    losses, (joint, *own) = study.gradients([None, *study.modalities])
    of, shared = shared_parameters(study.network)
    meet = [_on(shared, gradient, study) for gradient in own] if of else []
    modalities = {}
    for k, name in enumerate(study.modalities):
        encoder = set(study.network.encoders[name].parameters())
        mine, theirs = (_on(encoder, gradient, study) for gradient in (own[k], joint))
        modalities[name] = {
            "loss": finite(losses[k + 1]),
            "shared": finite(norm(meet[k])) if of else None,
            "encoder": finite(norm(mine)),
            "joint": finite(norm(theirs)),
            "cosine": cosine(mine, theirs),
        }
    pairs = [
        {"modalities": [study.modalities[i], study.modalities[j]], "cosine": cosine(meet[i], meet[j])}
        for i, j in combinations(range(len(meet)), 2)
    ]
    return {
        "loss": finite(losses[0]),
        "logits": study.logits,
        "shared": {
            "of": of,
            "parameters": sum(p.numel() for p in shared),
            "joint": finite(norm(_on(shared, joint, study))),
            "cosines": pairs,
        }
        if of
        else None,
        "modalities": modalities,
    }


def shared_parameters(network: MultimodalModel) -> tuple[str | None, set[nn.Parameter]]:
    """Return the parameters that all modalities share, and what they are: "fusion", "bias" or None.

    Those of role "fusion", but for a weight whose columns each meet one modality's feature.
    """
    if len(network.modalities) < 2:
        return None, set()
    meets = [network.fusion.weight_of(name) for name in network.modalities]
    owned = {weight for weight, columns in meets if columns != slice(None)}
    groups = [group["params"] for group in network.parameter_groups() if group["role"] == "fusion"]
    shared = {p for group in groups for p in group} - owned
    if not shared:
        return None, shared
    return "fusion" if any(p.dim() > 1 for p in shared) else "bias", shared


def cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> float | None:
    """Return the cosine between two gradients, in [-1, 1]; None where one has no direction."""
    lengths = norm(a) * norm(b)
    if not lengths or not math.isfinite(lengths):
        return None
    return max(-1.0, min(1.0, inner(a, b) / lengths))


def _on(chosen: set[nn.Parameter], gradient: Sequence[Tensor], study: Study) -> list[Tensor]:
    """Return the gradient's tensors of the chosen parameters."""
    return [g for p, g in zip(study.parameters, gradient, strict=True) if p in chosen]
