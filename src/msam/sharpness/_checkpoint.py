"""A checkpoint meets an optimizer: whether both have the same groups, and what a plain one does not say."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

OURS = ("rho", "role", "modality")
"""Keys of a group that rules read; a checkpoint of a plain optimizer lacks them and leaves them as they are."""


def fitted(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Return the checkpoint with the group keys that it lacks and a rule reads.

    Roles and modalities count where both sides tell them: groups of equal sizes in another order would swap momenta.

    Raises:
        ValueError: if it is of another grouping.

    >>> sgd = torch.optim.SGD([{"params": [torch.zeros(1)], "rho": 0.2}, {"params": [torch.zeros(1)]}], lr=0.1)
    >>> fitted(sgd, {"state": {}, "param_groups": [{"params": [0]}, {"params": [1]}]})["param_groups"]
    [{'rho': 0.2, 'params': [0]}, {'params': [1]}]
    >>> fitted(sgd, {"state": {}, "param_groups": [{"params": [0, 1]}]})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: The checkpoint has parameter groups [2 parameters], the optimizer has [1 parameter, 1 parameter]. ...
    """
    saved, groups = state_dict["param_groups"], optimizer.param_groups
    if not _alike(saved, groups):
        raise ValueError(
            f"The checkpoint has parameter groups {_layout(saved)}, the optimizer has {_layout(groups)}. Group the "
            "parameters as they were when it was saved; a hook that regroups it must be registered with prepend=True."
        )
    ours = [{key: group[key] for key in OURS if key in group} for group in groups]
    return {**state_dict, "param_groups": [{**kept, **group} for kept, group in zip(ours, saved, strict=True)]}


def _alike(saved: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]) -> bool:
    return len(saved) == len(groups) and all(
        len(a["params"]) == len(b["params"])
        and all(a[key] == b[key] for key in ("role", "modality") if key in a and key in b)
        for a, b in zip(saved, groups, strict=True)
    )


def _layout(groups: Sequence[Mapping[str, Any]]) -> str:
    return f"[{', '.join(map(_described, groups))}]"


def _described(group: Mapping[str, Any]) -> str:
    whose = " ".join(str(group[key]) for key in ("role", "modality") if group.get(key) is not None)
    count = len(group["params"])
    return f"{whose}{': ' if whose else ''}{count} parameter{'' if count == 1 else 's'}"
