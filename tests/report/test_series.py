import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msam import record, selection
from msam.report import charts, interactive, runs, streams
from msam.report.charts import Area, Chart, Dots, Line
from msam.report.sections import Section, sections
from tests.report._records import STEPS_PER_EPOCH, config, write


def section(folder: Path) -> Section:
    rule = selection.load("best_validation")
    return sections(runs.finished(record.find(folder), rule)[0], rule)[0]


def chart(found: Section, name: str, tab: str = "") -> Chart:
    return next(c for c in found.charts if c.name == name and c.tab.startswith(tab))


def line(found: Chart, panel: int, label: str) -> Line:
    return next(m for m in found.panels[panel].marks if isinstance(m, Line) and m.label == label)


@pytest.fixture
def two_seeds(tmp_path: Path) -> Section:
    for seed, low in enumerate((0.5, 0.7)):
        rule = {"name": "msam", "rho": 0.3}
        curves: dict[str, Any] = {"train": [low, 0.9], "valid": [low, 0.8], "test": [low, 0.75]}
        shares = [0.6 + 0.2 * seed]
        write(tmp_path / f"{seed}.jsonl", config("joint", rule, seed=seed), shares=shares, **curves)
    return section(tmp_path)


def test_learning_curves_are_means_with_bands_of_one_standard_deviation(two_seeds: Section) -> None:
    found = line(chart(two_seeds, "curves", "together"), 0, "M-SAM")
    assert found.x.tolist() == [1, 2]
    assert found.y.tolist() == pytest.approx([60, 90])
    assert found.low is not None
    assert found.high is not None
    assert (found.high - found.y).tolist() == pytest.approx([math.sqrt(200), 0])
    assert (found.y - found.low).tolist() == pytest.approx([math.sqrt(200), 0])


def test_curves_of_single_modalities_are_those_of_validation(two_seeds: Section) -> None:
    found = chart(two_seeds, "curves", "each alone, others absent")
    assert [panel.title for panel in found.panels] == ["audio", "image"]
    assert line(found, 1, "M-SAM").y.tolist() == pytest.approx([60 * 0.7, 80 * 0.7])


def test_a_kind_that_no_run_has_is_left_out(two_seeds: Section) -> None:
    assert not [c for c in two_seeds.charts if "own head" in c.tab]


def test_tau_over_epochs(two_seeds: Section) -> None:
    assert line(chart(two_seeds, "tau"), 0, "M-SAM").y.tolist() == pytest.approx([0, (0.9 - 0.75) / 0.75])


def test_contributions_and_share_over_steps(two_seeds: Section) -> None:
    found = chart(two_seeds, "contributions")
    assert line(found, 0, "image").y == pytest.approx(np.full(2 * STEPS_PER_EPOCH, 0.7))
    assert line(found, 0, "audio").y == pytest.approx(np.full(2 * STEPS_PER_EPOCH, 0.3))
    assert line(found, 0, "share s").y == pytest.approx(np.full(2 * STEPS_PER_EPOCH, 0.7))
    assert "every recorded step." in found.caption


def test_dominance_is_a_stack_up_to_all_steps(tmp_path: Path) -> None:
    curves: dict[str, Any] = {"train": [0.9], "valid": [0.8], "test": [0.7]}
    for seed, dominant in enumerate((["audio"], ["image"], ["image"], ["image"])):
        write(tmp_path / f"{seed}.jsonl", config(seed=seed), dominant=dominant, **curves)
    audio, image = chart(section(tmp_path), "dominance").panels[0].marks
    assert isinstance(audio, Area)
    assert isinstance(image, Area)
    assert (audio.low[0], audio.high[0], image.low[0], image.high[0]) == (0, 25, 25, 100)


def test_one_seed_has_no_band(tmp_path: Path) -> None:
    curves: dict[str, Any] = {"train": [0.9], "valid": [0.8], "test": [0.7]}
    write(tmp_path / "a.jsonl", config(), **curves)
    assert line(chart(section(tmp_path), "curves"), 0, "Joint").low is None


def test_overview_pairs_differences_by_seed(tmp_path: Path) -> None:
    for name, rule, values in (("j", None, {0: 0.7, 1: 0.6}), ("s", "sam", {1: 0.65, 2: 0.9})):
        for seed, value in values.items():
            curves: dict[str, Any] = {"train": [0.9], "valid": [0.8], "test": [value]}
            write(tmp_path / f"{name}{seed}.jsonl", config("joint", rule, seed=seed), **curves)
    (dots,) = chart(section(tmp_path), "overview").panels[1].marks
    assert isinstance(dots, Dots)
    assert (dots.values.tolist(), dots.names) == (pytest.approx([5.0]), ("seed 1",))


def test_smoothing_keeps_constants_leaves_nan_out_and_length_alone() -> None:
    assert streams.smooth(np.full(9, 2.0), 5).tolist() == [2.0] * 9
    assert streams.smooth(np.array([1.0, math.nan, 3.0]), 3).tolist() == [1.0, 2.0, 3.0]
    assert len(streams.smooth(np.arange(2.0), 7)) == 2
    assert np.isnan(streams.smooth(np.full(3, math.nan), 3)).all()


