"""What a record says of a run before it begins."""

import hashlib
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

import msam
from msam.data import Dataset
from msam.models import MultimodalModel
from msam.train.config import RunConfig
from msam.train.engine import facts


def header(config: RunConfig, dataset: Dataset, network: MultimodalModel, lanes: int = 1) -> dict[str, Any]:
    """Return the fields of the header line; `lanes` says how many runs are trained side by side."""
    splits = {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}
    return {
        "format": 1,
        "run": config.run_name(),
        "config": config.model_dump(),
        "modalities": list(network.modalities),
        "task": dataset.task,
        "num_classes": dataset.num_classes,
        "classes": list(dataset.classes),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "sizes": {name: len(split) for name, split in splits.items()},
            "shapes": {name: list(shape) for name, shape in dataset.shapes.items()},
            "encoders": {**dataset.encoders, **config.encoders},
            "facts": dict(dataset.facts),
        },
        "parameters": sum(p.numel() for p in network.parameters()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "msam": msam.__version__},
        "commit": _commit(),
        "host": {**facts(), **({"lanes": lanes} if lanes > 1 else {})},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def weights_digest(model: nn.Module) -> str:
    """Return the sha256 of all weights and buffers: equal digests, equal models, bit for bit."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _commit() -> str | None:
    """Return the commit of the checkout msam is imported from, or None for an installed package."""
    source = Path(msam.__file__).parent
    try:
        asked = subprocess.run(
            ["git", "-C", source, "rev-parse", "--show-toplevel", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = asked.stdout.split()
    return lines[1] if asked.returncode == 0 and source.is_relative_to(Path(lines[0]) / "src") else None
