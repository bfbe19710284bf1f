"""One structure for every table: typed columns and the numbers in them; how they are shown follows from both."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, NamedTuple

NONE = "–"
"""What is shown where there is no number."""


class Spread(NamedTuple):
    """A mean over seeds and its standard deviation; NaN where there is none."""

    mean: float
    sd: float = math.nan


class Interval(NamedTuple):
    """The ends of an interval, both NaN where there is none."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A mean and the ends of its interval, NaN where there is none."""

    mean: float
    low: float = math.nan
    high: float = math.nan


Value = str | int | float | Spread | Interval | Estimate
Plain = str | int | float
Kind = Literal["text", "whole", "number", "spread", "interval", "estimate"]
TYPES: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "whole": (int,),
    "number": (float, int),
    "spread": (Spread,),
    "interval": (Interval,),
    "estimate": (Estimate,),
}
PARTS: Mapping[str, int] = {"text": 1, "whole": 1, "number": 1, "spread": 2, "interval": 2, "estimate": 3}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its head, with the unit.
        kind: what its values are: text, whole, number, spread (`Spread`), interval (`Interval`) or estimate (`Estimate`).
        keys: names of the plain numbers (or the text) of a value in CSV and Parquet, one for each of its parts; none for a
            column that only says in words what others hold.
        short: the head where there is little room.
        rank: what goes first where there is no room at all: the higher, the sooner; 0 always stays.
        scale: what numbers are multiplied by to be shown: 100 for percent.
        digits: behind the point; None for as many as the number has, up to six.
        signed: whether a plus is shown too.
        least: a number below it is shown as smaller than it.
        only_mean: whether of a spread or estimate the mean alone is shown.
        right: whether words too are aligned to the right, since they end in a number.
        shown: whether the column is for readers; one that is not stands in CSV and Parquet alone.
        group: a head above that it shares with its neighbours.
    """

    title: str
    kind: Kind = "text"
    keys: tuple[str, ...] = ()
    short: str = ""
    rank: int = 0
    scale: float = 1
    digits: int | None = None
    signed: bool = False
    least: float = 0
    only_mean: bool = False
    right: bool = False
    shown: bool = True
    group: str = ""

    def __post_init__(self) -> None:
        assert len(self.keys) in (0, PARTS[self.kind]), self

    @property
    def numeric(self) -> bool:
        """Whether it is aligned to the right."""
        return self.right or self.kind != "text"

    @property
    def full_title(self) -> str:
        """The head with that above it."""
        return f"{self.group}: {self.title}" if self.group else self.title

    def text(self, value: Value) -> str:
        """Return a value as it is shown."""
        if isinstance(value, str):
            return value
        if isinstance(value, Spread):
            return f"{self._number(value.mean)}{self._beside(' ± {}', value.mean, value.sd)}"
        if isinstance(value, Interval):
            return f"[{self._number(value.low)}, {self._number(value.high)}]" if _known(*value) else NONE
        if isinstance(value, Estimate):
            return f"{self._number(value.mean)}{self._beside(' [{}, {}]', value.mean, value.low, value.high)}"
        return self._number(value)

    def plain(self, value: Value) -> dict[str, Plain]:
        """Return what a value is in CSV and Parquet, by key; unrounded and unscaled."""
        parts = tuple(value) if isinstance(value, tuple) else (value,)
        return dict(zip(self.keys, parts, strict=True)) if self.keys else {}

    def _number(self, value: float) -> str:
        if not math.isfinite(value):
            return NONE if math.isnan(value) else f"{value:+g}"
        if isinstance(value, int) and self.scale == 1:
            return f"{value:+d}" if self.signed else str(value)
        if 0 <= value < self.least:
            return f"< {self.scale * self.least:g}"
        sign = "+" if self.signed else ""
        return f"{self.scale * value:{sign}g}" if self.digits is None else f"{self.scale * value:{sign}.{self.digits}f}"

    def _beside(self, form: str, mean: float, *more: float) -> str:
        if self.only_mean or not _known(mean, *more):
            return ""
        unsigned = form.startswith(" ±")
        return form.format(*(self._number(v).lstrip("+") if unsigned else self._number(v) for v in more))


@dataclass(frozen=True)
class Table:
    """A table: typed columns, and a value in each of them for every row.

    Attributes:
        title: what it is a table of.
        fields: all columns, shown or not; the first shown one holds the labels of the rows.
        values: for every row a value per field, of the field's kind.
        caption: how the numbers were made.
        about: what a table must say besides where it stands alone: selection and seeds.
        marks: what a shown cell is marked with, by row and field: "best" or "near".
    """

    title: str
    fields: tuple[Column, ...]
    values: tuple[tuple[Value, ...], ...]
    caption: str = ""
    about: str = ""
    marks: Mapping[tuple[int, int], Literal["best", "near"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.values:
            assert len(row) == len(self.fields), (self.title, row)
            for column, value in zip(self.fields, row, strict=True):
                assert isinstance(value, TYPES[column.kind]), (self.title, column.title, value)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns for readers."""
        return tuple(column for column in self.fields if column.shown)

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """The heads above those of the columns, "" for none, each with the columns it is over; empty without any."""
        found = [(group, len(list(members))) for group, members in groupby(self.columns, lambda column: column.group)]
        return tuple(found) if any(group for group, _ in found) else ()

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The cells for readers, without marks."""
        return tuple(
            tuple(column.text(value) for column, value in zip(self.fields, row, strict=True) if column.shown)
            for row in self.values
        )

    @property
    def marked(self) -> tuple[tuple[str, ...], ...]:
        """The mark of every cell for readers, empty for most."""
        places = [i for i, column in enumerate(self.fields) if column.shown]
        return tuple(tuple(self.marks.get((row, i), "") for i in places) for row in range(len(self.values)))

    @property
    def numbers(self) -> tuple[dict[str, Plain], ...]:
        """For every row what stands in CSV and Parquet, by key."""
        return tuple(
            {
                key: part
                for column, value in zip(self.fields, row, strict=True)
                for key, part in column.plain(value).items()
            }
            for row in self.values
        )


def digits_of(means: Iterable[float]) -> int:
    """Return how many digits behind the point show three of the largest of some means.

    >>> digits_of([0.0123, 0.0045]), digits_of([1234.5]), digits_of([math.nan])
    (4, 0, 3)
    """
    largest = max((abs(mean) for mean in means if math.isfinite(mean)), default=0.0)
    return max(0, 2 - math.floor(math.log10(largest))) if largest else 3


def _known(*values: float) -> bool:
    return all(map(math.isfinite, values))