def test_long_runs_are_thinned(tmp_path: Path) -> None:
    epochs = 100
    curves: dict[str, Any] = {"train": [0.9] * epochs, "valid": [0.8] * epochs, "test": [0.7] * epochs}
    write(tmp_path / "a.jsonl", config(), **curves)
    found = line(chart(section(tmp_path), "contributions"), 0, "image")
    assert len(found.x) == streams.POINTS
    assert (found.x[0], found.x[-1]) == (1, epochs * STEPS_PER_EPOCH)


def without_steps(path: Path, **means: dict[str, Any] | float) -> None:
    """What `record_every = 0` leaves of a record: no line per step, and `means` of them in the epochs' lines."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [line | ({"means": means} if means and line["kind"] == "epoch" else {}) for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept if line["kind"] != "step"))


def test_streams_of_records_without_steps_are_the_means_of_their_epochs(tmp_path: Path) -> None:
    curves: dict[str, Any] = {"train": [0.9] * 2, "valid": [0.8] * 2, "test": [0.7] * 2}
    for seed, audio in enumerate((0.2, 0.4)):
        path = write(tmp_path / f"{seed}.jsonl", config("joint", "msam", seed=seed), **curves)
        told = {"audio": audio, "image": 1 - audio}
        without_steps(path, share=1 - audio, contributions=told, dominance={"audio": 0.25, "image": 0.75})
    found = section(tmp_path)
    image = line(chart(found, "contributions"), 0, "image")
    assert (image.x.tolist(), image.y.tolist()) == ([1, 2], pytest.approx([0.7, 0.7]))
    assert image.high is not None
    assert (image.high - image.y).tolist() == pytest.approx([math.sqrt(0.02)] * 2)
    assert line(chart(found, "contributions"), 0, "share s").y.tolist() == pytest.approx([0.7, 0.7])
    audio_on_top = chart(found, "dominance").panels[0]
    assert (audio_on_top.x_label, audio_on_top.y_label) == ("epoch", "% of steps")
    assert [mark.high[0] for mark in audio_on_top.marks if isinstance(mark, Area)] == [25, 100]
    assert "means over the steps of each epoch" in chart(found, "contributions").caption


def test_streams_without_steps_and_means_are_measures_of_the_training_samples(tmp_path: Path) -> None:
    curves: dict[str, Any] = {"train": [0.9], "valid": [0.8], "test": [0.7]}
    without_steps(write(tmp_path / "a.jsonl", config(), **curves))
    found = section(tmp_path)
    assert line(chart(found, "contributions"), 0, "image").y.tolist() == [0.7]
    assert chart(found, "dominance").panels[0].y_label == "% of samples"
    assert "measured after each epoch" in chart(found, "dominance").caption


def test_rows_that_are_read_in_different_places_are_told_apart(tmp_path: Path) -> None:
    curves: dict[str, Any] = {"train": [0.9], "valid": [0.8], "test": [0.7]}
    write(tmp_path / "j.jsonl", config(), **curves)
    means: dict[str, Any] = {"share": 0.6, "contributions": {"audio": 0.4, "image": 0.6}}
    without_steps(write(tmp_path / "m.jsonl", config("joint", "msam"), **curves), **means)
    found = chart(section(tmp_path), "contributions")
    assert [panel.x_label for panel in found.panels] == ["training step", "epoch"]
    assert "Joint: of the batches, every recorded step. M-SAM: means over the steps" in found.caption


def test_a_row_is_read_where_all_its_runs_can_be(tmp_path: Path) -> None:
    curves: dict[str, Any] = {"train": [0.9], "valid": [0.8], "test": [0.7]}
    write(tmp_path / "0.jsonl", config(seed=0), **curves)
    without_steps(write(tmp_path / "1.jsonl", config(seed=1), **curves))
    assert chart(section(tmp_path), "contributions").panels[0].x_label == "epoch"


def test_rows_keep_colour_and_dash_and_variants_share_a_colour() -> None:
    many = [("Joint", "Joint"), ("M-SAM (rho=0.1)", "M-SAM"), ("M-SAM (rho=0.3)", "M-SAM")]
    many += [(f"row {i}", f"row {i}") for i in range(20)]
    look = charts.style(many)
    assert look.colours["M-SAM (rho=0.1)"] == look.colours["M-SAM (rho=0.3)"] == charts.FIXED_COLOURS["M-SAM"]
    assert len({(look.colours[label], look.dashes[label]) for label, _ in many}) == len(many)


def test_both_renderers_draw_every_mark(two_seeds: Section) -> None:
    for found in two_seeds.charts:
        for panel, figure in zip(found.panels, interactive.figures(found), strict=True):
            labels = {trace["legendgroup"] for trace in figure["data"]}
            assert labels == {mark.label for mark in panel.marks}


@pytest.mark.parametrize(("epochs", "step"), [(1, 1), (3, 1), (30, None)])
def test_few_epochs_are_numbered_one_by_one(tmp_path: Path, epochs: int, step: int | None) -> None:
    curves: dict[str, Any] = {"train": [0.9] * epochs, "valid": [0.8] * epochs, "test": [0.7] * epochs}
    write(tmp_path / "0.jsonl", config(), **curves)
    figures = interactive.figures(chart(section(tmp_path), "curves", "together"))
    assert {figure["layout"]["xaxis"].get("dtick") for figure in figures} == {step}
