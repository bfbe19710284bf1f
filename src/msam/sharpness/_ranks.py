"""What ranks must agree on."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from msam.sharpness._common import Contributions
from msam.sharpness._slots import Slots
from msam.sharpness._tensors import plain, sharded


def mean_over_ranks(contributions: Contributions | None, slots: Slots) -> Contributions | None:
    """Return the mean of contributions over ranks: one all-reduce of M floats on the parameters' device.

    As they are where torch.distributed is not initialised.
    """
    if contributions is None or not (dist.is_available() and dist.is_initialized()):
        return contributions
    if not isinstance(contributions, Tensor):
        contributions = torch.as_tensor(contributions, dtype=torch.float64)  # a list keeps its digits
    mean = contributions.detach().clone().to(slots.parameters()[0].device)
    dist.all_reduce(mean)
    return mean / dist.get_world_size()


@contextmanager
def apart(model: nn.Module | None) -> Iterator[Callable[[Slots], None]]:
    """Keep DDP from averaging inside the block; yield what averages all gradients over ranks, in one all-reduce a type.

    For a model that is not wrapped in DDP it does nothing. A gradient that a rank does not have counts as 0.
    """
    if not isinstance(model, nn.parallel.DistributedDataParallel):
        yield lambda slots: None
        return
    with model.no_sync():
        yield _average


def _average(slots: Slots) -> None:
    made = slots.made()
    trained = [p for p in slots.parameters() if p.requires_grad]
    full = {p: made[p] if p in made else torch.zeros_like(p) for p in trained}
    for dtype in dict.fromkeys(g.dtype for g in full.values()):
        gradients = [g for g in full.values() if g.dtype == dtype]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for g, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            g.copy_(mean.view_as(g))
    slots.put(full)


def resharded(model: nn.Module | None, parameters: Collection[nn.Parameter]) -> None:
    """Check that the model computes with the sharded parameters that are to climb.

    Raises:
        RuntimeError: if it holds on to weights gathered before, which a climb would not reach.
    """
    if model is None or plain(parameters):
        return
    climbing = {p for p in parameters if sharded(p)}
    if climbing and climbing.isdisjoint(model.parameters()):
        raise RuntimeError(
            "The model keeps its weights gathered after backward, so the second pass would not see the climb of "
            "the sharded ones. Use set_reshard_after_backward(True), FSDP2's default."
        )
