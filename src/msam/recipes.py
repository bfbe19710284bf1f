"""Runs that belong together, as functions that return their configurations."""

from typing import Any

from msam.train import RunConfig, config

ROWS: dict[str, dict[str, Any]] = {
    "joint": {"method": "joint", "optimizer": {"lr": 0.05}},
    "sam": {"method": "joint", "optimizer": {"lr": 0.05}, "sharpness": {"name": "sam", "rho": 0.2}},
    "msam": {"method": "joint", "optimizer": {"lr": 0.05}, "sharpness": {"name": "msam", "rho": 0.3}},
    "audio": {"method": {"name": "unimodal", "modality": "audio"}},
    "image": {"method": {"name": "unimodal", "modality": "image"}},
}
"""Rows of the AV-digits table (late fusion); learning rate and rho are each row's own, chosen on validation."""


def demo(seeds: int) -> list[RunConfig]:
    """Return Joint, SAM, M-SAM and both unimodal nets on AV-digits, late fusion, seeds 0 .. seeds - 1."""
    return [config(ROWS[row], seed=seed) for seed in range(seeds) for row in ROWS]
