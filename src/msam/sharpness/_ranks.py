"""What ranks must agree on."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from msam.sharpness._common import Contributions


def mean_over_ranks(contributions: Contributions | None, parameters: Sequence[nn.Parameter]) -> Contributions | None:
    """Return the mean of contributions over ranks: one all-reduce of M floats on the parameters' device.

    As they are where torch.distributed is not initialised.
    """
    if contributions is None or not (dist.is_available() and dist.is_initialized()):
        return contributions
    mean: Tensor = torch.as_tensor(contributions).detach().clone().to(parameters[0].device)
    dist.all_reduce(mean)
    return mean / dist.get_world_size()
