"""Both passes of a step in which only some encoders climb: the others run once."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from msam.sharpness._common import Contributions
from msam.sharpness._random import RandomState, from_there
from msam.sharpness._tensors import calls, vector
from msam.types import Output

if TYPE_CHECKING:
    from msam.sharpness._perturb import Sharpness


def backward_reusing_features(
    rule: "Sharpness",
    model: Any,
    inputs: Any,
    losses: Callable[[Output], Tensor],
    contributions: Contributions | Callable[[Output], Contributions] | None,
    climbs: Callable[[Contributions | None], str],
    *,
    present: Tensor | None,
    backward: Callable[..., None],
) -> Output:
    """Leave in `.grad` what two whole passes would, though encoders that do not climb run once; return the first output.

    Their features are leaves of both passes; what each pass makes of a feature's gradient is blended as the weights'
    gradients are, and sent through the encoder's one graph: it is linear in that gradient, and its weights do not move.

    Arguments:
        rule: whose climb is used.
        model: a `MultimodalModel`, wrapped or not: its forward pass is `encode`, then `fuse`.
        inputs: modality -> input.
        losses: as for `Sharpness.backward`.
        contributions: as there.
        climbs: contributions -> the modality whose encoder climbs.
        present: as there.
        backward: as there.
    """
    _, module = calls(model, inputs, present)
    rule.optimizer.zero_grad()
    with rule.replayable():
        features, drawn = _encoded(rule, model, inputs, present)
        leaves = {name: feature.detach().requires_grad_() for name, feature in features.items()}
        logits = model.fuse(leaves)
        output = Output(logits, features)
        shares = rule.agreed(contributions(output) if callable(contributions) else contributions)
        chosen = climbs(shares)
        backward(vector(losses(Output(logits, leaves))).mean())
        first = {name: leaf.grad for name, leaf in leaves.items()}
        _through({chosen: features[chosen]}, {chosen: first[chosen]})
        second = dict(first)

        def again() -> None:
            both = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
            with from_there(drawn.get(chosen)):
                both |= model.encode({chosen: inputs[chosen]}, only=[chosen], present=present)
            with from_there(drawn.get(None)):
                backward(vector(losses(Output(model.fuse(both), both))).mean())
            second.update({name: both[name].grad for name in both if name != chosen})

        rest = {name: feature for name, feature in features.items() if name != chosen}
        share = 0.0
        try:
            with rule._climbed(shares, module or rule.model) as climbing:
                if climbing:
                    again()
            share = rule.last["share"] if climbing else 0.0
        finally:
            _through(rest, {name: _blend(first[name], second[name], share) for name in rest})
    return output


def _encoded(
    rule: "Sharpness", model: Any, inputs: Any, present: Tensor | None
) -> tuple[dict[str, Tensor], dict[str | None, RandomState | None]]:
    """Return the features, and where the random numbers stood before each encoder and (None) before the fusion.

    The second pass leaves encoders out: to drop what the first dropped, each part must begin where it began.
    """
    if not rule.replay.wanted:
        return model.encode(inputs, present=present), {}
    features: dict[str, Tensor] = {}
    drawn: dict[str | None, RandomState | None] = {}
    for name in model.modalities:
        drawn[name] = rule.replay.state()
        features |= model.encode(inputs, only=[name], present=present)
    return features, {**drawn, None: rule.replay.state()}


def _through(features: dict[str, Tensor], gradients: dict[str, Tensor | None]) -> None:
    """Send the gradients of features back through their encoders."""
    made = [(features[name], g) for name, g in gradients.items() if g is not None and features[name].requires_grad]
    if made:
        torch.autograd.backward([feature for feature, _ in made], [g for _, g in made])


def _blend(first: Tensor | None, second: Tensor | None, share: float) -> Tensor | None:
    if first is None or second is None:
        present, weight = (second, share) if first is None else (first, 1 - share)
        return None if present is None else present * weight
    return torch.lerp(first, second, share)
