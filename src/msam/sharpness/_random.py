"""Random numbers drawn twice: the second pass of a step with the dropout masks of the first."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor


class RandomState(NamedTuple):
    """Torch's random state on the CPU and on every CUDA device that is in use."""

    cpu: Tensor
    cuda: dict[int, Tensor]


def random_state() -> RandomState:
    """Return torch's random state as it is now."""
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count()) if used else ()
    return RandomState(torch.get_rng_state(), {d: torch.cuda.get_rng_state(d) for d in devices})


@contextmanager
def replayed(state: RandomState) -> Iterator[None]:
    """Draw inside the block what was drawn after `state`; afterwards the numbers go on as if nothing had been drawn."""
    now = random_state()
    _set(state)
    try:
        yield
    finally:
        _set(now)


def _set(state: RandomState) -> None:
    torch.set_rng_state(state.cpu)
    for device, value in state.cuda.items():
        torch.cuda.set_rng_state(value, device)
