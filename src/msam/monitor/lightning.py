"""A monitor as a hook of Lightning's, whichever of its two packages is installed."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from msam.monitor._monitor import Monitor

Unpack = Callable[[Any], tuple[Mapping[str, Tensor], Tensor]]


def lightning_hook(monitor: Monitor, unpack: Unpack | None = None) -> Callable[..., None]:
    """Return the hook that calls a monitor after every batch and writes what it sees to the trainer's loggers.

        callback = pl.callbacks.LambdaCallback(on_train_batch_end=lightning_hook(monitor))
        pl.Trainer(callbacks=[callback])

    Arguments:
        monitor: of the module's model.
        unpack: batch -> inputs and target; None: the first two of the batch, as of `(inputs, target)` or `msam.Batch`.

    Raises:
        ValueError: when a batch comes of which it is not said what is its target.
    """

    def on_train_batch_end(trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        inputs, target = (unpack or _first_two)(batch)
        seen = monitor(inputs, target)
        if seen is not None:
            for logger in trainer.loggers:
                logger.log_metrics(monitor.scalars(seen), step=trainer.global_step)

    return on_train_batch_end


def _first_two(batch: Any) -> tuple[Mapping[str, Tensor], Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        shown = f"a mapping with {sorted(batch)}" if isinstance(batch, Mapping) else type(batch).__name__
        raise ValueError(
            f"A batch must begin with inputs and target, received {shown}. Say what they are: lightning_hook(monitor, "
            "unpack=lambda batch: (inputs, target))."
        )
    return batch[0], batch[1]
