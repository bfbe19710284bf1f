"""The form every dataset takes, and the order in which its samples come."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from msam import tasks
from msam.types import Batch

AHEAD = 2
"""Batches that are read before they are asked for."""


class Split(Protocol):
    """One part of a dataset: indexed by a list of sample numbers, it gives a batch."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: Sequence[int]) -> Batch:
        """Return the samples `index` as one batch."""
        ...


@dataclass(frozen=True)
class TensorSplit:
    """A split that lies in memory.

    Attributes:
        inputs: modality -> `(n, ...)`.
        target: `(n,)` or `(n, K)`.
    """

    inputs: dict[str, Tensor]
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: Sequence[int]) -> Batch:
        together = isinstance(index, range) and index.step == 1
        rows = slice(index[0], index[-1] + 1) if together and len(index) else torch.as_tensor(index)
        return Batch({name: value[rows] for name, value in self.inputs.items()}, self.target[rows])


@dataclass(frozen=True)
class Dataset:
    """A dataset ready to train on.

    Attributes:
        name: its registry name.
        train: what is trained on.
        valid: held out of train; every choice is made on it.
        test: read by the report alone.
        num_classes: number of classes, of labels, or of the numbers of a regression: the model's outputs.
        shapes: modality -> shape of one sample's input; its order is the order of modalities.
        encoders: modality -> name of the encoder in `msam.models.encoders` that suits it.
        fingerprint: sha256 of the content, which goes into every run's record.
        classes: names of the classes or labels, or empty.
        facts: what else is known, e.g. exact Bayes accuracies.
        task: what targets are: "single-label" classes `(N,)`, "multi-label" `(N, K)` of 0 and 1, or a "regression", floats.
    """

    name: str
    train: Split
    valid: Split
    test: Split
    num_classes: int
    shapes: Mapping[str, tuple[int, ...]]
    encoders: Mapping[str, str]
    fingerprint: str
    classes: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
    task: tasks.Name = "single-label"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self.shapes)


def fingerprint(*splits: TensorSplit) -> str:
    """Return the sha256 of the content of in-memory splits: names, shapes, types and bytes."""
    digest = hashlib.sha256()
    for split in splits:
        for name, value in [*split.inputs.items(), ("target", split.target)]:
            digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def shuffled(
    split: Split, batch_size: int, *, seed: int, epoch: int, part: tuple[float, float] = (0.0, 1.0)
) -> list[list[int]]:
    """Return the batches of one training epoch as lists of sample numbers.

    The order depends on `(seed, epoch)` alone, so that a resumed run finds it again. A last batch of one sample
    joins the batch before it: batch statistics of one sample do not exist.

    Arguments:
        split: whose samples.
        batch_size: samples per batch.
        seed: of the order, and of which samples belong to a part.
        epoch: number of the epoch.
        part: which samples, as `part_of` counts them.

    >>> shuffled(TensorSplit({}, torch.zeros(5)), 2, seed=0, epoch=1)[-1].__len__()
    3
    """
    order = _permuted(len(split), seed * 1_000_003 + epoch)
    if part != (0.0, 1.0):
        members = set(part_of(len(split), *part, seed=seed))
        order = [sample for sample in order if sample in members]
    return in_chunks(order, batch_size)


def part_of(size: int, start: float, stop: float, *, seed: int) -> list[int]:
    """Return the samples whose place in one fixed random order lies between two fractions; the same in every epoch.

    Raises:
        ValueError: if it is not `0 <= start < stop <= 1`, or no sample lies there.

    >>> sorted(part_of(4, 0, 0.5, seed=0) + part_of(4, 0.5, 1, seed=0))
    [0, 1, 2, 3]
    """
    if not 0 <= start < stop <= 1:
        raise ValueError(f"A part must lie within 0 <= start < stop <= 1, received {start} to {stop}.")
    members = _permuted(size, -1 - seed)[round(start * size) : round(stop * size)]
    if not members:
        raise ValueError(f"The part {start} to {stop} of {size} training samples holds none. Take a larger part.")
    return members


def in_chunks(order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut `order` into batches; a last batch of one sample joins the one before it.

    >>> in_chunks([0, 1, 2, 3, 4], 2)
    [[0, 1], [2, 3, 4]]
    """
    chunks = [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    if len(chunks) > 1 and len(chunks[-1]) == 1 < batch_size:
        chunks[-2:] = [chunks[-2] + chunks[-1]]
    return chunks


def in_epoch(split: Split, *, seed: int, epoch: int) -> Split:
    """Return the split as training sees it in one epoch.

    A split whose samples are drawn anew in every epoch (a random crop, say) has a method `in_epoch(seed, epoch)`, and what
    it draws depends on `(seed, epoch, sample)` alone, so that a resumed run finds it again. Measures are taken on the
    split itself.
    """
    drawn = getattr(split, "in_epoch", None)
    return drawn(seed, epoch) if drawn else split


def batches(split: Split, order: Iterable[Sequence[int]]) -> Iterator[Batch]:
    """Yield the batches of `split` in the given order.

    Those of a split that says `reads_ahead = True`, because it reads from disk, are made by a second thread, two ahead.
    """
    if not getattr(split, "reads_ahead", False):
        yield from (split[index] for index in order)
        return
    reader = ThreadPoolExecutor(1, thread_name_prefix="msam-batches")
    coming: deque[Future[Batch]] = deque()
    try:
        for index in order:
            coming.append(reader.submit(split.__getitem__, index))
            if len(coming) > AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        reader.shutdown(wait=True, cancel_futures=True)


def _permuted(size: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(size, generator=torch.Generator().manual_seed(seed % 2**63)).tolist()
    return order
