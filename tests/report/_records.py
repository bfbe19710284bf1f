"""Records as `msam train` writes them, without training."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msam.record import Writer

STEPS_PER_EPOCH = 8


def config(
    method: str | Mapping[str, Any] = "joint", sharpness: str | Mapping[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """A configuration: parts by name or as tables; `more` replaces whole keys."""
    return {
        "data": {"name": "avdigits", "seed": 0, "keep": 0.4},
        "fusion": {"name": "late"},
        "method": _part(method),
        "sharpness": _part(sharpness) if sharpness else None,
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.0001},
        "schedule": {"name": "step", "at": 0.7, "factor": 0.1},
        "seed": 0,
        "epochs": 3,
        "batch_size": 64,
        "record_every": 1,
        "threads": 0,
    } | more


def _part(value: str | Mapping[str, Any]) -> dict[str, Any]:
    return {"name": value} if isinstance(value, str) else dict(value)


def metrics(accuracy: float, modalities: Sequence[str], **alone: float) -> dict[str, Any]:
    """Metrics of one split; `alone` gives the zeroed accuracy of a modality, the other kinds follow from it."""
    share = {
        name: (0.7 if i == len(modalities) - 1 else 0.3 / max(1, len(modalities) - 1))
        for i, name in enumerate(modalities)
    }
    zeroed = {name: alone.get(name, accuracy * share[name]) for name in modalities}
    return {
        "accuracy": accuracy,
        "macro_f1": accuracy - 0.01,
        "nll": 2 * (1 - accuracy),
        "modalities": {
            name: {
                "head": None,
                "shapley": zeroed[name] + 0.02,
                "zeroed": zeroed[name],
                "contribution": share[name],
                "dominance": share[name],
            }
            for name in modalities
        },
        "imbalance": 0.4,
    }


def write(
    path: Path,
    settings: Mapping[str, Any],
    *,
    train: Sequence[float],
    valid: Sequence[float],
    test: Sequence[float],
    modalities: Sequence[str] = ("audio", "image"),
    alone: Mapping[str, float] | None = None,
    shares: Sequence[float] = (0.7,),
    dominant: Sequence[str] | None = None,
    losses: Sequence[float] | None = None,
    fingerprint: str | None = None,
    finished: bool = True,
    facts: Mapping[str, float] | None = None,
) -> Path:
    """Write the record of a run with the given accuracies, epoch by epoch; return its path."""
    rule, many = settings["sharpness"], len(modalities) > 1
    passes = 2.0 if rule else 1.0
    digest = hashlib.sha256(repr(sorted(settings["data"].items())).encode()).hexdigest()
    with Writer(path) as record:
        record.write(
            "header",
            format=1,
            run=path.stem,
            config=dict(settings),
            modalities=list(modalities),
            num_classes=10,
            classes=[f"class {i}" for i in range(10)],
            data={
                "name": settings["data"]["name"],
                "fingerprint": fingerprint or digest,
                "sizes": {"train": 1500, "valid": 600, "test": 1500},
                "facts": dict(facts or {}),
            },
            parameters=50_000,
            versions={"python": "3.11.7", "torch": "2.13.0", "msam": "0.1.0"},
            commit="0123456789abcdef",
            host={"machine": "x86_64", "cpus": 2, "threads": 2},
            started="2026-01-01T00:00:00+00:00",
        )
        step = 0
        for epoch, (a, b, c) in enumerate(zip(train, valid, test, strict=True), start=1):
            loss = losses[epoch - 1] if losses else 2.3 / epoch
            for _ in range(STEPS_PER_EPOCH):
                share = shares[step % len(shares)]
                rest = [(1 - share) / (len(modalities) - 1)] * (len(modalities) - 1) if many else []
                step += 1
                record.write(
                    "step",
                    step=step,
                    epoch=epoch,
                    loss=loss,
                    contributions=[*rest, share] if many else None,
                    dominant=(dominant or [modalities[-1]])[(step - 1) % len(dominant or [0])] if many else None,
                    share=(share if rule["name"] == "msam" else 1.0) if rule else None,
                    radius=rule.get("rho", 0.1) if rule else None,
                )
            splits = {
                name: metrics(value, modalities, **(alone or {}))
                for name, value in (("train", a), ("valid", b), ("test", c))
            }
            record.write("epoch", epoch=epoch, step=step, loss=loss, lr=0.05, seconds=0.4, **splits)
        if finished:
            record.write(
                "end",
                status="finished",
                epochs=len(train),
                steps=step,
                seconds=1.5,
                seconds_per_step=0.012 * passes,
                passes_per_step=passes,
                weights="sha256",
            )
    return path


def study(folder: Path, seeds: int = 4) -> Path:
    """Several rows over seeds on two datasets of two and three modalities, with an unfinished and a diverged run."""
    two, three = ("audio", "image"), ("text", "audio", "video")
    plans: list[tuple[str, Any, Any, float, tuple[str, ...]]] = [
        ("unimodal-audio", {"name": "unimodal", "modality": "audio"}, None, 0.57, ("audio",)),
        ("unimodal-image", {"name": "unimodal", "modality": "image"}, None, 0.70, ("image",)),
        ("joint", "joint", None, 0.79, two),
        ("uniform", "uniform", None, 0.82, two),
        ("ogm-ge", {"name": "ogm_ge", "alpha": 0.3}, None, 0.80, two),
        ("ogm-ge-sam", {"name": "ogm_ge", "alpha": 0.3}, {"name": "sam", "rho": 0.2}, 0.81, two),
        ("sam", "joint", {"name": "sam", "rho": 0.2}, 0.81, two),
        ("msam-1", "joint", {"name": "msam", "rho": 0.1, "scope": "all"}, 0.805, two),
        ("msam-3", "joint", {"name": "msam", "rho": 0.3, "scope": "all"}, 0.815, two),
    ]
    for name, method, rule, level, modalities in plans:
        for seed in range(seeds):
            _learn(
                folder / "avdigits" / f"{name}-{seed}.jsonl",
                config(method, rule, seed=seed, epochs=12),
                level,
                modalities,
            )
    for method, rule, level in (("joint", None, 0.6), ("joint", {"name": "msam", "rho": 0.3}, 0.63)):
        for seed in range(seeds):
            data = {"name": "dial", "seed": seed, "signal": [4, 3, 2]}
            settings = config(method, rule, seed=seed, epochs=12, data=data, fusion={"name": "early"})
            label = rule["name"] if rule else "joint"
            path = folder / "dial" / f"{label}-{seed}.jsonl"
            _learn(path, settings, level, three, facts={"bayes": 0.983})
    curves = {"train": [0.3, 0.4], "valid": [0.3, 0.2], "test": [0.3, 0.2]}
    write(
        folder / "cut.jsonl", config("joint", {"name": "sam", "rho": 0.2}, seed=77, epochs=12), **curves, finished=False
    )
    losses = [1.0, math.nan]
    write(
        folder / "nan.jsonl", config("joint", {"name": "sam", "rho": 9.0}, seed=0, epochs=12), **curves, losses=losses
    )
    return folder


def _learn(
    path: Path, settings: dict[str, Any], level: float, modalities: tuple[str, ...], **more: Mapping[str, float]
) -> None:
    """Curves that rise towards `level` with some noise, and a modality that takes over."""
    random = np.random.default_rng(list(path.stem.encode()))
    rise = 1 - np.exp(-np.arange(1, 13) / 3)
    train, valid, test = ((level + gap) * rise + random.normal(0, 0.006, 12) for gap in (0.15, 0.0, -0.02))
    shares = (0.5 + 0.3 * (1 - np.exp(-np.arange(96) / 30)) + random.normal(0, 0.05, 96)).clip(0.34, 1.0)
    swaps = random.random(96) < np.exp(-np.arange(96) / 25) * 0.6
    dominant = [modalities[0] if swap else modalities[-1] for swap in swaps]
    write(
        path,
        settings,
        train=np.minimum(1.0, train).tolist(),
        valid=valid.tolist(),
        test=test.tolist(),
        modalities=modalities,
        shares=shares.tolist(),
        dominant=dominant,
        **more,
    )
