"""The command that makes a run again, from its configuration."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any


def command(config: Mapping[str, Any]) -> str:
    """Return the `msam train` command of a configuration: parts by name, nested keys dotted, null left out.

    >>> command({"data": {"name": "dial", "signal": [4, 3]}, "sharpness": {"name": "msam", "rho": 0.3}, "seed": 0})
    'msam train --data dial --data.signal 4,3 --sharpness msam --sharpness.rho 0.3 --seed 0'
    """
    return shlex.join(["msam", "train", *_flags(config)])


def _flags(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            if "name" in value:
                yield from (f"--{prefix}{key}", str(value["name"]))
            yield from _flags({k: v for k, v in value.items() if k != "name"}, f"{prefix}{key}.")
        elif value is not None:
            yield from (f"--{prefix}{key}", _spelled(value))


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_spelled, value)) if isinstance(value, list | tuple) else str(value)
