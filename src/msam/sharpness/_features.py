"""Both passes of a step in which only some encoders climb: the others run once."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from msam.sharpness._common import Contributions
from msam.sharpness._tensors import vector
from msam.types import Output

if TYPE_CHECKING:
    from msam.sharpness._perturb import Sharpness


def backward_reusing_features(
    rule: "Sharpness",
    model: Any,
    inputs: Any,
    losses: Callable[[Output], Tensor],
    contributions: Contributions | Callable[[Output], Contributions] | None,
    climbs: Callable[[Contributions], str],
    *,
    present: Tensor | None,
    backward: Callable[..., None],
) -> Output:
    """Leave in `.grad` what two whole passes would, though encoders that do not climb run once.

    Their features are leaves of both passes; what each pass makes of a feature's gradient is blended as the weights'
    gradients are, and sent through the encoder's one graph: it is linear in that gradient, and its weights do not move.

    Arguments:
        rule: whose climb is used.
        model: a `MultimodalModel` (`encode` and `fuse`), wrapped or not.
        inputs: modality -> input.
        losses: as for `Sharpness.backward`.
        contributions: as there.
        climbs: contributions -> the modality whose encoder climbs.
        present: as there.
        backward: as there.
    """
    rule.optimizer.zero_grad()
    with rule.replayable():
        features = model.encode(inputs, present=present)
        leaves = {name: feature.detach().requires_grad_() for name, feature in features.items()}
        output = Output(model.fuse(leaves), features)
        shares = contributions(output) if callable(contributions) else contributions
        if shares is None:
            rule.share(None)  # says what is missing
            raise AssertionError
        backward(vector(losses(output)).mean())
        first = {name: leaf.grad for name, leaf in leaves.items()}
        chosen = climbs(shares)
        _through({chosen: features[chosen]}, {chosen: first[chosen]})
        second: dict[str, Tensor | None] = dict(first)

        def again() -> None:
            moved = model.encode({chosen: inputs[chosen]}, only=[chosen], present=present)
            still = {n: leaf.detach().requires_grad_() for n, leaf in leaves.items() if n != chosen}
            both = {name: moved[name] if name == chosen else still[name] for name in leaves}
            backward(vector(losses(Output(model.fuse(both), both))).mean())
            second.update({name: leaf.grad for name, leaf in still.items()})

        rest = {name: feature for name, feature in features.items() if name != chosen}
        share = 0.0
        try:
            rule.complete(again, shares, model=rule.model)
            share = rule.last["share"] if rule.last["radius"] else 0.0
        finally:
            _through(rest, {name: _blend(first[name], second[name], share) for name in rest})
    return output


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
