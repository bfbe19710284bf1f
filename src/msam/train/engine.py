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
        precision: as Fabric names it, "32-true" for instance.
        threads: CPU threads, 0 for torch's own choice.
    """

    def __init__(self, accelerator: str = "cpu", precision: str = "32-true", threads: int = 0) -> None:
        from lightning_fabric import Fabric

        if threads:
            torch.set_num_threads(threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)  # type: ignore[arg-type]
        self.backwards = 0

    @property
    def device(self) -> torch.device:
        """Where tensors go."""
        return self._fabric.device

    def setup_model(self, model: nn.Module) -> nn.Module:
        """Return the wrapped model, on the device."""
        return self._fabric.setup_module(model)

    def setup_optimizer(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return the wrapped optimizer: its `step` knows the precision's scaler."""
        return self._fabric.setup_optimizers(optimizer)

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass of a scalar loss."""
        self.backwards += 1
        self._fabric.backward(loss)

    def to_device(self, batch: Batch) -> Batch:
        """Return the batch on the device."""
        if self.device.type == "cpu":
            return batch
        moved: Batch = self._fabric.to_device(batch)
        return moved


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
