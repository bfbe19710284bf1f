"""One voice for errors: the rule, what was received, the way out."""

import difflib
import inspect
import math
import numbers
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
    options = sorted(options)
    if value in options:
        return value
    raise ValueError(f"Unknown {name} {value!r}.{did_you_mean(value, options)} Known: {', '.join(options)}.")


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
