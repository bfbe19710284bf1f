"""Flags made of signatures: what `train`, `data` and `bench` share."""

import typing
from typing import Annotated, Any

from cyclopts import Group, Parameter

from msam import checks


def flag(kind: Any, key: str, said: str, group: Group | None = None) -> Any:
    """Return the annotation of an optional flag `--key`, also spelled with hyphens."""
    names = [f"--{key}", f"--{key.replace('_', '-')}"] if "_" in key else [f"--{key}"]
    where: dict[str, Any] = {"group": group} if group else {}
    return Annotated[kind | None, Parameter(name=names, help=said, show_default=False, negative=(), **where)]


def token_type(hint: Any, *, switches: bool = True) -> Any:
    """Return how a flag's token is read: numbers as such, switches if they are wanted, all else as text."""
    plain = typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
    return plain if plain in ((int, float, bool) if switches else (int, float)) else str


def limits(default: Any, allowed: checks.Range | None) -> str:
    """Return the range and the default of an option, in brackets."""
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    shown = "none" if default is None or default in ({}, "", ()) else shown
    return f"[{allowed.describe()}; default: {shown}]" if allowed else f"[default: {shown}]"
