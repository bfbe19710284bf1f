"""Whose a parameter is: its role and its modality, bound by identity when a rule is made."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn


class Roles(NamedTuple):
    """The roles of a model's parameters.

    Attributes:
        modalities: names of the modalities, in order.
        of: parameter -> its role ("encoder", "head", "fusion") and modality (None where it sees several).
    """

    modalities: tuple[str, ...]
    of: Mapping[nn.Parameter, tuple[str, str | None]]

    @property
    def encoders(self) -> bool:
        """Whether any parameter is an encoder's: of a model whose encoders nobody has named none is."""
        return any(role == "encoder" for role, _ in self.of.values())

    def members(self, modality: str, *, fusion: bool) -> set[nn.Parameter]:
        """Return the parameters of a modality's encoder; with `fusion`, those of its heads and of the fusion too."""
        wanted = {("encoder", modality)} | ({("head", modality), ("fusion", None)} if fusion else set())
        return {p for p, found in self.of.items() if found in wanted}


def roles(optimizer: torch.optim.Optimizer, model: nn.Module | None) -> Roles | None:
    """Return the roles as `model.parameter_groups()` tells them, else as the optimizer's groups do, else None."""
    told: Any = getattr(model, "parameter_groups", None)
    groups: Iterable[Mapping[str, Any]] = told() if callable(told) else optimizer.param_groups
    of = {p: (group["role"], group.get("modality")) for group in groups if "role" in group for p in group["params"]}
    if not of:
        return None
    named = getattr(model, "modalities", None) or [m for role, m in of.values() if role == "encoder" and m is not None]
    return Roles(tuple(dict.fromkeys(named)), of)
