"""A loss in two parts: one climbs, the other stays where it is."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from msam.sharpness._common import Contributions
from msam.sharpness._ranks import apart
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

    Two backwards go through one forward, of which DDP would leave the second unreduced without a word. So under DDP both
    passes run without it, and two all-reduces average what is climbed and what is spent.

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
    with rule.replayable(), apart(module) as over_ranks:
        output = forward()
        climbing, staying = parts(output)
        stays: Gradients = {}
        if staying is not None:
            backward(staying, retain_graph=climbing is not None)
            stays = kept(rule.slots.made())
            rule.slots.put({})
        if climbing is not None:
            backward(climbing)
        if not rule.per_worker:
            over_ranks(rule.slots)  # what climbs
        if rule.slots.made():
            try:
                with rule._climbed(contributions(), module or rule.model, share=1.0) as climbs:
                    loss = parts(forward())[0] if climbs else None
                    if loss is not None:
                        backward(loss)
                    elif climbs:  # only other ranks have something that climbs
                        rule.slots.put({p: torch.zeros_like(p) for p in rule.slots.parameters()})
            finally:
                rule.slots.put(total(rule.slots.made(), stays))
        else:
            rule.slots.put(stays)
            rule.last = {"share": 0.0, "radius": 0.0}
            rule._completed()
        over_ranks(rule.slots)  # what is spent
    return output


@torch.no_grad()
def total(a: Gradients, b: Gradients) -> Gradients:
    """Return the sum of two sets of gradients; one that is missing counts as 0. Overwrites the tensors of `a`."""
    return {**b, **{p: g.add_(b[p]) if p in b else g for p, g in a.items()}}
