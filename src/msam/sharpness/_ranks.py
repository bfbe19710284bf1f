"""What ranks must agree on."""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from msam.sharpness._common import Contributions
from msam.sharpness._tensors import sharded


def mean_over_ranks(contributions: Contributions | None, parameters: Sequence[nn.Parameter]) -> Contributions | None:
    """Return the mean of contributions over ranks: one all-reduce of M floats on the parameters' device.

    As they are where torch.distributed is not initialised.
    """
    if contributions is None or not (dist.is_available() and dist.is_initialized()):
        return contributions
    if not isinstance(contributions, Tensor):
        contributions = torch.as_tensor(contributions, dtype=torch.float64)  # a list keeps its digits
    mean = contributions.detach().clone().to(parameters[0].device)
    dist.all_reduce(mean)
    return mean / dist.get_world_size()


def resharded(model: nn.Module | None, parameters: Iterable[nn.Parameter]) -> None:
    """Check that the model computes with the sharded parameters that are to climb.

    Raises:
        RuntimeError: if it holds on to weights gathered before, which a climb would not reach.
    """
    climbing = {p for p in parameters if sharded(p)} if model is not None else set()
    if climbing and model is not None and climbing.isdisjoint(model.parameters()):
        raise RuntimeError(
            "The model keeps its weights gathered after backward, so the second pass would not see the climb of "
            "the sharded ones. Use set_reshard_after_backward(True), FSDP2's default."
        )
