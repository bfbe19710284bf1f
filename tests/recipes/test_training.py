"""The paper's recipes train on miniatures of their datasets, read from files of the exact form."""

import math
from functools import cache

import pytest

from msam import recipes, record
from msam.models import encoders
from msam.recipes import paper
from msam.train import parts, train
from tests.recipes._few import MADE, SPLITS, cut, root_of, small_transformer

SHORT = {"epochs": 1, "record_every": 1, "threads": 1, "accelerator": "cpu"}
ROWS = [paper.found(name) for name in paper.names()]
HEADLINE = [row.name for row in ROWS if row.row == "msam" and row.dataset in MADE]
UNUSUAL = (("urfunny", "late"), ("ave_features", "early"))
"""Three modalities, and segments with attention: where methods meet what is not in their papers."""

OTHERS = [row.name for row in ROWS if row.row != "msam" and (row.dataset, row.fusion) in UNUSUAL]


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Return a function from a dataset to the root of its miniature, which is written once."""
    return cache(lambda dataset: root_of(dataset, tmp_path_factory.mktemp(dataset)))


@pytest.fixture
def trained(roots, tmp_path, monkeypatch):
    """Return a function from a recipe to the record of one epoch on a few samples; the folder goes when it is read."""
    whole = parts.dataset

    def run(name: str, samples: int, batch: int = 2, **options):
        monkeypatch.setattr(parts, "dataset", lambda settings: cut(whole(settings), samples))
        settings = recipes.config(
            name, **SHORT, batch_size=batch, data={"root": roots(paper.found(name).dataset), **options}
        )
        train(settings, tmp_path / "run")
        found = record.read(tmp_path / "run" / "record.jsonl")
        (tmp_path / "run" / "checkpoint.pt").unlink()  # of hundreds of megabytes
        return settings, found

    return run


def sound(settings, found) -> None:
    assert found.end["status"] == "finished"
    assert found.epochs
    assert all(math.isfinite(line["loss"]) for line in found.epochs)
    for line in found.epochs:
        for split in SPLITS:
            assert 0 <= line[split]["accuracy"] <= 1
            assert math.isfinite(line[split]["nll"])
    for step in found.steps:
        assert math.isclose(sum(step["contributions"]), 1, abs_tol=1e-5)
    assert found.config["method"] == settings.method


@pytest.mark.parametrize("name", HEADLINE)
def test_msam_trains_the_papers_model(name, trained, monkeypatch):
    monkeypatch.setitem(encoders.ENCODERS, "transformer", small_transformer)
    wide = paper.found(name).dataset == "ave"  # a spectrogram of 1004 frames beside three pictures
    settings, found = trained(name, 2, frames=1) if wide else trained(name, 4)
    sound(settings, found)
    assert len(found.steps) == (1 if wide else 2)
    for step in found.steps:
        assert step["radius"] == settings.sharpness["rho"]
        assert step["share"] == pytest.approx(max(step["contributions"]), abs=1e-5)
        assert step["dominant"] in found.epochs[-1]["valid"]["modalities"]


@pytest.mark.parametrize("name", OTHERS)
def test_every_row_trains_with_small_encoders(name, trained, monkeypatch):
    monkeypatch.setitem(encoders.ENCODERS, "transformer", small_transformer)
    sound(*trained(name, 6, batch=3))
