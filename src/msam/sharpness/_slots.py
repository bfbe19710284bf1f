"""The `.grad` of an optimizer's parameters: taken out, put in, put back as it was."""

import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from msam.sharpness._tensors import Gradients, kept

IS_SPARSE = operator.attrgetter("is_sparse")


class Slots:
    """Where an optimizer finds its gradients.

    Arguments:
        optimizer: whose parameters; groups added later count too.
        owner: the name that errors speak of.

    Attributes:
        taken: whether the first gradients are out, inside `stashed()`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, owner: str) -> None:
        self.optimizer, self.owner = optimizer, owner
        self.taken = False

    def parameters(self) -> list[nn.Parameter]:
        """Return all parameters, in the order of the groups."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def made(self) -> Gradients:
        """Return the gradients that are there.

        Raises:
            ValueError: if one is sparse.
        """
        made = {p: grad for p in self.parameters() if (grad := p.grad) is not None}
        if any(map(IS_SPARSE, made.values())):
            shape = next(tuple(grad.shape) for grad in made.values() if grad.is_sparse)
            raise ValueError(
                f"{self.owner} needs dense gradients, found a sparse one for a parameter of shape {shape}. Build the "
                "embedding with sparse=False."
            )
        return made

    def put(self, gradients: Gradients) -> None:
        """Set every parameter's gradient; one that is missing becomes None."""
        parameters = self.parameters()
        if len(gradients) < len(parameters):
            for p in parameters:
                p.grad = None
        for p, gradient in gradients.items():
            p.grad = gradient

    @contextmanager
    def stashed(self) -> Iterator[Gradients]:
        """Take the first gradients out and yield them, views as copies; when the block fails they are back as they were.

        Raises:
            RuntimeError: inside another such block.
        """
        if self.taken:
            raise RuntimeError("perturbed() cannot be entered inside another perturbed() block of the same rule.")
        made = self.made()
        first = kept(made)
        if not first:
            warnings.warn("perturbed() was entered without any gradient: call loss.backward() before it.", stacklevel=5)
        self.taken = True
        try:
            self.put({})
            yield first
            if first and all(p.grad is g for p, g in first.items()):
                self._put_back(made, first)
        except BaseException:
            self._put_back(made, first)
            raise
        finally:
            self.taken = False

    def _put_back(self, made: Gradients, first: Gradients) -> None:
        """Put the first pass's own tensors back; refill those whose memory the second pass may have overwritten."""
        with torch.no_grad():
            for p, grad in made.items():
                if first[p] is not grad:
                    grad.copy_(first[p])
        self.put(made)
