"""Random numbers drawn twice: the second pass of a step with the dropout masks of the first."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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


def from_there(state: RandomState | None) -> AbstractContextManager[None]:
    """Return `replayed(state)`; where there is no state, nothing happens."""
    return nullcontext() if state is None else replayed(state)


def _set(state: RandomState) -> None:
    torch.set_rng_state(state.cpu)
    for device, value in state.cuda.items():
        torch.cuda.set_rng_state(value, device)


class Replay:
    """Whether, and from where, a later pass of a step is to draw the random numbers of its first pass again.

    Arguments:
        wanted: whether at all.
    """

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self._drawn: RandomState | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Stand around a whole step, first pass included."""
        self._drawn = random_state() if self.wanted else None
        try:
            yield
        finally:
            self._drawn = None

    def state(self) -> RandomState | None:
        """Return where the random numbers stand, to begin `again` there; None where nothing is replayed."""
        return random_state() if self.wanted else None

    def forget(self) -> None:
        """End the step: another one inside the same block would be given the draws of this one."""
        self._drawn = None

    def again(self) -> AbstractContextManager[None]:
        """Stand around a later pass.

        Raises:
            RuntimeError: if it is wanted, and no `step()` stands around.
        """
        if not self.wanted:
            return nullcontext()
        if self._drawn is None:
            raise RuntimeError(
                'rng="replay" must know what the first pass drew: put `with sharpness.replayable():` around both passes, '
                "or use backward() or as_optimizer()."
            )
        return replayed(self._drawn)
