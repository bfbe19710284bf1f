"""A monitor beside Hugging Face's Trainer."""

from collections.abc import Mapping
from typing import Any

from transformers import Trainer, TrainerCallback

from msam.monitor._monitor import Monitor


class MonitorCallback(TrainerCallback):
    """Call a monitor after every optimizer step, with the last batch; what it sees goes where the Trainer logs.

        trainer.add_callback(MonitorCallback(trainer, msam.Monitor(msam.adapt(model, ...))))

    Arguments:
        trainer: whose model is heard: what it is called with, by keyword, in training.
        monitor: of that model, adapted.
        target: the keyword of the labels.
    """

    def __init__(self, trainer: Trainer, monitor: Monitor, target: str = "labels") -> None:
        self.trainer, self.monitor, self.target = trainer, monitor, target
        self.batch: Mapping[str, Any] = {}
        assert trainer.model is not None
        trainer.model.register_forward_pre_hook(self._hear, with_kwargs=True)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Look, if a look is due.

        Raises:
            ValueError: if the batch has no labels of that name.
        """
        if self.target not in self.batch:
            raise ValueError(
                f"The model must be called with the labels as keyword {self.target!r}, found {sorted(self.batch)}. "
                "Name theirs as `target`."
            )
        inputs = {name: value for name, value in self.batch.items() if name != self.target}
        seen = self.monitor(inputs, self.batch[self.target])
        if seen is not None:
            self.trainer.log(self.monitor.scalars(seen))

    def _hear(self, module: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        if module.training:
            self.batch = dict(kwargs)
