"""One voice for errors: the rule, what was received, the way out."""

import difflib
import inspect
import math
import numbers
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Range:
    """The range of a number, written where its type is: `rho: Annotated[float, Range(ge=0)] = 0.05`.

    >>> Range(ge=0).describe()
    '>= 0'
    >>> Range(gt=0, lt=1).describe()
    '> 0 and < 1'
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def describe(self) -> str:
        """Return the range in words."""
        parts = [("> ", self.gt), (">= ", self.ge), ("< ", self.lt), ("<= ", self.le)]
        return " and ".join(f"{sign}{bound:g}" for sign, bound in parts if bound is not None)

    def holds(self, value: float) -> bool:
        """Tell whether `value` is a number inside the range; NaN never is."""
        return (
            not math.isnan(value)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )


@dataclass(frozen=True)
class Search:
    """Where tuning looks for a hyper-parameter, written beside its range: `Annotated[float, Range(ge=0), Search(0.01, 1)]`.

    Arguments:
        low: lower end, included.
        high: upper end, included.
        log: whether 0.01 to 0.1 is as wide as 0.1 to 1.
        choices: the values to choose from, instead of ends; at least two.
        whole: whole numbers only; where a space is declared, the type of the parameter says so.

    Raises:
        ValueError: if that is no space: ends that are not finite and in order, a logarithm of what is not positive, fewer
            than two choices, or both ends and choices.

    >>> Search(0.01, 1.0, log=True).describe()
    '0.01 to 1, log'
    >>> Search(choices=("late", "early")).describe()
    'late, early'
    >>> Search(1.0, 0.1)
    Traceback (most recent call last):
    ValueError: A search goes from low to high, both finite, low < high; received 1.0 and 0.1.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    whole: bool = False

    def __post_init__(self) -> None:
        if self.choices:
            ends = self.low is not None or self.high is not None or self.log or self.whole
            if ends or len(set(self.choices)) < max(2, len(self.choices)):
                raise ValueError(
                    f"A search among choices needs two or more, all different, and no ends; received {self}."
                )
            return
        low, high = self.low, self.high
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"A search goes from low to high, both finite, low < high; received {low} and {high}.")
        if self.log and low <= 0:
            raise ValueError(f"A logarithmic search must begin above 0, received {low}.")
        if self.whole and not (float(low).is_integer() and float(high).is_integer()):
            raise ValueError(f"A search of whole numbers goes from one to another, received {low} and {high}.")

    def of(self, annotation: Any) -> "Search":
        """Return the space as it is for a parameter of this type: of whole numbers where the type has no others."""
        plain = typing.get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
        kinds = {plain, *typing.get_args(plain)}
        return replace(self, whole=int in kinds and float not in kinds and not self.choices)

    def describe(self) -> str:
        """Return the space in words."""
        if self.choices:
            return ", ".join(map(str, self.choices))
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"

    def holds(self, value: Any) -> bool:
        """Tell whether `value` is in the space."""
        if self.choices:
            return value in self.choices
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        assert self.low is not None
        assert self.high is not None
        return number and self.low <= value <= self.high and (not self.whole or float(value).is_integer())


def in_range(name: str, value: float, allowed: Range) -> float:
    """Return `value` if it lies in `allowed`.

    Raises:
        ValueError: naming the parameter, its range and what was received.

    >>> in_range("rho", -0.1, Range(ge=0))
    Traceback (most recent call last):
    ValueError: `rho` must be >= 0, received -0.1.
    """
    number = type(value) is float or (isinstance(value, numbers.Real) and not isinstance(value, bool))
    if not number or not allowed.holds(value):
        raise ValueError(f"`{name}` must be {allowed.describe()}, received {value!r}.")
    return value


def one_of(name: str, value: str, options: Iterable[str]) -> str:
    """Return `value` if it is one of `options`.

    Raises:
        ValueError: naming the parameter, what was received and the nearest option.

    >>> one_of("value", "probabilty", ("probability", "accuracy"))
    Traceback (most recent call last):
    ValueError: Unknown value 'probabilty'. Did you mean 'probability'? Known: accuracy, probability.
    """
    options = tuple(options)
    if value in options:
        return value
    near = did_you_mean(value, sorted(options))
    raise ValueError(f"Unknown {name} {value!r}.{near} Known: {', '.join(sorted(options))}.")


def did_you_mean(value: object, options: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?`, or an empty string when nothing is near.

    >>> did_you_mean("ogm", ["ogm_ge", "joint"])
    " Did you mean 'ogm_ge'?"
    """
    near = difflib.get_close_matches(str(value), list(options), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def parameter_range(annotation: Any) -> Range | None:
    """Return the `Range` that an `Annotated[...]` type carries, or None."""
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, Range):
            return extra
    return None


def parameter_search(annotation: Any) -> Search | None:
    """Return the `Search` that an `Annotated[...]` type carries, of whole numbers where the type has no others, or None.

    >>> from typing import Annotated
    >>> parameter_search(Annotated[int, Search(1, 8)]).whole
    True
    """
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, Search):
            return extra.of(annotation)
    return None


def parameter_words(annotation: Any) -> tuple[Any, ...]:
    """Return the words that a `Literal[...]`, alone or beside None, leaves to choose from; none for other types."""
    kinds = [annotation, *typing.get_args(annotation)]
    return tuple(w for kind in kinds if typing.get_origin(kind) is typing.Literal for w in typing.get_args(kind))


def arguments_among_words(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Check every argument whose annotation in `function` is a `Literal`; None is one where the type admits it.

    Raises:
        ValueError: for the first that is none of the words.
    """
    hints = typing.get_type_hints(function)
    for name, value in arguments.items():
        hint = hints.get(name)
        words = parameter_words(hint)
        if words and not (value is None and type(None) in typing.get_args(hint)):
            one_of(name, value, words)


def arguments_in_range(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Check every argument whose annotation in `function` carries a `Range`; None is let through.

    Raises:
        ValueError: for the first that lies outside.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    for name in inspect.signature(function).parameters:
        allowed = parameter_range(hints.get(name))
        if allowed is not None and arguments.get(name) is not None:
            in_range(name, arguments[name], allowed)
