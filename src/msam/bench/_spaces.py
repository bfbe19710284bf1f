"""What is tuned of a row: the spaces that its parts declare, and the values at which it begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msam import checks
from msam.bench.grid import cell
from msam.checks import Range, Search
from msam.train import RunConfig, config
from msam.train.config import Option, laid_over, options, part_name

TUNED = ("optimizer", "method", "sharpness")
"""Kinds of parts whose options are tuned."""

SEARCH = "search"
"""Key of a row's own spaces, which no configuration has."""

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
    known, own = _options(settings), settings.get(SEARCH, {})
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


@dataclass(frozen=True)
class Row:
    """A row that is tuned.

    Attributes:
        name: of the row, and of its files.
        settings: without spaces.
        space: what is tuned, by key.
        ranges: of the options that are tuned, None where one has none.
        start: the row's own values of what is tuned.
        epochs: of each of its runs.
    """

    name: str
    settings: Mapping[str, Any]
    space: Mapping[str, Search]
    ranges: Mapping[str, Range | None]
    start: Mapping[str, Any]
    epochs: int

    def at(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings with other values of what is tuned."""
        nested: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            kind, _, option = key.partition(".")
            nested.setdefault(kind, {})[option] = value
        return laid_over(self.settings, nested)

    def cells(self, values: Mapping[str, Any], seeds: tuple[int, ...]) -> list[RunConfig]:
        """Return the runs of one trial."""
        return [cell(self.at(values), seed) for seed in seeds]


def row(name: str, settings: Mapping[str, Any], spaces: Spaces | None = None) -> Row:
    """Return a row that can be tuned.

    Raises:
        ValueError: if its name is no name of a file, nothing of it is tuned, or it begins outside of its space.
    """
    if not name or name.startswith(".") or any(sign in name for sign in '/\\:*?"<>|\n'):
        raise ValueError(f"The name of a row names its file: it must not hold / \\ : * ? \" < > |, received {name!r}.")
    plain = {key: value for key, value in settings.items() if key != SEARCH}
    complete = config(plain)
    try:
        searched, known = space(settings, spaces), _options(settings)
    except ValueError as error:
        raise ValueError(f"Row {name!r}: {error}") from error
    if not searched:
        raise ValueError(
            f"Nothing of row {name!r} is tuned: its parts declare no space, or all of them are fixed. Leave it out, or give "
            f"one of {', '.join(known)} a space."
        )
    start = {key: getattr(complete, key.split(".")[0])[key.split(".")[1]] for key in searched}
    for key, value in start.items():
        if not searched[key].holds(value):
            raise ValueError(
                f"Row {name!r} begins at `{key}` = {value}, outside of its space, {searched[key].describe()}. Widen it with "
                f"spaces={{{key!r}: Search(..)}}, or fix it with None."
            )
    return Row(name, plain, searched, {key: known[key].range for key in searched}, start, complete.epochs)


def _options(settings: Mapping[str, Any]) -> dict[str, Option]:
    found = {}
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
