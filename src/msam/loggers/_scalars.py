"""From lines of a record to names and numbers, the same for every logger."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from msam.record import WORLDS

Line = Mapping[str, Any]
WATCHING = ("seed", "record_every", "checkpoint_every", "threads", "probes")
"""Fields of a configuration that do not tell one row from another."""

PICTURE = 16
"""Elements from which on a list is a picture and not scalars."""


@dataclass(frozen=True)
class RunInfo:
    """A run as its header describes it.

    Attributes:
        name: the run's name; a second run of the same name gets its start behind it.
        group: the same for runs that differ in nothing but their seeds.
        tags: dataset, fusion, method and sharpness rule, by these names.
        config: the configuration, nested, as it stands in the record.
        header: the header line.
        modalities: names of the modalities, in order.
        started: seconds since 1970; 0 where the header does not say.
    """

    name: str
    group: str
    tags: Mapping[str, str]
    config: Mapping[str, Any]
    header: Line = field(repr=False)
    modalities: tuple[str, ...]
    started: float

    @property
    def hyperparameters(self) -> dict[str, str | int | float | bool]:
        """The configuration as one level, `sharpness.rho` and so on; what is no number or text is written as JSON."""
        return dict(_flat(self.config))


def described(header: Line) -> RunInfo:
    """Return what a header line says of its run.

    Raises:
        ValueError: if it has no name that may be a file's, or no configuration.

    >>> config = {"data": {"name": "dial", "seed": 3}, "method": {"name": "joint"}, "sharpness": None, "seed": 3}
    >>> run = described({"kind": "header", "run": "dial-joint-none-seed3", "config": config, "modalities": ["a", "b"]})
    >>> run.group, run.tags["sharpness"], run.hyperparameters["data.seed"]
    ('dial-joint-none-67e6b3d6', 'none', 3)
    """
    name, config = header.get("run"), header.get("config")
    if not isinstance(name, str) or not isinstance(config, Mapping):
        raise ValueError("A header line must have `run`, a name, and `config`. Only records of runs can be logged.")
    if not name or name.startswith(".") or {"/", "\\", "\0"} & set(name):
        raise ValueError(f"The name of a run must be that of a file without folders, received {name!r}.")
    parts = {"dataset": "data", "fusion": "fusion", "method": "method", "sharpness": "sharpness"}
    tags = {tag: str((config.get(kind) or {}).get("name", "none")) for tag, kind in parts.items()}
    started = header.get("started")
    return RunInfo(
        name=name,
        group=_group(
            config, [value for kind, value in zip(parts.values(), tags.values(), strict=True) if kind in config]
        ),
        tags=tags,
        config=config,
        header=header,
        modalities=tuple(header.get("modalities", ())),
        started=datetime.fromisoformat(started).timestamp() if started else 0.0,
    )


def scalars(line: Line, modalities: Sequence[str] = (), *, with_test: bool = False) -> dict[str, float]:
    """Return the numbers of a line by their names; none for kinds of lines that are not known.

    Arguments:
        line: a line of a record.
        modalities: names that contributions are given in the order of.
        with_test: whether measures on the test split are among them.

    >>> scalars({"kind": "step", "step": 1, "epoch": 1, "loss": 0.5, "contributions": [0.75, 0.25], "share": 0.75}, "ab")
    {'step/loss': 0.5, 'contribution/a': 0.75, 'contribution/b': 0.25, 'share': 0.75}
    >>> scalars({"kind": "epoch", "epoch": 1, "step": 9, "loss": 0.5, "valid": {"nll": 1.0}, "test": {"nll": 2.0}})
    {'epoch': 1.0, 'epoch/loss': 0.5, 'valid/nll': 1.0}
    """
    made = {"step": _of_step, "epoch": _of_epoch, "probe": _of_probe, "end": _of_end}.get(str(line.get("kind")))
    if made is None:
        return {}
    return dict(made({key: value for key, value in line.items() if with_test or key != "test"}, modalities))


def step_of(line: Line) -> int:
    """Return the step that a line belongs to."""
    return int(line.get("step", line.get("steps", 0)))


def _of_step(line: Line, modalities: Sequence[str]) -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        if key == "contributions" and isinstance(value, Sequence):
            names = modalities if len(modalities) == len(value) else range(len(value))
            yield from _numbers("contribution", dict(zip(names, value, strict=True)))
        elif key in ("share", "radius", "method"):
            yield from _numbers(key, value)
        elif key not in ("step", "epoch"):
            yield from _numbers(f"step/{key}", value)


def _of_epoch(line: Line, modalities: Sequence[str]) -> Iterator[tuple[str, float]]:
    before = "auxiliary/" if line.get("auxiliary") else ""
    for key, value in line.items():
        if key in ("train", "valid", "test"):
            yield from _measures(f"{before}{key}", value)
        elif key == "means":
            for name, mean in value.items():
                yield from _numbers(f"{before}mean/{'contribution' if name == 'contributions' else name}", mean)
        elif key in ("epoch", "lr", "seconds"):
            yield from _numbers(key, value)
        elif key != "step":
            yield from _numbers(f"{before}epoch/{key}", value)


def _of_probe(line: Line, modalities: Sequence[str]) -> Iterator[tuple[str, float]]:
    found = {key: value for key, value in line.items() if key not in ("epoch", "step", "samples", "seed")}
    yield from _measures(f"probe/{line.get('probe')}", found)


def _measures(name: str, measures: Line) -> Iterator[tuple[str, float]]:
    """Yield the numbers of measures, those of modalities by what they are and then whose."""
    for key, value in measures.items():
        if key == "modalities":
            for modality, kinds in value.items():
                for kind, number in kinds.items():
                    yield from _numbers(f"{name}/{kind}/{modality}", number)
        else:
            yield from _numbers(f"{name}/{key}", value)


def _of_end(line: Line, modalities: Sequence[str]) -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        yield from _numbers(f"end/{key}", value)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yield every number in a value, however deep; text, truth values and None are none, and neither are pictures."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{name}/{key}", inner)
    elif isinstance(value, list | tuple) and len(value) < PICTURE:
        for position, inner in enumerate(value):
            yield from _numbers(f"{name}/{position}", inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    if isinstance(value, Mapping) and (value or not name):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, str | int | float):
        yield name, value
    else:
        yield name, "none" if value is None else json.dumps(value)


def _group(config: Line, names: Sequence[str]) -> str:
    decides = {key: value for key, value in config.items() if key not in WATCHING}
    data = dict(config.get("data") or {})
    for key in ("root", *(("seed",) if data.get("name") in WORLDS else ())):
        data.pop(key, None)
    digest = hashlib.sha256(json.dumps({**decides, "data": data}, sort_keys=True).encode()).hexdigest()
    return "-".join([*names, digest[:8]]).replace("/", "_")
