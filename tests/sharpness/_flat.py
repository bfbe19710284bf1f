"""A small problem, and its gradient as a function of one flat vector."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1e-2),
}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batch(t: int, size: int = 12) -> tuple[Tensor, Tensor]:
    """Return a batch of its own for every step."""
    generator = torch.Generator().manual_seed(t)
    return torch.randn(size, 4, generator=generator, dtype=torch.float64), torch.randint(
        3, (size,), generator=generator
    )


def losses(logits: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, target, reduction="none")


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def spent(model: nn.Module) -> Tensor:
    """Return the gradient that is there, one that is missing as zeros."""
    return torch.cat(
        [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()]
    )


def gradient_of(model: nn.Module, loss: Callable[[Callable], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the gradient of `loss(forward)` as a function of the flat weights; the model stays where it is."""
    shapes = {name: p.shape for name, p in model.named_parameters()}

    def gradient(theta: Tensor) -> Tensor:
        leaf = theta.detach().clone().requires_grad_()
        parts = leaf.split([shape.numel() for shape in shapes.values()])
        weights = {name: part.view(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}
        (found,) = torch.autograd.grad(loss(lambda *x: functional_call(model, weights, x)), leaf)
        return found

    return gradient


def mean_gradient(model: nn.Module, t: int) -> Callable[[Tensor], Tensor]:
    x, y = batch(t)
    return gradient_of(model, lambda forward: losses(forward(x), y).mean())


def close(a: Tensor, b: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)
