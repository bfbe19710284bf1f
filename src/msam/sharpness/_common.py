"""What all rules share beside the climb: their common options, and the words they use."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from msam import checks
from msam.sharpness._radius import RhoSchedule
from msam.sharpness._tensors import Gradients

Contributions = Tensor | Sequence[float]
SHORTEST = torch.finfo(torch.float32).tiny  # a shorter direction counts as zero: rho / norm would overflow


class Common(TypedDict, total=False):
    """What every rule takes.

    Attributes:
        sync: average contributions over ranks when torch.distributed is initialised.
        monitor: every that many climbs put `gradient_change` and `cosine` into `last`; 0 = never.
        rho_schedule: how the radius goes on: constant, inverse_sqrt (rho / sqrt(t) at step t), learning_rate (in
            proportion to each group's rate), or a function from t = 1, 2, .. to the factor.
        memory: exact (weights come back from copies, bit for bit), low (by subtracting the step, to rounding: one copy of
            the parameters less where the climb is along the gradients themselves; not for ASAM, Fisher SAM and F-SAM).
        radius: global (of the gradient over all ranks), or worker (each rank climbs by its own gradient, m-sharpness, and
            what is spent is averaged once); for `backward()` of a model in DDP.
        rng: free, or replay (the second pass drops out what the first did); for `backward()` and the closure form.
    """

    sync: bool
    monitor: Annotated[int, checks.Range(ge=0)]
    rho_schedule: RhoSchedule
    memory: Literal["exact", "low"]
    radius: Literal["global", "worker"]
    rng: Literal["free", "replay"]


DEFAULTS: Common = {
    "sync": True,
    "monitor": 0,
    "rho_schedule": "constant",
    "memory": "exact",
    "radius": "global",
    "rng": "free",
}
"""Defaults of what every rule takes."""


class Direction(NamedTuple):
    """Where a rule climbs: by `rho * vectors / norm`.

    Attributes:
        vectors: parameter -> tensor, for those that climb; may *be* the gradients.
        norm: scalar tensor; where it is 0 or not finite, the rule climbs nowhere.
    """

    vectors: Gradients
    norm: Tensor


def sound_options(given: Common, defaults: Common, parameters: Iterable[nn.Parameter], of: str) -> Common:
    """Return the options of a rule: the defaults, and what is given instead.

    Raises:
        TypeError: for an option that does not exist.
        ValueError: for a number out of its range, an unknown word, or low memory with weights of half precision.
    """
    for name in given:
        if name not in defaults:
            raise TypeError(f"{of} has no option {name!r}.{checks.did_you_mean(name, defaults)}")
    options: Common = {**defaults, **given}
    checks.in_range("monitor", options["monitor"], checks.Range(ge=0))
    checks.one_of("memory", options["memory"], ("exact", "low"))
    checks.one_of("radius", options["radius"], ("global", "worker"))
    checks.one_of("rng", options["rng"], ("free", "replay"))
    low = [p.dtype for p in parameters if p.dtype in (torch.bfloat16, torch.float16)]
    if low and options["memory"] == "low":
        raise ValueError(
            f'memory="low" needs parameters of float32 or better, found {low[0]}: what is added and subtracted again '
            'would be rounded away. Use memory="exact".'
        )
    return options
