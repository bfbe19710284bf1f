"""What makes a run again, from its configuration: a command, or a file for one."""

import json
import math
import shlex
from collections.abc import Iterator, Mapping
from typing import Any


def command(config: Mapping[str, Any]) -> str:
    """Return the `msam train` command of a configuration: parts by name, nested keys dotted; null and empty lists left out.

    >>> command({"data": {"name": "dial", "signal": [4, 3]}, "sharpness": {"name": "msam", "rho": 0.3}, "seed": 0})
    'msam train --data dial --data.signal 4,3 --sharpness msam --sharpness.rho 0.3 --seed 0'
    """
    return shlex.join(["msam", "train", *_flags(config)])


def toml(config: Mapping[str, Any]) -> str:
    """Return a configuration as TOML for `msam train --config`; null, which TOML lacks, is left out.

    >>> print(toml({"data": {"name": "dial", "signal": [4, 3]}, "schedule": None, "seed": 0}))
    seed = 0
    <BLANKLINE>
    [data]
    name = "dial"
    signal = [4, 3]
    """
    known = {key: value for key, value in config.items() if value is not None}
    tables = {key: value for key, value in known.items() if isinstance(value, Mapping)}
    parts = [[f"{_key(key)} = {_value(value)}" for key, value in known.items() if key not in tables]]
    for key, table in tables.items():
        lines = [f"{_key(k)} = {_value(v)}" for k, v in table.items() if v is not None]
        parts += [[f"[{_key(key)}]", *lines]] if lines else []
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)


def _flags(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            if "name" in value:
                yield from (f"--{prefix}{key}", str(value["name"]))
            yield from _flags({k: v for k, v in value.items() if k != "name"}, f"{prefix}{key}.")
        elif value not in (None, [], ()):
            yield from (f"--{prefix}{key}", _spelled(value))


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_spelled, value)) if isinstance(value, list | tuple) else str(value)
