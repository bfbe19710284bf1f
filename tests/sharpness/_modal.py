"""Models of several modalities, in float64, for M-SAM's options."""

import torch
from torch import Tensor, nn

import msam
from msam.models import ConcatFusion, MaxoutFusion, SumFusion

NAMES = ("audio", "image", "text")
FUSIONS = {
    "sum": lambda dims: SumFusion(dims, 4),
    "concat": lambda dims: ConcatFusion(dims, 4),
    "maxout": lambda dims: MaxoutFusion(dims, 4, (8,), 0.0, False),
    "normalised maxout": lambda dims: MaxoutFusion(dims, 4, (8,), 0.0, True),
    "dropping maxout": lambda dims: MaxoutFusion(dims, 4, (8,), 0.5, True),
}
OWN = {"sum": "fusion.linear.{}."}
SHARES = {2: [0.3, 0.7], 3: [0.2, 0.5, 0.3]}


def model_of(fusion: str, modalities: int = 2, *, norm: bool = True, dropout: float = 0.0) -> msam.MultimodalModel:
    torch.manual_seed(0)
    names = NAMES[:modalities]

    def encoder() -> nn.Module:
        layers = [nn.Linear(5, 6), *([nn.BatchNorm1d(6)] if norm else []), nn.Tanh()]
        return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))

    return msam.MultimodalModel({n: encoder() for n in names}, FUSIONS[fusion](dict.fromkeys(names, 6))).double()


def batch(t: int = 0, size: int = 10) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(t)
    x = {n: torch.randn(size, 5, generator=generator, dtype=torch.float64) for n in NAMES}
    return x, torch.randint(4, (size,), generator=generator)


def losses(output: msam.Output, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output.logits, y, reduction="none")


def members(model: msam.MultimodalModel, fusion: str, scope: str, modality: str) -> Tensor:
    """Return which entries of the flat weights climb, told from their names."""
    beginnings = [f"encoders.{modality}."]
    if scope == "dominant+fusion":
        beginnings.append(OWN.get(fusion, "fusion.").format(modality))
    told = [
        torch.full((p.numel(),), scope == "all" or name.startswith(tuple(beginnings)))
        for name, p in model.named_parameters()
    ]
    return torch.cat(told)


def rule_of(model: nn.Module, rho: float = 0.4, **options) -> msam.MSAM:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    return msam.MSAM(optimizer, rho, **{"model": model, **options})


def by_block(rule: msam.MSAM, shares, t: int = 0, present: Tensor | None = None, loss=losses) -> None:
    """Leave the combined gradient in `.grad`, both passes by hand."""
    x, y = batch(t)
    rule.optimizer.zero_grad()
    with rule.replayable():
        loss(rule.model(x, present), y).mean().backward()
        with rule.perturbed(shares) as climbing:
            if climbing:
                loss(rule.model(x, present), y).mean().backward()


def in_one_call(rule: msam.MSAM, shares, t: int = 0, present: Tensor | None = None, loss=losses) -> msam.Output:
    x, y = batch(t)
    return rule.backward(rule.model, x, lambda output: loss(output, y), shares, present=present)
