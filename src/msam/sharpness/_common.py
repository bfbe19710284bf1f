"""What all rules share beside the climb: their common options, and the words they use."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor

from msam import checks
from msam.sharpness._radius import RhoSchedule
from msam.sharpness._tensors import Gradients

Contributions = Tensor | Sequence[float]
SHORTEST = torch.finfo(torch.float32).tiny  # a shorter direction counts as zero: rho / norm would overflow


class Common(TypedDict, total=False):
    """What every rule takes.

    Arguments:
        sync: average contributions over ranks when torch.distributed is initialised.
        monitor: every that many climbs put `gradient_change` and `cosine` into `last`; 0 = never.
        rho_schedule: how the radius goes on: constant, inverse_sqrt (rho / sqrt(t) at step t), learning_rate (in
            proportion to each group's rate), or a function from t = 1, 2, .. to the factor.
        memory: exact (weights come back from copies, bit for bit), low (by subtracting the step, to rounding: one copy of
            the parameters less where the climb is along the gradients themselves; not for ASAM, Fisher SAM and F-SAM).
        rng: free, or replay (the second pass drops out what the first did); for `backward()` and the closure form.
    """

    sync: bool
    monitor: Annotated[int, checks.Range(ge=0)]
    rho_schedule: RhoSchedule
    memory: Literal["exact", "low"]
    rng: Literal["free", "replay"]


class Direction(NamedTuple):
    """Where a rule climbs: by `rho * vectors / norm`.

    Attributes:
        vectors: parameter -> tensor, for those that climb; may *be* the gradients.
        norm: scalar tensor; where it is 0 or not finite, the rule climbs nowhere.
    """

    vectors: Gradients
    norm: Tensor
