"""The rows of the paper's tables as settings by name: `paper/DATASET-FUSION-METHOD`, e.g. `paper/cremad-late-msam`.

Four datasets, AVE in both of its protocols; late and early fusion; every method of the folder where it is defined, with our
marked extensions where only those are; joint training with SAM and with M-SAM. Values that the paper leaves open are ours:
each has its source in docs/recipes.md.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from msam import checks, methods
from msam.recipes._methods import values_of
from msam.recipes._values import COMMON, DATASETS, SHARPNESS, Value

PREFIX = "paper/"


class Row(NamedTuple):
    """What a name stands for.

    Attributes:
        dataset: a key of `DATASETS`.
        fusion: "late" or "early".
        row: a method, `unimodal_MODALITY`, "sam" or "msam".
    """

    dataset: str
    fusion: str
    row: str

    @property
    def name(self) -> str:
        """The recipe's name."""
        return f"{PREFIX}{self.dataset}-{self.fusion}-{self.row}"


def names() -> list[str]:
    """Return the names of the paper's recipes.

    >>> len(names()), names()[0]
    (187, 'paper/avmnist-late-agm')
    """
    return list(_rows())


def settings(name: str) -> dict[str, Any]:
    """Return the nested values of a recipe, as a configuration file would hold them.

    Raises:
        ValueError: if there is no such recipe, with the nearest known name.

    >>> settings("paper/cremad-late-msam")["optimizer"]
    {'name': 'sgd', 'lr': 0.001, 'momentum': 0.9, 'weight_decay': 0.0001}
    """
    nested: dict[str, Any] = {}
    for key, value, *_ in values(name):
        part, _, option = key.partition(".")
        if option:
            nested.setdefault(part, {})[option] = value
        else:
            nested[part] = value
    return nested


def values(name: str) -> list[Value]:
    """Return the values of a recipe, each with its source.

    Raises:
        ValueError: if there is no such recipe, with the nearest known name.
    """
    dataset, fusion, row = found(name)
    setting = DATASETS[dataset]
    shared = [*COMMON, *setting.values, *setting.fusions[fusion]]
    if row in SHARPNESS:
        return [*shared, Value("method.name", "joint", "paper"), *SHARPNESS[row]]
    method, _, modality = row.partition("_") if row.startswith("unimodal_") else (row, "", "")
    own = [Value("method.name", method, "paper" if method in COMPARED else "ours"), *values_of(method, dataset, fusion)]
    if modality:
        own.append(Value("method.modality", modality, "paper"))
    extension = _extension(method, dataset, fusion) or {}
    return [*shared, *own, *(Value(f"method.{key}", value, "ours", "extension") for key, value in extension.items())]


COMPARED = frozenset({"joint", "unimodal", "mses", "mslr", "ogm_ge", "agm", "cggm", "reconboost", "mmpareto"})
"""Methods that stand in the paper's tables."""


def found(name: str) -> Row:
    """Return what the name of a recipe stands for.

    Raises:
        ValueError: if there is no such recipe, with the nearest known name.
    """
    rows = _rows()
    if name not in rows:
        raise ValueError(
            f"Unknown recipe {name!r}.{checks.did_you_mean(name, rows)} `msam list recipes` shows all {len(rows)}."
        )
    return rows[name]


@cache
def _rows() -> dict[str, Row]:
    return {row.name: row for dataset in DATASETS for fusion in ("late", "early") for row in _of(dataset, fusion)}


def _of(dataset: str, fusion: str) -> Iterator[Row]:
    for method in methods.names():
        if _defined(method, dataset, fusion):
            kinds = [f"_{m}" for m in DATASETS[dataset].modalities] if method == "unimodal" else [""]
            yield from (Row(dataset, fusion, method + kind) for kind in kinds)
    yield from (Row(dataset, fusion, rule) for rule in SHARPNESS)


def _defined(method: str, dataset: str, fusion: str) -> bool:
    """Tell whether a method is defined there, by its paper or by an extension of ours."""
    return _extension(method, dataset, fusion) is not None


def _extension(method: str, dataset: str, fusion: str) -> Mapping[str, Any] | None:
    modalities = len(DATASETS[dataset].modalities)
    return methods.load(method).about.admitted(early=fusion == "early", modalities=modalities)
