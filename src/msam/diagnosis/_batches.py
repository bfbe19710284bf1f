"""What a loader yields, as batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from msam.train.metrics import unsound_input
from msam.types import Batch


def batches(
    loader: Iterable[Any], inputs: Sequence[str], target: str, device: torch.device, name: str = "loader"
) -> Iterator[Batch]:
    """Yield what a loader yields as batches on a device, inputs checked to be finite.

    A loader may yield a `Batch`; a mapping that holds the targets under the key `target`; `(inputs, targets)` or
    `(inputs, targets, present)` with a mapping of inputs; or a tuple of tensors, one for each of `inputs` in that order and
    the targets last.

    Raises:
        ValueError: if it yields nothing, or something else, or an input that is not finite.
        TypeError: if it is not iterable.
    """
    number = 0
    try:
        found = iter(loader)
    except TypeError:
        raise TypeError(f"`{name}` must yield batches, received {type(loader).__name__}.") from None
    for number, item in enumerate(found, start=1):
        try:
            batch = moved(batch_of(item, inputs, target), device)
        except ValueError as error:
            raise ValueError(f"Batch {number} of `{name}`: {error}") from None
        if unsound := unsound_input(_tensors(batch)):
            raise ValueError(f"{unsound} in batch {number} of `{name}`. Clean the data.")
        yield batch
    if not number:
        raise ValueError(
            f"`{name}` yields no batches. An iterator that has been used up yields nothing: give a DataLoader, or a list."
        )


def batch_of(item: Any, inputs: Sequence[str], target: str = "labels") -> Batch:
    """Return one item of a loader as a batch.

    Raises:
        ValueError: if it has none of the forms of `batches`.

    >>> batch_of((torch.zeros(2, 3), torch.ones(2, 4), torch.tensor([0, 1])), ["audio", "image"]).inputs["image"].shape
    torch.Size([2, 4])
    """
    if isinstance(item, Batch):
        return item
    if isinstance(item, Mapping):
        if target not in item:
            raise ValueError(f"No targets under {target!r}; found {sorted(item)}. Say where they are: target='...'.")
        return Batch({key: value for key, value in item.items() if key != target}, item[target])
    if isinstance(item, tuple | list) and item and isinstance(item[0], Mapping) and len(item) in (2, 3):
        return Batch(dict(item[0]), *item[1:])
    if isinstance(item, tuple | list) and all(isinstance(value, Tensor) for value in item):
        if len(item) == len(inputs) + 1:
            return Batch(dict(zip(inputs, item, strict=False)), item[-1])
        shown = f"{len(item)} tensors"
    else:
        kinds = ", ".join(type(value).__name__ for value in item) if isinstance(item, tuple | list) else ""
        shown = f"{type(item).__name__}{f' of ({kinds})' if kinds else ''}"
    raise ValueError(
        f"It must be a Batch, a mapping with the targets under {target!r}, (mapping of inputs, targets), or the "
        f"{len(inputs)} tensors of {list(inputs)} and the targets; found {shown}."
    )


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on a device."""

    def there(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    return Batch({k: there(v) for k, v in batch.inputs.items()}, there(batch.target), there(batch.present))


def samples(batch: Batch, inputs: Sequence[str]) -> int:
    """Return how many samples a batch has.

    Raises:
        ValueError: if an input is missing, is no tensor, or has another number of them.
    """
    missing = [key for key in inputs if key not in batch.inputs]
    if missing:
        raise ValueError(f"Input {missing[0]!r} is missing; found {sorted(batch.inputs)}, expected {list(inputs)}.")
    other = [key for key in inputs if not isinstance(batch.inputs[key], Tensor)]
    if other:
        raise ValueError(
            f"Input {other[0]!r} must be a tensor (B, ...), found {type(batch.inputs[other[0]]).__name__}."
        )
    sizes = {key: len(batch.inputs[key]) for key in inputs}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"All inputs must have the same number of samples, received {sizes}.")
    return next(iter(sizes.values()))


def _tensors(batch: Batch) -> Batch:
    return batch._replace(inputs={k: v for k, v in batch.inputs.items() if isinstance(v, Tensor)})
