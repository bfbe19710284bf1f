"""A loss in two parts: one climbs, the other stays where it is."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from msam.sharpness._common import Contributions
from msam.sharpness._tensors import Gradients, calls, kept

if TYPE_CHECKING:
    from msam.sharpness._perturb import Sharpness

Parts = tuple[Tensor | None, Tensor | None]


def backward_of_parts(
    rule: "Sharpness",
    model: Callable[..., Any],
    inputs: Any,
    parts: Callable[[Any], Parts],
    *,
    present: Tensor | None,
    backward: Callable[..., None],
    contributions: Callable[[], Contributions | None] = lambda: None,
) -> Any:
    """Leave `grad L_s(theta) + grad L_d(theta + rho u)` in `.grad`, `u` along `grad L_d(theta)`; return the first output.

    Arguments:
        rule: whose climb, options and bookkeeping are used.
        model: the model.
        inputs: its inputs.
        parts: output -> the scalar losses `(L_d, L_s)`, what climbs and what stays; None for one that is nothing. Called
            at theta and at theta + eps, where the staying one is not looked at.
        present: as for `Sharpness.backward`.
        backward: as there.
        contributions: gives the agreed `(M,)` once the first pass is made, for a rule whose scope depends on them.
    """
    forward, module = calls(model, inputs, present)
    rule.optimizer.zero_grad()
    with rule.replayable():
        output = forward()
        climbing, staying = parts(output)
        stays: Gradients = {}
        if staying is not None:
            backward(staying, retain_graph=climbing is not None)
            stays = kept(rule.slots.made())
            if climbing is not None:
                rule.slots.put({})
        if climbing is None:
            rule.last = {"share": 0.0, "radius": 0.0}
            rule._completed()
            return output
        backward(climbing)

        def again() -> None:
            loss, _ = parts(forward())
            assert loss is not None
            backward(loss)

        try:
            with rule._climbed(contributions(), module or rule.model, share=1.0) as climbs:
                if climbs:
                    again()
        finally:
            rule.slots.put(total(rule.slots.made(), stays))
    return output


@torch.no_grad()
def total(a: Gradients, b: Gradients) -> Gradients:
    """Return the sum of two sets of gradients; one that is missing counts as 0. Overwrites the tensors of `a`."""
    return {**b, **{p: g.add_(b[p]) if p in b else g for p, g in a.items()}}
