"""Rules as they are found in the folder, and a small problem for them."""

import inspect

import torch
from torch import nn

from msam import sharpness
from msam.sharpness import Sharpness

RULES = [name for name in sharpness.names() if sharpness.load(name).by_block]
"""Rules that a `perturbed()` block serves; the others state their own form of these laws in tests/sharpness."""
WITH_SHARE = [name for name in RULES if sharpness.load(name).uses_contributions]
SHARES = torch.tensor([0.25, 0.75], dtype=torch.float64)
ALL_TO_ONE = torch.tensor([0.0, 1.0], dtype=torch.float64)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()


def data(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 4, generator=generator, dtype=torch.float64), torch.arange(size) % 3


def loss_of(model: nn.Module, rows: slice = slice(None)) -> torch.Tensor:
    x, y = data()
    return nn.functional.cross_entropy(model(x[rows]), y[rows])


def rule_for(name: str, model: nn.Module, rho: float = 0.5, **optimizer) -> Sharpness:
    sgd = torch.optim.SGD(model.parameters(), **{"lr": 0.1, **optimizer})
    return made(name, sgd, rho, model=model)


def made(name: str, optimizer: torch.optim.Optimizer, rho: float, **options) -> Sharpness:
    """Return the rule as it climbs at every step."""
    kind = sharpness.load(name)
    at_every_step = {"every": 1} if "every" in inspect.signature(kind).parameters else {}
    return kind(optimizer, rho, **at_every_step, **options)


def gradients(model: nn.Module) -> list[torch.Tensor | None]:
    return [p.grad for p in model.parameters()]


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def name_of(rule: Sharpness) -> str:
    return type(rule).__module__.rpartition(".")[2]


def after_first_pass(name: str, **options) -> Sharpness:
    """Return a rule whose model has just made its first gradient."""
    model = network()
    rule = rule_for(name, model, **options)
    loss_of(model).backward()
    return rule


def spent(rule: Sharpness, first: list[torch.Tensor], second: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return what the rule makes of both gradients, all of them there."""
    parameters = list(rule.model.parameters())
    both = [dict(zip(parameters, [g.clone() for g in given], strict=True)) for given in (first, second)]
    combined = rule.combined(*both, rule.last["share"])
    return [combined[p] for p in parameters]
