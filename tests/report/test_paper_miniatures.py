"""From miniatures of the paper's datasets, prepared as a user would, to the paper's tables with its own numbers beside."""

import csv
from pathlib import Path

import pytest

from msam import recipes, train
from msam.models import encoders
from msam.report import Report, report
from msam.train import parts
from tests.recipes._few import MADE, cut, root_of, small_resnet, small_transformer

SHORT = {"epochs": 1, "batch_size": 4, "record_every": 1, "threads": 1, "accelerator": "cpu"}
SMALL = {"transformer": small_transformer, "resnet18": small_resnet, "resnet18_frames": small_resnet}
TITLES = {"avmnist", "cremad", "urfunny", "ave (protocol=clips)", "ave (protocol=features)"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """Joint and M-SAM, late fusion, one epoch on a few samples of every dataset."""
    folder = tmp_path_factory.mktemp("miniatures")
    with pytest.MonkeyPatch.context() as patch:
        whole = parts.dataset
        patch.setattr(parts, "dataset", lambda settings: cut(whole(settings), 8, 4))
        for name, small in SMALL.items():
            patch.setitem(encoders.ENCODERS, name, small)
        for data in MADE:
            (folder / data).mkdir()
            root = root_of(data, folder / data)
            for row in ("joint", "msam"):
                settings = recipes.config(f"paper/{data}-late-{row}", **SHORT, data={"root": root})
                train.train(settings, folder / "runs" / f"{data}-{row}")
    out = folder / "out"
    return report([folder / "runs"], out, formats=("md", "csv", "tex", "parquet"), theirs=True), out


def test_every_dataset_stands_in_one_table_beside_the_papers_numbers(made: tuple[Report, Path]) -> None:
    table = made[0].paper["paper_late"]
    assert {column.group for column in table.columns} - {""} == TITLES
    (ours,) = [line for line in table.numbers if line["row"] == "M-SAM"]
    for title in TITLES:
        assert ours[f"{title}: seeds"] == 1
        assert 0 <= float(ours[f"{title}: accuracy mean"]) <= 1
    assert ours["cremad: theirs"] == 0.6856
    assert ours["ave (protocol=features): theirs, video"] == 0.7257
    assert ours["passes"] == 2
    rows = [row[0] for row in table.rows]
    assert {"Joint", "M-SAM", "OGM-GE", "Unimodal vision"} <= set(rows)


def test_the_card_says_what_each_was_trained_on(made: tuple[Report, Path]) -> None:
    cards = csv.DictReader((made[1] / "paper_datasets.csv").read_text().splitlines())
    lines = {line["dataset"]: line for line in cards}
    assert set(lines) == TITLES
    assert lines["cremad"]["shapes"] == "audio 1×257×299; video 3×1×224×224"
    assert lines["cremad"]["encoders"] == "audio resnet18; video resnet18_frames"
    assert lines["cremad"]["splits"].startswith("split=official")
    assert lines["urfunny"]["classes"] == "2"
    assert {line["train"] for line in lines.values()} == {"8"}


def test_all_of_the_papers_tables_are_written_in_every_format(made: tuple[Report, Path]) -> None:
    names = {path.name for path in made[1].glob("paper_*")}
    kinds = ("late", "gain", "datasets")
    assert names == {f"paper_{kind}.{format_}" for kind in kinds for format_ in ("md", "csv", "tex", "parquet")}
