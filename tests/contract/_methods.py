"""Methods as they are found in the folder, with the settings in which they are defined."""

from typing import Any

import pytest
import torch

from msam import methods
from msam.methods import Method
from msam.models import MultimodalModel
from tests.methods._toys import EARLY, FOUR, LATE

METHODS = methods.names()
COUNTS = (2, 3, 4)
Names = tuple[str, ...]


def admits(name: str, fusion: str, count: int) -> bool:
    about = methods.load(name).about
    beyond = (fusion in EARLY and not about.early) or (about.most is not None and count > about.most)
    return not beyond or bool(about.extension)


ADMITTED = [
    (name, fusion, FOUR[:count])
    for name in METHODS
    for fusion in (*LATE, *EARLY)
    for count in COUNTS
    if admits(name, fusion, count)
]
"""Every method with every fusion and number of modalities it is defined for, its marked extensions included."""

every_method = pytest.mark.parametrize("name", METHODS)
every_setting = pytest.mark.parametrize(
    ("name", "fusion", "names"), ADMITTED, ids=[f"{n}-{f}-{len(m)}" for n, f, m in ADMITTED]
)


def admitted(name: str, fusion: str, names: Names, **settings: Any) -> Method:
    """Return the method as it is defined there: with its extension where only that is."""
    kind = methods.load(name)
    beyond = (fusion in EARLY and not kind.about.early) or (
        kind.about.most is not None and len(names) > kind.about.most
    )
    return kind(**{**(kind.about.extension if beyond else {}), **settings})


def remembered(value: Any) -> Any:
    """Return a method's state as plain values that can be compared."""
    if hasattr(value, "state_dict"):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), value.tolist())
    if isinstance(value, dict):
        return {key: remembered(v) for key, v in value.items()}
    return [remembered(v) for v in value] if isinstance(value, list | tuple) else value


def reordered(first: MultimodalModel, second: MultimodalModel) -> dict[str, torch.Tensor]:
    """Return the weights of `first` as `second` holds them: by name, the columns of a concatenation in its order."""
    state = {key: value.clone() for key, value in first.state_dict().items()}
    if "fusion.linear.weight" in state:
        slices = dict(
            zip(first.modalities, state["fusion.linear.weight"].split(list(first.fusion.dims.values()), 1), strict=True)
        )
        state["fusion.linear.weight"] = torch.cat([slices[name] for name in second.modalities], 1)
    return state
