"""What a climb does to lists of tensors: their length, a step along them, the blend of two gradients."""

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn

Gradients = dict[nn.Parameter, Tensor]
CLONE = getattr(torch, "_foreach_clone", None)  # younger than the oldest torch we work with
PLAIN = {Tensor, nn.Parameter}  # known without asking: a question costs as much as the arithmetic on a small tensor
IS_VIEW = operator.methodcaller("_is_view")


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the L2 norm of all tensors together, in float32 at least; a scalar on the first one's device.

    Of sharded tensors (FSDP2's) it is that of the whole ones, summed over ranks.
    """
    tensors = list(tensors)
    dtype = reduce(torch.promote_types, {t.dtype for t in tensors} - {torch.float32}, torch.float32)
    totals = []
    for together in _by_mesh(tensors):
        norms = torch._foreach_norm(together, 2, dtype)
        if len({n.device for n in norms}) > 1:
            norms = tuple(n.to(norms[0].device) for n in norms)
        totals.append(whole(torch.linalg.vector_norm(torch.stack(norms))))
    return totals[0] if len(totals) == 1 else torch.linalg.vector_norm(torch.stack(totals))


def sharded(tensor: Tensor) -> bool:
    """Tell whether a tensor is a DTensor; by what it can do, as importing their module takes longer than all of msam."""
    return hasattr(tensor, "to_local")


def plain(tensors: Iterable[Tensor]) -> bool:
    """Tell whether all are tensors of torch's own kinds, so that none is sharded."""
    return set(map(type, tensors)) <= PLAIN


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor, sharing its memory; any other as it is."""
    shard: Any = tensor
    return shard.to_local() if sharded(tensor) else tensor


def locals_of(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return this rank's part of each, see `local`."""
    tensors = list(tensors)
    return tensors if plain(tensors) else list(map(local, tensors))


def whole(tensor: Tensor) -> Tensor:
    """Return a sharded tensor put together from all ranks, which all must ask for it; any other as it is."""
    shard: Any = tensor
    return shard.full_tensor() if sharded(tensor) else tensor


def _by_mesh(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Return the tensors in groups that one operation may take: plain ones, and those sharded over the same ranks."""
    groups: dict[Any, list[Tensor]] = {}
    if tensors and plain(tensors):
        return [tensors]
    for tensor in tensors:
        groups.setdefault(getattr(tensor, "device_mesh", None), []).append(tensor)
    return list(groups.values())


def blended(first: Gradients, second: Gradients, share: float) -> Gradients:
    """Return `(1 - share) * first + share * second`; a missing gradient counts as 0. Overwrites the tensors of `second`.

    To be called where no graph is made.
    """
    if len(first) == len(second) and all(map(operator.is_, first, second)):  # no questions to a dict of parameters
        if share < 1:
            torch._foreach_lerp_(locals_of(second.values()), locals_of(first.values()), 1 - share)
        return second
    both = [p for p in second if p in first]
    if both and share < 1:
        torch._foreach_lerp_(locals_of(second[p] for p in both), locals_of(first[p] for p in both), 1 - share)
    alone = {p: grad * share for p, grad in second.items() if p not in first}
    unused = {p: grad * (1 - share) for p, grad in first.items() if p not in second}
    return {**second, **alone, **unused}


def kept(made: Gradients) -> Gradients:
    """Return the gradients, with copies of those that are views (into DDP's buckets), which the second pass overwrites."""
    if not any(map(IS_VIEW, made.values())):
        return dict(made)
    with torch.no_grad():
        return {p: grad.clone() if grad._is_view() else grad for p, grad in made.items()}


Steps = dict[float, tuple[list[nn.Parameter], list[Tensor]]]
"""Radius -> parameters that move by it, and their vectors."""


def steps(vectors: Gradients, radii: Mapping[nn.Parameter, float]) -> Steps:
    """Return who moves how far; usually all by the same radius."""
    known = set(radii.values()) if vectors else ()
    if len(known) == 1:
        return dict.fromkeys(known, (list(vectors), list(vectors.values())))
    found: Steps = {}
    for p, vector in vectors.items():
        movers, along = found.setdefault(radii[p], ([], []))
        movers.append(p)
        along.append(vector)
    return found


@contextmanager
def displaced(moves: Steps, norm: float, *, exact: bool = True) -> Iterator[float]:
    """Stand at `theta + radius / norm * vector` inside the block, and yield the largest radius; come back however it ends.

    From copies of theta, bit for bit; or, not exact, by subtracting the step again, to rounding and without the copies.
    It empties `moves`: vectors that are not the gradients themselves are a copy of the parameters less during the second
    pass, once exact climbing no longer needs them.
    """
    back: list[Callable[[], object]] = []
    largest = max(moves, default=0.0)
    try:
        with torch.no_grad():
            for radius in list(moves):
                movers, along = moves.pop(radius)
                here, added, length = locals_of(movers), locals_of(along), radius / norm
                if exact:
                    back.append(partial(torch._foreach_copy_, here, copied(here)))
                torch._foreach_add_(here, added, alpha=length)
                if not exact:
                    back.append(partial(torch._foreach_sub_, here, added, alpha=length))
                del along, added
        yield largest
    finally:
        with torch.no_grad():
            for returned in reversed(back):
                returned()


def copied(tensors: list[Tensor]) -> list[Tensor]:
    """Return copies of tensors, in one call where torch has one for it. To be called where no graph is made."""
    return list(CLONE(tensors)) if CLONE else [tensor.clone() for tensor in tensors]


@torch.no_grad()
def inner(a: Gradients, b: Gradients) -> Tensor:
    """Return the inner product of two sets of gradients, in float32 at least; one that is missing counts as 0."""
    both = [p for p in a if p in b]
    if not both:
        return torch.zeros(())
    dtype = reduce(torch.promote_types, (a[p].dtype for p in both), torch.float32)
    products = _by_mesh([(a[p].to(dtype) * b[p].to(dtype)).sum() for p in both])
    device = products[0][0].device
    totals = [whole(torch.stack([product.to(device) for product in together]).sum()) for together in products]
    return totals[0] if len(totals) == 1 else torch.stack(totals).sum()


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
