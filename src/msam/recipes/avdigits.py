"""The runs on AV-digits that belong together, as functions that return their configurations."""

from collections.abc import Iterable
from typing import Any

from msam import methods
from msam.train import RunConfig, config

SETTINGS: dict[str, dict[str, Any]] = {
    "joint": {"optimizer": {"lr": 0.05}},
    "sam": {"optimizer": {"lr": 0.05}, "sharpness": {"name": "sam", "rho": 0.05}},
    "msam": {"optimizer": {"lr": 0.05}, "sharpness": {"name": "msam", "rho": 0.1}},
}
"""What tuning on AV-digits, late fusion, chose for each row on validation (`trials`, `benchmarks/avdigits_late.py`)."""

UNIMODAL: dict[str, dict[str, Any]] = {
    name: {**SETTINGS["joint"], "method": {"name": "unimodal", "modality": name}} for name in ("audio", "image")
}

MEAN_SHARE = 0.65
"""Mean share of the dominant modality in M-SAM's runs, to two digits; the controls hold it constant."""

FITTED: dict[str, dict[str, Any]] = {"ogm_ge": {"last_epoch": 10}, "mses": {"patience": 5}}
"""Settings of methods that count epochs, fitted to runs of twenty (OGM-GE modulates in the first half of its hundred)."""

LEARNING_RATES = (0.01, 0.02, 0.03, 0.05, 0.1)
DECAYS = (1e-4, 1e-3, 5e-3)
RADII = (0.025, 0.05, 0.1, 0.2, 0.4)
RATES_WITH_RADII = (0.01, 0.02, 0.05)
TUNING_SEEDS = (100, 101, 102)


def fitted(name: str) -> dict[str, Any] | str:
    """Return a method as a run of twenty epochs takes it: by its name, or with what counts epochs fitted."""
    return {"name": name, **FITTED[name]} if name in FITTED else name


def demo(seeds: int) -> list[RunConfig]:
    """Return Joint, SAM, M-SAM and both unimodal nets on AV-digits, late fusion, seeds 0 .. seeds - 1."""
    return _seeded([*SETTINGS.values(), *UNIMODAL.values()], range(seeds), record_every=2)


def comparison(seeds: int) -> list[RunConfig]:
    """Return the rows of the demo with more seeds and fewer step lines in the records."""
    return _seeded([*SETTINGS.values(), *UNIMODAL.values()], range(seeds), record_every=8)


def controls(seeds: int) -> list[RunConfig]:
    """Return the controls of the comparison.

    Per-modality losses added; the base optimizer with twice the epochs, which costs what a second pass does; SAM at the
    radius that M-SAM has to first order, its own times its mean share; M-SAM with that share held constant; and the sum of
    the unimodal nets.
    """
    joint, msam = SETTINGS["joint"], SETTINGS["msam"]
    rho = msam["sharpness"]["rho"]
    smaller = {"name": "sam", "rho": round(MEAN_SHARE * rho, 4)}
    constant = {"name": "gnp", "rho": rho, "alpha": MEAN_SHARE}
    rows = [
        {**joint, "method": "uniform"},
        {**joint, "epochs": 40},
        {**msam, "sharpness": smaller},
        {**msam, "sharpness": constant},
        {**joint, "method": "ensemble"},
    ]
    return _seeded(rows, range(seeds), record_every=8)


def every_method(fusion: str, seeds: int, *, modalities: tuple[str, ...] = ("audio", "image")) -> list[RunConfig]:
    """Return every method of the folder on AV-digits at its paper's default settings, where it is defined for the fusion.

    The learning rate is the one that joint training chose; what counts epochs is fitted to a run of twenty. Extensions of
    ours are switched on where a paper leaves the fusion undefined.
    """
    early = fusion in ("early", "maxout")
    rows = []
    for name in methods.names():
        extension = methods.load(name).about.admitted(early=early, modalities=len(modalities))
        if extension is None:
            continue
        options = {**FITTED.get(name, {}), **extension}
        kinds = [{"modality": modality} for modality in modalities] if name == "unimodal" else [{}]
        rows += [{**SETTINGS["joint"], "fusion": fusion, "method": {"name": name, **options, **kind}} for kind in kinds]
    return _seeded(rows, range(seeds), record_every=8)


def trials() -> dict[str, list[RunConfig]]:
    """Return the tuning trials of each row: fifteen settings on the same three seeds, which the comparison does not use.

    Joint tries five learning rates with three weight decays; SAM and M-SAM try three learning rates with five radii.
    """
    plain = [{"lr": lr, "weight_decay": decay} for lr in LEARNING_RATES for decay in DECAYS]
    sharp = [({"lr": lr}, rho) for lr in RATES_WITH_RADII for rho in RADII]
    spaces: dict[str, list[dict[str, Any]]] = {"joint": [{"optimizer": options} for options in plain]}
    for name in ("sam", "msam"):
        spaces[name] = [{"optimizer": options, "sharpness": {"name": name, "rho": rho}} for options, rho in sharp]
    return {row: _seeded(space, TUNING_SEEDS, record_every=1000) for row, space in spaces.items()}


def _seeded(rows: list[dict[str, Any]], seeds: Iterable[int], *, record_every: int) -> list[RunConfig]:
    return [config(row, seed=seed, record_every=record_every, threads=1) for seed in seeds for row in rows]
