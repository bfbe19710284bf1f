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
    """

    def on_train_batch_end(trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        inputs, target = unpack(batch) if unpack is not None else (batch[0], batch[1])
        seen = monitor(inputs, target)
        if seen is not None:
            for logger in trainer.loggers:
                logger.log_metrics(monitor.scalars(seen), step=trainer.global_step)

    return on_train_batch_end
