"""How a model of another make is called, and where its logits are in what it returns."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from msam import checks

Call = Literal["keywords", "mapping", "positional"]
CALLS: tuple[Call, ...] = ("keywords", "mapping", "positional")
FIELDS = ("logits", "logits_per_image")
"""Where Hugging Face's outputs have their logits."""


def way(model: nn.Module, inputs: Sequence[str], call: Call | None) -> Call:
    """Return how a model wants to be called: as told, or as its signature says.

    By keywords where it has parameters of the inputs' names; one mapping where it wants one argument and there are several
    inputs; by position where it wants as many as there are.

    Raises:
        ValueError: if `call` is no such way, or the signature does not say.
    """
    if call is not None:
        checks.one_of("call", call, CALLS)
        return call
    kinds = inspect.Parameter
    parameters = inspect.signature(model.forward).parameters.values()
    plain = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    named = {p.name for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)}
    needed = [p for p in plain if p.default is kinds.empty]
    if set(inputs) <= named:
        return "keywords"
    if len(plain) == 1 and (len(inputs) > 1 or not needed):
        return "mapping"
    if len(needed) <= len(inputs) <= len(plain):
        return "positional"
    if any(p.kind is kinds.VAR_KEYWORD for p in parameters) and not needed:
        return "keywords"
    if len(needed) == 1 < len(inputs):
        return "mapping"
    raise ValueError(
        f"Cannot tell how to call {type(model).__name__}.forward{inspect.signature(model.forward)} with the inputs "
        f"{list(inputs)}. Say call='keywords', 'mapping' or 'positional'."
    )


def called(model: nn.Module, given: Mapping[str, Any], call: Call, inputs: Sequence[str]) -> Any:
    """Return what a model returns; by position it gets the inputs of its modalities and nothing else."""
    if call == "keywords":
        return model(**given)
    return model(dict(given)) if call == "mapping" else model(*(given[key] for key in inputs))


def logits_of(returned: Any, field: str | None = None) -> Tensor:
    """Return the logits `(N, C)` in what a model returns; `(N,)` is one output.

    Raises:
        ValueError: if they cannot be found, or have not one or two dimensions.

    >>> import torch
    >>> logits_of((torch.zeros(4, 3), "more")).shape
    torch.Size([4, 3])
    >>> logits_of(torch.zeros(4)).shape
    torch.Size([4, 1])
    """
    found = _found(returned, field)
    if isinstance(found, Tensor) and found.dim() == 1:
        found = found.unsqueeze(1)
    if not isinstance(found, Tensor) or found.dim() != 2:
        shown = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else _shown(returned)
        where = f"in the field {field!r}" if field else "in what the model returns"
        raise ValueError(
            f"Logits (N, C) must be {where}, found {shown}. Say which field holds them: adapt(..., logits='...')."
        )
    return found


def _found(returned: Any, field: str | None) -> Any:
    wanted = FIELDS if field is None else (field,)
    for name in wanted:
        value = returned.get(name) if isinstance(returned, Mapping) else getattr(returned, name, None)
        if value is not None:
            return value
    if field is not None or isinstance(returned, Mapping):
        return None
    if isinstance(returned, tuple | list):
        return next((value for value in returned if isinstance(value, Tensor)), None)
    return returned


def _shown(returned: Any) -> str:
    kind = type(returned).__name__
    return f"{kind} with {sorted(returned)}" if isinstance(returned, Mapping) else kind
