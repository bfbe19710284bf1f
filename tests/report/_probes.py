"""Probe lines as a run writes them, without training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def with_probes(path: Path, *probes: dict[str, Any]) -> Path:
    """Put probe lines into a record, before its end."""
    lines = path.read_text().splitlines()
    added = [json.dumps({"kind": "probe", "samples": 512, "dtype": "float32", "seconds": 0.1, **p}) for p in probes]
    path.write_text("\n".join([*lines[:-1], *added, lines[-1]]) + "\n")
    return path


def gradients(
    epoch: int, norms: dict[str, float], cosine: float | None, *, shared: bool = True, scale: float = 2.0
) -> dict[str, Any]:
    """A line of the `gradients` probe; what is measured on the encoders is `scale` times what is on the shared weights."""
    names = list(norms)
    meet = {
        "of": "fusion",
        "parameters": 1234,
        "joint": sum(norms.values()),
        "cosines": [{"modalities": names[:2], "cosine": cosine}],
    }
    return {
        "probe": "gradients",
        "epoch": epoch,
        "step": 8 * epoch,
        "loss": 1.0,
        "logits": "shapley",
        "shared": meet if shared else None,
        "modalities": {
            name: {
                "loss": 1.0,
                "shared": norm if shared else None,
                "encoder": scale * norm,
                "joint": norm / 2,
                "cosine": 0.5,
            }
            for name, norm in norms.items()
        },
    }


def curvature(eigenvalues: Sequence[float | None], rise: float, **alone: float) -> dict[str, Any]:
    """A line of the `curvature` probe, at radius 0.05 and at one of the rule's own that no figure may show."""
    return {
        "probe": "curvature",
        "epoch": 1,
        "step": 8,
        "loss": 0.1,
        "eigenvalues": list(eigenvalues),
        "products": 21,
        "logits": "split",
        "sharpness": [
            {"rho": 0.3, "joint": 99.0, "modalities": dict.fromkeys(alone, 99.0)},
            {"rho": 0.05, "joint": rise, "modalities": alone},
        ],
    }


def landscape(losses: Sequence[Sequence[float | None]], seed: int = 0) -> dict[str, Any]:
    """A line of the `landscape` probe over [-1, 1]."""
    n = len(losses)
    axis = [-1 + 2 * i / (n - 1) for i in range(n)]
    return {
        "probe": "landscape",
        "epoch": 1,
        "step": 8,
        "loss": losses[n // 2][n // 2],
        "seed": seed,
        "axis": axis,
        "losses": [list(row) for row in losses],
    }
