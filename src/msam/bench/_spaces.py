"""What is tuned of a row: the spaces that its parts declare."""

from collections.abc import Mapping
from typing import Any

from msam import checks
from msam.bench.grid import SEARCH
from msam.checks import Search
from msam.train.config import Option, options, part_name

TUNED = ("optimizer", "method", "sharpness")
"""Kinds of parts whose options are tuned."""

Spaces = Mapping[str, Search | None]


def space(settings: Mapping[str, Any], spaces: Spaces | None = None) -> dict[str, Search]:
    """Return what is tuned of a row: what optimizer, method and rule declare, by key.

    Arguments:
        settings: of the row. `search`, if it is there, holds spaces of its own by key, None for what stays as it is.
        spaces: spaces in place of the declared ones, None for what stays as it is; keys that the row lacks say nothing.

    Raises:
        ValueError: for a key in `search` that is no option of the row's parts, or a space that leaves an option's range.

    >>> list(space({"method": "ogm_ge", "sharpness": "sam"}))
    ['optimizer.lr', 'optimizer.weight_decay', 'method.alpha', 'sharpness.rho']
    >>> space({"search": {"optimizer.weight_decay": None}})["optimizer.lr"].describe()
    '0.0005 to 0.2, log'
    """
    known, own = tunable(settings), settings.get(SEARCH, {})
    unknown(own, known, "of this row")
    over = {**(spaces or {}), **own}
    found = {key: over.get(key, option.search) for key, option in known.items()}
    return {key: _sound(key, kept, known[key]) for key, kept in found.items() if kept is not None}


def unknown(given: Mapping[str, Any], known: Mapping[str, Any], of: str) -> None:
    """Refuse keys that are not known.

    Raises:
        ValueError: naming the first and the nearest that is.
    """
    for key in given:
        if key not in known:
            raise ValueError(
                f"Unknown key {key!r} to search {of}.{checks.did_you_mean(key, known)} Known: {', '.join(known)}."
            )


def tunable(settings: Mapping[str, Any]) -> dict[str, Option]:
    """Return the options of the parts that are tuned, by key, those without a space too."""
    found: dict[str, Option] = {}
    for kind in TUNED:
        known = options(kind, part_name(kind, settings.get(kind)))
        found |= {f"{kind}.{key}": option for key, option in known.items()}
    return found


def _sound(key: str, given: Search, option: Option) -> Search:
    typed = given.of(option.type)
    for end in typed.choices or (typed.low, typed.high):
        if option.range is not None and end is not None:
            try:
                checks.in_range(key, end, option.range)
            except ValueError as error:
                raise ValueError(f"The space {typed.describe()} leaves the range: {error}") from error
    return typed
