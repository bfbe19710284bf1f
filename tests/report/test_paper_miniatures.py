"""From miniatures of the paper's datasets, prepared as a user would, to its tables and figures, its own numbers beside."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from msam import recipes, train
from msam.models import encoders
from msam.report import Report, report
from msam.report.labels import slug
from msam.train import parts, probes
from msam.train.probes import landscape
from tests.recipes._few import MADE, cut, root_of, small_resnet, small_transformer

SHORT = {"epochs": 1, "batch_size": 4, "record_every": 1, "threads": 1, "accelerator": "cpu"}
SMALL = {"transformer": small_transformer, "resnet18": small_resnet, "resnet18_frames": small_resnet}
TITLES = {"avmnist", "cremad", "urfunny", "ave (protocol=clips)", "ave (protocol=features)"}

FIGURES = {
    *("accuracy", "curves", "modalities", "tau", "contributions", "dominance"),
    *("gradients-encoders", "sharpness", "landscape"),
}
PANELS = {"overview", "curves", "tau", "contributions", "dominance", "gradients", "sharpness", "landscape"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """Joint and M-SAM, one epoch on a few samples: late fusion of every dataset, early fusion of one.

    All are probed; of those with millions of weights no curvature is asked for, which takes minutes.
    """
    folder = tmp_path_factory.mktemp("miniatures")
    with pytest.MonkeyPatch.context() as patch:
        whole = parts.dataset
        patch.setattr(parts, "dataset", lambda settings: cut(whole(settings), 8, 4))
        for name, small in SMALL.items():
            patch.setitem(encoders.ENCODERS, name, small)
        coarse = probes.PROBES["landscape"]._replace(measure=partial(landscape.measure, points=5))
        patch.setitem(probes.PROBES, "landscape", coarse)
        for data in MADE:
            (folder / data).mkdir()
            root = root_of(data, folder / data)
            for fusion in ("late", "early") if data == "cremad" else ("late",):
                wide = data == "ave_features" or fusion == "early"
                asked = ("gradients", "landscape") if wide else ("gradients", "landscape", "curvature")
                for row in ("joint", "msam"):
                    name = f"paper/{data}-{fusion}-{row}"
                    settings = recipes.config(name, **SHORT, probes=asked, data={"root": root})
                    train.train(settings, folder / "runs" / f"{data}-{fusion}-{row}")
    out = folder / "out"
    return report([folder / "runs"], out, formats=("md", "csv", "tex", "parquet", "svg"), theirs=True), out


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
    kinds = ("late", "maxout", "gain", "datasets")
    assert names == {f"paper_{kind}.{format_}" for kind in kinds for format_ in ("md", "csv", "tex", "parquet")}


def test_all_figures_of_every_dataset_are_files_and_on_the_page(made: tuple[Report, Path]) -> None:
    page = (made[1] / "page.html").read_text()
    assert len(made[0].sections) == len(TITLES) + 1
    for position, section in enumerate(made[0].sections):
        title, wide = section.block.title, section.sharpness is None
        tau = np.isfinite(
            [value for row in section.block.rows for value in row.values("tau")]
        ).any()  # none if no test is right
        left = ({"sharpness"} if wide else set()) | (set() if tau else {"tau"})
        files = FIGURES - left | ({"gradients"} if "maxout" in title else set())
        assert {name for name in files if not (made[1] / f"{name}-{slug(title)}.svg").exists()} == set(), title
        for name in PANELS - left:
            assert f'<figure id="s{position}-{name}">' in page, (title, name)
    assert (made[1] / "gain.svg").exists()
    assert '<figure id="gain">' in page
    assert sum(section.sharpness is None for section in made[0].sections) == 2
