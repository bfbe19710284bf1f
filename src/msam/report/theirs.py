"""The numbers of the paper itself, from the tables it prints; to be shown beside ours and never mixed with them."""

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

TABLES: Mapping[str, int] = {"late": 1, "concat": 1, "early": 2, "maxout": 2}
"""Fusions of ours, and the table of the paper that stands beside them: late fusion there is a sum or a concatenation, early
fusion two layers of maxout."""

NOTE = (
    "Theirs: the numbers that the M-SAM paper prints (NeurIPS 2025, Tables 1 and 2), transcribed; one number each, without "
    "seeds or deviation. What differs from ours: they speak of validation accuracy and name no test protocol, and the code "
    "they build on takes the best epoch on test, while ours is chosen on data held out of train and read on test once; "
    "splits and preparation (docs/data/preparation.md); epochs, batch size and radius, which they do not give; and how the "
    "accuracy of a single modality is read, which they do not define. A difference between the two is no finding."
)


class Place(NamedTuple):
    """Which number: fusion ("late" or "early"), our name of the row, dataset, and modality, "" for all together."""

    fusion: str
    row: str
    dataset: str
    modality: str


def accuracies(fusion: str) -> dict[Place, float]:
    """Return the paper's test accuracies, in [0, 1], of the table that stands beside a fusion of ours; none of others.

    >>> accuracies("late")[Place("late", "M-SAM", "cremad", "")]
    0.6856
    """
    table = TABLES.get(fusion)
    return {
        Place(fusion, line["row"], line["dataset"], line["modality"]): round(float(line["accuracy"]) / 100, 4)
        for line in _lines("paper_tables.csv")
        if int(line["table"]) == table
    }


def samples(dataset: str) -> int | None:
    """Return how many samples Table 3 of the paper gives a dataset; None for one that it does not have.

    >>> samples("cremad")
    7442
    """
    return next((int(line["samples"]) for line in _lines("paper_datasets.csv") if line["dataset"] == dataset), None)


@cache
def _lines(name: str) -> tuple[dict[str, str], ...]:
    text = files("msam.report").joinpath("files", name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
