"""What a climb does to lists of tensors: their length, a step along them, the blend of two gradients; statistics held."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

Gradients = dict[nn.Parameter, Tensor]


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the L2 norm of all tensors together, in float32 at least; a scalar on the first one's device."""
    tensors = list(tensors)
    dtype = reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
    norms = torch._foreach_norm(tensors, 2, dtype)
    return torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))


@torch.no_grad()
def blended(first: Gradients, second: Gradients, share: float) -> Gradients:
    """Return `(1 - share) * first + share * second`; a missing gradient counts as 0. Overwrites the tensors of `second`."""
    both = [p for p in second if p in first]
    if both and share < 1:
        torch._foreach_lerp_([second[p] for p in both], [first[p] for p in both], 1 - share)
    alone = {p: grad * share for p, grad in second.items() if p not in first}
    unused = {p: grad * (1 - share) for p, grad in first.items() if p not in second}
    return {**second, **alone, **unused}


def kept(made: Gradients) -> Gradients:
    """Return the gradients, with copies of those that are views (into DDP's buckets), which the second pass overwrites."""
    with torch.no_grad():
        return {p: grad.clone() if grad._is_view() else grad for p, grad in made.items()}


@contextmanager
def displaced(vectors: Gradients, scales: Mapping[nn.Parameter, float], *, exact: bool = True) -> Iterator[None]:
    """Stand at `theta + scale * vector` inside the block; come back however it ends.

    From copies of theta, bit for bit; or, not exact, by subtracting the step again, to rounding and without the copies.
    """
    with torch.no_grad():
        weights = {p: p.detach().clone() for p in vectors} if exact else {}
    moved: list[tuple[list[Tensor], list[Tensor], float]] = []
    try:
        with torch.no_grad():
            for scale in dict.fromkeys(scales.values()):
                chosen = [p for p in vectors if scales[p] == scale]
                step = ([p.detach() for p in chosen], [vectors[p] for p in chosen], scale)
                torch._foreach_add_(step[0], step[1], alpha=scale)
                moved.append(step)
        yield
    finally:
        with torch.no_grad():
            if weights:
                torch._foreach_copy_([p.detach() for p in weights], list(weights.values()))
            for places, added, scale in [] if exact else reversed(moved):
                torch._foreach_sub_(places, added, alpha=scale)


@contextmanager
def held(model: nn.Module | None) -> Iterator[None]:
    """Hold running statistics by the flag: momentum = 0 would still count batches and breaks momentum=None.

    InstanceNorm writes into its buffers whatever its flag says, so they are copied back.
    """
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
    modules = [m for m in model.modules() if isinstance(m, kinds) and m.training] if model is not None else []
    tracking = [m for m in modules if m.track_running_stats]
    saved = [(b, b.clone()) for m in tracking if isinstance(m, kinds[1]) for b in m.buffers(recurse=False)]
    try:
        for module in tracking:
            module.track_running_stats = False
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
        for buffer, value in saved:
            buffer.copy_(value)


@torch.no_grad()
def inner(a: Gradients, b: Gradients) -> Tensor:
    """Return the inner product of two sets of gradients, in float32 at least; one that is missing counts as 0."""
    both = [p for p in a if p in b]
    if not both:
        return torch.zeros(())
    dtype = reduce(torch.promote_types, (a[p].dtype for p in both), torch.float32)
    products = [(a[p].to(dtype) * b[p].to(dtype)).sum() for p in both]
    return torch.stack([product.to(products[0].device) for product in products]).sum()


@torch.no_grad()
def compared(first: Gradients, second: Gradients) -> dict[str, float]:
    """Return `gradient_change`, `||second - first|| / ||first||`, and the `cosine` between both."""
    zero = {p: torch.zeros_like(grad) for p, grad in {**first, **second}.items()}
    a = [first.get(p, zero[p]) for p in zero]
    b = [second.get(p, zero[p]) for p in zero]
    norm_a, norm_b = float(norm(a)), float(norm(b))
    change = float(norm(torch._foreach_sub(b, a))) / norm_a
    cosine = float(inner(first, second)) / (norm_a * norm_b) if norm_b else math.nan
    return {"gradient_change": change, "cosine": cosine}


def vector(losses: Tensor) -> Tensor:
    """Return the samples' losses, `(N,)`.

    Raises:
        ValueError: if they are no vector.
    """
    if losses.dim() != 1:
        raise ValueError(f"`losses` must return one loss per sample, (N,), received shape {tuple(losses.shape)}.")
    return losses


def calls(model: Callable[..., Any], inputs: Any, present: Tensor | None) -> tuple[Callable[[], Any], nn.Module | None]:
    """Return the forward pass of a model on its inputs, and the model where it is a module."""
    more = () if present is None else (present,)
    return (lambda: model(inputs, *more)), model if isinstance(model, nn.Module) else None
