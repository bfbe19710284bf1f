"""The only door to the training engine (Lightning Fabric): devices, precision, backward."""

import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from msam.types import Batch


class Engine:
    """One process on one device.

    Arguments:
        accelerator: "auto", "cpu", "cuda" or "mps".
        precision: as Fabric names it, "32-true" for instance; "64-true" is done here, since Fabric hands the model's
            output back in single precision.
        threads: CPU threads, 0 for torch's own choice.

    Raises:
        ValueError: if the machine has no such accelerator.
    """

    def __init__(self, accelerator: str = "cpu", precision: str = "32-true", threads: int = 0) -> None:
        from lightning_fabric import Fabric

        if threads:
            torch.set_num_threads(threads)
        within = "32-true" if precision == "64-true" else precision
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._fabric = Fabric(accelerator=accelerator, devices=1, precision=within)  # type: ignore[arg-type]
            except RuntimeError as error:
                raise ValueError(f"`accelerator` must be one of this machine, received {accelerator!r}.") from error
        self.double = precision == "64-true"

    @property
    def device(self) -> torch.device:
        """Where tensors go."""
        return self._fabric.device

    def setup_model(self, model: nn.Module) -> nn.Module:
        """Return the wrapped model, on the device."""
        wrapped = self._fabric.setup_module(model.double() if self.double else model)
        for name in ("encode", "fuse"):  # passes of a part of the model, in the engine's precision too
            if hasattr(model, name):
                wrapped.mark_forward_method(name)
        return wrapped

    def setup_optimizer(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return the wrapped optimizer: its `step` knows the precision's scaler."""
        return self._fabric.setup_optimizers(optimizer)

    def backward(self, loss: Tensor, retain_graph: bool = False) -> None:
        """Run the backward pass of a scalar loss."""
        self._fabric.backward(loss, retain_graph=retain_graph)

    def to_device(self, batch: Batch) -> Batch:
        """Return the batch on the device, in double precision if that is asked for."""
        if self.double:
            inputs = {name: _doubled(value) for name, value in batch.inputs.items()}
            batch = batch._replace(inputs=inputs, target=_doubled(batch.target))
        if self.device.type == "cpu":
            return batch
        moved: Batch = self._fabric.to_device(batch)
        return moved


def _doubled(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def facts() -> dict[str, Any]:
    """Return what a record says of the machine."""
    import platform

    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
