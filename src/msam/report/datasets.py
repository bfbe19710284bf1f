"""The card of every dataset in a report, from the headers of its records (the paper's Table 3)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from msam.report import labels, measures, theirs
from msam.report.rows import Block
from msam.report.runs import Run
from msam.report.table import NONE, Column, Table, Value

SPLIT = ("protocol", "split", "valid", "test", "seed")
"""Settings of data that say where its splits come from."""


def table(blocks: Sequence[Block], *, beside: bool = False) -> Table:
    """Return a row per dataset: modalities, classes, sizes, shapes, encoders and where the splits come from.

    What an old record does not say is a dash.

    Arguments:
        blocks: of any fusion; a dataset stands once.
        beside: whether the number of samples in Table 3 of the paper is shown too.
    """
    columns = [
        Column("Dataset", keys=("dataset",)),
        Column("Modalities", keys=("modalities",)),
        *(Column(title, "number", (title.lower(),), digits=0) for title in ("Classes", "Train", "Valid", "Test")),
        Column("Shape of a sample", keys=("shapes",), short="Shape", rank=2),
        Column("Encoders", keys=("encoders",), rank=1),
        Column("Splits", keys=("splits",), rank=3),
        Column("Fingerprint", keys=("fingerprint",), rank=4),
    ]
    columns += [Column("Samples, theirs", "number", ("samples, theirs",), digits=0)] if beside else []
    found: dict[tuple[str, ...], tuple[Block, Run]] = {}
    for block in blocks:
        run = max(block.runs, key=lambda run: len(run.modalities))
        found.setdefault(run.same_data, (block, run))
    values = tuple(tuple(_row(block, run, beside=beside)) for block, run in found.values())
    words = [
        "Read from the records' headers. Sizes are samples. Shape: of one sample, before the encoder",
        "Splits: the data's settings that decide them; the pages of docs/data/ say what they mean",
        "Fingerprint: the first digits of the sha256 of all content",
    ]
    words += [
        f"Classes of {dataset_of(block)}: {block.task.outputs}"
        for block, _ in found.values()
        if block.task is not measures.CLASSES
    ]
    words += ["Theirs: samples in Table 3 of the M-SAM paper, all splits together"] if beside else []
    return Table("Datasets", tuple(columns), values, ". ".join(words) + ".")


def dataset_of(block: Block) -> str:
    """Return the block's title without its fusion."""
    fusion = block.rows[-1].config.get("fusion")
    return block.title.replace(f", {fusion['name']} fusion", "") if fusion else block.title


def _row(block: Block, run: Run, *, beside: bool) -> list[Value]:
    header = run.record.header
    data = header["data"]
    sizes = data.get("sizes", {})
    splits = [f"{key}={labels.spell(run.data[key])}" for key in SPLIT if run.data.get(key) is not None]
    row: list[Value] = [
        dataset_of(block),
        ", ".join(block.modalities),
        _known(header.get("num_classes")),
        *(_known(sizes.get(name)) for name in ("train", "valid", "test")),
        _listed(data.get("shapes"), lambda shape: "×".join(map(str, shape))),
        _listed(data.get("encoders"), str),
        ", ".join(splits) or NONE,
        NONE if run.world else str(data.get("fingerprint"))[:12],
    ]
    return row + ([_known(theirs.samples(run.config["data"]["name"]))] if beside else [])


def _listed(found: Mapping[str, Any] | None, spelled: Any) -> str:
    return "; ".join(f"{name} {spelled(value)}" for name, value in found.items()) if found else NONE


def _known(value: float | None) -> float:
    return math.nan if value is None else value
