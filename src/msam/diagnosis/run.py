"""The diagnosis of a run of `msam train`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from msam import checks
from msam.data import Split
from msam.data._loaders import batches, in_chunks, shuffled
from msam.diagnosis._diagnose import diagnose
from msam.diagnosis.result import Diagnosis
from msam.train.loop import opened
from msam.types import Batch


class Loader:
    """The batches of a split, of the training's size; in order, or shuffled anew each time.

    Arguments:
        split: whose.
        size: samples per batch.
        columns: of `present`, those of the model's modalities; None: as they are.
        dtype: of floating inputs.
        seed: of the shuffling; None: in order.
    """

    def __init__(
        self, split: Split, size: int, columns: Sequence[int] | None, dtype: torch.dtype, seed: int | None = None
    ) -> None:
        self.split, self.size, self.columns, self.dtype, self.seed = split, size, columns, dtype, seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._order())

    def __iter__(self) -> Iterator[Batch]:
        self._epoch += 1
        return map(self._fitting, batches(self.split, self._order()))

    def _order(self) -> list[list[int]]:
        if self.seed is None:
            return in_chunks(range(len(self.split)), self.size)
        return shuffled(self.split, self.size, seed=self.seed, epoch=self._epoch)

    def _fitting(self, batch: Batch) -> Batch:
        if batch.present is not None and self.columns is not None:
            batch = batch._replace(present=batch.present[:, self.columns])
        if self.dtype == torch.float64:
            batch = batch._replace(
                inputs={k: v.double() if v.is_floating_point() else v for k, v in batch.inputs.items()}
            )
        return batch


def of_run(
    path: str | Path, *, split: Literal["train", "valid", "test"] = "valid", device: str = "cpu", **options: Any
) -> Diagnosis:
    """Return the diagnosis of a run's model, as its checkpoint has it, on a split of its data.

    Probes are fitted on its training data. What is absent of a modality is what the run's configuration says.

    Arguments:
        path: the run's folder, or the checkpoint in it.
        split: what to diagnose on; whoever looks at "test" while choosing has chosen by it.
        device: where.
        options: of `diagnose`.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it is damaged, the data are not those of the run, or as `diagnose` does.
    """
    checks.one_of("split", split, ("train", "valid", "test"))
    config, dataset, network = opened(path)
    network.to(device)
    same = network.modalities == dataset.modalities
    columns = None if same else [dataset.modalities.index(name) for name in network.modalities]
    dtype = next(network.parameters()).dtype
    held, train = getattr(dataset, split), dataset.train
    if not len(held):
        raise ValueError(f"The {split} split of {dataset.name} has no samples.")
    given = {"absent": config.absent, "task": dataset.task, "classes": dataset.classes, **options}
    return diagnose(
        network,
        Loader(held, config.batch_size, columns, dtype),
        train=Loader(train, config.batch_size, columns, dtype, seed=given.get("seed", 0)),
        **{key: value for key, value in given.items() if value is not None},
    )
