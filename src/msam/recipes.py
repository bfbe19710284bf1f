"""Runs that belong together, as functions that return their configurations."""

from itertools import product
from typing import Any

from msam.train import RunConfig, config

SETTINGS: dict[str, dict[str, Any]] = {
    "joint": {"optimizer": {"lr": 0.3}},
    "sam": {"optimizer": {"lr": 0.2}, "sharpness": {"name": "sam", "rho": 0.2}},
    "msam": {"optimizer": {"lr": 0.2}, "sharpness": {"name": "msam", "rho": 0.2}},
}
"""What tuning on AV-digits, late fusion, chose for each row on validation (`trials`, `benchmarks/avdigits_late.py`)."""

UNIMODAL: dict[str, dict[str, Any]] = {
    name: {**SETTINGS["joint"], "method": {"name": "unimodal", "modality": name}} for name in ("audio", "image")
}

UNTUNED: dict[str, dict[str, Any]] = {
    "joint": {"optimizer": {"lr": 0.05}},
    "sam": {"optimizer": {"lr": 0.05}, "sharpness": {"name": "sam", "rho": 0.2}},
    "msam": {"optimizer": {"lr": 0.05}, "sharpness": {"name": "msam", "rho": 0.3}},
}
"""The same rows at the default learning rate, one for all, with radii that were not tuned."""

LEARNING_RATES = (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
FEW_LEARNING_RATES = (0.05, 0.1, 0.2)
RADII = (0.1, 0.2, 0.4)


def demo(seeds: int) -> list[RunConfig]:
    """Return Joint, SAM, M-SAM and both unimodal nets on AV-digits, late fusion, seeds 0 .. seeds - 1."""
    rows = [*SETTINGS.values(), *UNIMODAL.values()]
    return [config(row, seed=seed, record_every=2, threads=1) for seed in range(seeds) for row in rows]


def comparison(seeds: int) -> list[RunConfig]:
    """Return the AV-digits comparison, late fusion: the rows of the demo, the same untuned, and controls.

    Controls: per-modality losses added, the base optimizer with twice the epochs, SAM at the radius that M-SAM has to
    first order (0.75 of its own, about the mean share).
    """
    joint, msam = SETTINGS["joint"], SETTINGS["msam"]
    controls: list[dict[str, Any]] = [
        {**joint, "method": "uniform"},
        {**joint, "epochs": 40},
        {
            "optimizer": msam["optimizer"],
            "sharpness": {"name": "sam", "rho": round(0.75 * msam["sharpness"]["rho"], 3)},
        },
    ]
    rows = [*SETTINGS.values(), *UNIMODAL.values(), *controls, *UNTUNED.values()]
    return [config(row, seed=seed, record_every=8, threads=1) for seed in range(seeds) for row in rows]


def trials() -> dict[str, list[RunConfig]]:
    """Return the tuning trials of each row, 9 settings each on the same two seeds, which the comparison does not use."""
    pairs = list(product(FEW_LEARNING_RATES, RADII))
    spaces: dict[str, list[dict[str, Any]]] = {
        "joint": [{"optimizer": {"lr": lr}} for lr in LEARNING_RATES],
        "sam": [{"optimizer": {"lr": lr}, "sharpness": {"name": "sam", "rho": rho}} for lr, rho in pairs],
        "msam": [{"optimizer": {"lr": lr}, "sharpness": {"name": "msam", "rho": rho}} for lr, rho in pairs],
    }
    return {
        row: [config(settings, seed=seed, record_every=1000, threads=1) for settings in space for seed in (100, 101)]
        for row, space in spaces.items()
    }
