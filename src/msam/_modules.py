"""Modules in another state inside a block, and afterwards as they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


def inside(model: nn.Module) -> list[nn.Module]:
    """Return a module and all in it; those in two places twice. `modules()` takes five times as long."""
    found = [model]
    for module in found:  # it grows meanwhile
        if module._modules:
            found += [child for child in module._modules.values() if child is not None]
    return found


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Have a module, and all inside it, in evaluation mode inside the block; any other callable is let be."""
    modules = [m for m in inside(model) if m.training] if isinstance(model, nn.Module) else []
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module in modules:
            module.training = True


@contextmanager
def held(model: nn.Module | None) -> Iterator[None]:
    """Hold running statistics by the flag: momentum = 0 would still count batches and breaks momentum=None.

    InstanceNorm writes into its buffers whatever its flag says, so they are copied back.
    """
    modules = [m for m in inside(model) if isinstance(m, NORMS) and m.training] if model is not None else []
    tracking = [m for m in modules if m.track_running_stats]
    saved = [(b, b.clone()) for m in tracking if isinstance(m, NORMS[1]) for b in m.buffers(recurse=False)]
    try:
        for module in tracking:
            module.track_running_stats = False
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
        for buffer, value in saved:
            buffer.copy_(value)
