"""Checkpoints: written whole or not at all, read without executing anything."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

FORMAT = 1


def save(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a checkpoint to a temporary name, then rename it over `path`.

    Raises:
        OSError: if it could not be written (a full disk, say); what was at `path` before is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError | RuntimeError):
            said = (
                f"Cannot write checkpoint {path}: {error}. The checkpoint before it is intact; make room and go on "
                "with --resume."
            )
            number = _errno(error)
            raise (OSError(said) if number is None else OSError(number, said)) from error
        raise


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are admitted.

    Raises:
        ValueError: if the file is truncated, damaged or no checkpoint of ours.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"Checkpoint {path} is truncated or damaged ({type(error).__name__}). It is left as it is; delete the run's "
            "folder, or train without --resume into another one, to start anew."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"Checkpoint {path} must be of format {FORMAT}, found {found!r}.")
    return content


def _errno(error: BaseException | None) -> int | None:
    """Return the system's number of what went wrong, which torch's own error stands on."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return None if error is None else error.errno


def packed(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's state as tensors and plain values; things with a `state_dict` give that."""
    return {key: value.state_dict() if hasattr(value, "state_dict") else value for key, value in state.items()}


def unpack(state: dict[str, Any], saved: Mapping[str, Any]) -> None:
    """Put what `packed` returned back into a method's state, in place."""
    for key, value in saved.items():
        if hasattr(state.get(key), "load_state_dict"):
            state[key].load_state_dict(value)
        else:
            state[key] = value


def differing(mine: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return `key: mine != other` for every configuration key in which the two differ.

    >>> differing({"seed": 0, "data": {"keep": 0.4}}, {"seed": 0, "data": {"keep": 0.3}})
    ['data.keep: 0.4 != 0.3']
    """
    lines = []
    for key in dict.fromkeys([*mine, *other]):
        a, b = mine.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differing(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a!r} != {b!r}")
    return lines
