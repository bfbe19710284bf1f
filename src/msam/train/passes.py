"""What a step costs, counted where it is spent: passes of the encoders."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from msam.methods import Run
from msam.types import Batch


class Counter:
    """Counts forward and backward passes of encoders while it is switched on.

    A pass of one encoder over a part of the batch counts as that part.

    Arguments:
        encoders: what to watch; a method's teachers among them.
        count: how many encoders make one pass of the model.

    Attributes:
        forward: forward passes of the whole model so far.
        backward: backward passes of the whole model so far.
    """

    def __init__(self, encoders: Iterable[nn.Module], count: int) -> None:
        self.forward = self.backward = 0.0
        self._weight = 0.0
        self._count = count
        for encoder in encoders:
            encoder.register_forward_hook(self._passed)

    @classmethod
    def of(cls, run: Run) -> "Counter":
        """Return a counter of the model's encoders, and of those that the method keeps in its state as teachers."""
        kept = [value for value in run.state.values() if isinstance(value, nn.ModuleDict)]
        encoders = [encoder for modules in (run.network.encoders, *kept) for encoder in modules.values()]
        return cls(encoders, len(run.network.encoders))

    @contextmanager
    def counting(self, batch_size: int) -> Iterator[None]:
        """Count what happens inside, for a batch of so many samples (not segments)."""
        self._weight = 1 / (self._count * batch_size)
        try:
            yield
        finally:
            self._weight = 0.0

    @property
    def cost(self) -> float:
        """Forward-backward passes so far, a backward counted as two forwards."""
        return (self.forward + 2 * self.backward) / 3

    def _passed(self, _module: nn.Module, inputs: tuple[Any, ...], feature: object) -> None:
        if not self._weight or not isinstance(feature, Tensor):
            return
        part = len(inputs[0] if inputs and isinstance(inputs[0], Tensor) else feature) * self._weight
        self.forward += part
        if feature.requires_grad:
            feature.register_hook(lambda _: self._went_back(part))

    def _went_back(self, part: float) -> None:
        if self._weight:
            self.backward += part


def samples(batch: Batch) -> int:
    """Return how many samples a batch has; its target may have several rows for each.

    >>> import torch
    >>> samples(Batch({"audio": torch.zeros(2, 10, 128)}, torch.zeros(20)))
    2
    """
    return len(next(iter(batch.inputs.values()), batch.target))
