"""Figures of what probes found: their numbers are those of the records, by hand."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from msam.report import curves, interactive, report, surfaces
from msam.report.charts import Chart, Dots, Line
from tests.report._probes import curvature, gradients, landscape, with_probes
from tests.report._records import config, write
from tests.report.test_formats import check
from tests.report.test_series import chart, line, section

RESULT: dict[str, Any] = {"train": [0.9], "valid": [0.8], "test": [0.7]}
BOWL = [[2.0, 1.0, 2.0], [1.0, 0.5, 1.0], [2.0, 1.0, 4.0]]


def run(path: Path, rule: Any, seed: int, *probes: dict[str, Any], **more: Any) -> None:
    with_probes(write(path, config("joint", rule, seed=seed), **(RESULT | more)), *probes)


def dots(found: Chart, panel: int, label: str) -> Dots:
    return next(m for m in found.panels[panel].marks if isinstance(m, Dots) and m.label == label)


def test_gradients_where_modalities_meet_are_means_over_seeds_with_bands(tmp_path: Path) -> None:
    for seed, norm in enumerate((1.0, 3.0)):
        lines = [gradients(epoch, {"audio": norm, "image": 4.0}, -0.5 + seed) for epoch in (0, 1)]
        run(tmp_path / f"{seed}.jsonl", None, seed, *lines)
    found = chart(section(tmp_path), "gradients", "where")
    assert [panel.title for panel in found.panels] == ["audio", "image", "all together", "audio and image"]
    audio = line(found, 0, "Joint")
    assert audio.x.tolist() == [0, 1]
    assert audio.y.tolist() == [2.0, 2.0]
    assert audio.high is not None
    assert audio.high.tolist() == pytest.approx([2 + math.sqrt(2)] * 2)
    assert line(found, 2, "Joint").y.tolist() == [6.0, 6.0]
    assert line(found, 3, "Joint").y.tolist() == [0.0, 0.0]
    assert "1,234 parameters" in found.caption
    assert "2 seeds per row" in found.caption


def test_norms_of_one_chart_have_one_scale_and_cosines_all_there_is(tmp_path: Path) -> None:
    run(tmp_path / "a.jsonl", None, 0, gradients(0, {"audio": 1.0, "image": 3.0}, 0.1))
    ranges = [panel.y_range for panel in chart(section(tmp_path), "gradients", "where").panels]
    assert ranges == [(0.0, pytest.approx(4.2))] * 3 + [(-1.05, 1.05)]


def test_gradients_on_the_encoders_tell_own_from_joint_loss(tmp_path: Path) -> None:
    run(tmp_path / "a.jsonl", None, 0, gradients(0, {"audio": 1.0, "image": 3.0}, 0.1))
    found = chart(section(tmp_path), "gradients", "on the encoders")
    by_title = {panel.title: panel.marks[0] for panel in found.panels}
    values = {title: mark.y.tolist() for title, mark in by_title.items() if isinstance(mark, Line)}
    assert values == {
        "audio, own loss": [2.0],
        "image, own loss": [6.0],
        "audio, joint loss": [0.5],
        "image, joint loss": [1.5],
        "audio, own and joint": [0.5],
        "image, own and joint": [0.5],
    }


def test_where_modalities_share_no_weights_only_encoders_are_shown(tmp_path: Path) -> None:
    run(tmp_path / "a.jsonl", None, 0, gradients(0, {"audio": 1.0, "image": 3.0}, None, shared=False))
    assert [c.tab for c in section(tmp_path).charts if c.name == "gradients"] == ["on the encoders"]


def test_a_gradient_without_direction_leaves_a_gap(tmp_path: Path) -> None:
    lines = [gradients(0, {"audio": 1.0, "image": 1.0}, None), gradients(1, {"audio": 1.0, "image": 1.0}, 0.25)]
    run(tmp_path / "a.jsonl", None, 0, *lines)
    found = line(chart(section(tmp_path), "gradients", "where"), 3, "Joint")
    assert np.isnan(found.y[0])
    assert found.y[1] == 0.25


def test_sharpness_shows_seeds_mean_and_deviation_at_the_radius_all_are_measured_at(tmp_path: Path) -> None:
    for seed, (eigenvalue, rise) in enumerate(((2.0, 0.1), (4.0, 0.3))):
        run(tmp_path / f"{seed}.jsonl", "sam", seed, curvature([eigenvalue, 1.0], rise, audio=0.5, image=0.6))
    found = chart(section(tmp_path), "sharpness")
    top = dots(found, 0, "SAM")
    assert (top.values.tolist(), top.mean, top.names) == ([2.0, 4.0], 3.0, ("seed 0", "seed 1"))
    assert (top.low, top.high) == pytest.approx((3 - math.sqrt(2), 3 + math.sqrt(2)))
    assert [dots(found, panel, "SAM").mean for panel in (1, 2, 3)] == pytest.approx([0.2, 0.5, 0.6])
    assert "no eigenvalue" not in found.caption


def test_sharpness_stands_in_a_table_beside_the_loss_and_in_every_format(tmp_path: Path) -> None:
    for seed, eigenvalue in enumerate((2.0, 4.0, None)):
        run(tmp_path / f"{seed}.jsonl", "sam", seed, curvature([eigenvalue], 0.1, audio=0.5, image=0.6))
    run(tmp_path / "joint.jsonl", None, 0)
    (line,) = (table := section(tmp_path).tables[-1]).numbers
    top = "Largest eigenvalue of the Hessian"
    assert (line["row"], line["seeds"]) == ("SAM", 3)
    assert (line[f"{top} mean"], line[f"{top} sd"]) == (3.0, pytest.approx(math.sqrt(2)))
    assert line["Training loss mean"] == pytest.approx(0.1)
    assert line["SAM's measure, image alone mean"] == pytest.approx(0.6)
    assert "In 1 of 3 runs no eigenvalue was found." in table.caption
    check([table])
    written = report([tmp_path], tmp_path / "out", formats=("csv",)).paths
    assert tmp_path / "out" / "sharpness.csv" in written


def test_runs_without_an_eigenvalue_are_counted(tmp_path: Path) -> None:
    for seed, eigenvalue in enumerate((2.0, None)):
        run(tmp_path / f"{seed}.jsonl", "sam", seed, curvature([eigenvalue], 0.1))
    found = chart(section(tmp_path), "sharpness")
    assert (dots(found, 0, "SAM").mean, dots(found, 0, "SAM").names) == (2.0, ("seed 0",))
    assert "In 1 of 2 runs no eigenvalue was found." in found.caption


def test_landscapes_of_three_rows_at_a_seed_that_all_have(tmp_path: Path) -> None:
    rules: list[tuple[str, Any, tuple[int, ...]]] = [
        ("j", None, (0, 1)),
        ("s", "sam", (1, 2)),
        ("m", "msam", (1, 3)),
        ("a", "asam", (1,)),
    ]
    for name, rule, seeds in rules:
        for seed in seeds:
            run(tmp_path / f"{name}{seed}.jsonl", rule, seed, landscape(BOWL, seed))
    found = chart(section(tmp_path), "landscape")
    assert [panel.row for panel in found.panels] == ["Joint", "SAM", "M-SAM"]
    assert {panel.y_label for panel in found.panels} == {"seed 1; loss 0.5 nats in the middle"}
    assert "drawn from seed 1" in found.caption
    assert found.heights == (0.5, 4.0)


def test_rows_without_a_common_seed_are_shown_with_their_own(tmp_path: Path) -> None:
    for seed, rule in enumerate((None, "sam")):
        run(tmp_path / f"{seed}.jsonl", rule, seed, landscape(BOWL, seed))
    found = chart(section(tmp_path), "landscape")
    assert [panel.y_label[:6] for panel in found.panels] == ["seed 0", "seed 1"]
    assert "drawn from seed 0, 1" in found.caption


def test_of_several_settings_the_best_on_validation_shows_its_landscape(tmp_path: Path) -> None:
    for rho, accuracy in ((0.1, 0.7), (0.3, 0.8)):
        rule = {"name": "msam", "rho": rho}
        run(tmp_path / f"{rho}.jsonl", rule, 0, landscape(BOWL), valid=[accuracy])
    assert [panel.row for panel in chart(section(tmp_path), "landscape").panels] == ["M-SAM (rho=0.3)"]


def test_x_and_y_of_a_landscape_are_not_swapped_on_the_page(tmp_path: Path) -> None:
    tilted = [[0.0, 1.0, 2.0], [10.0, 11.0, 12.0], [20.0, None, 22.0]]
    run(tmp_path / "a.jsonl", None, 0, landscape(tilted))
    (figure,) = interactive.figures(chart(section(tmp_path), "landscape"))
    (trace,) = figure["data"]
    x, y = trace["x"].index(1.0), trace["y"].index(-1.0)
    assert trace["z"][y][x] == 20.0
    assert trace["z"][1][2] is None
    assert (trace["cmin"], trace["cmax"]) == (0.0, 22.0)


def test_landscapes_in_a_file_have_two_viewpoints_and_one_scale(tmp_path: Path) -> None:
    flat = [[1.0] * 3] * 3
    for name, rule, losses in (("j", None, BOWL), ("s", "sam", flat)):
        run(tmp_path / f"{name}.jsonl", rule, 0, landscape(losses))
    found = chart(section(tmp_path), "landscape")
    spaces = [axes for axes in curves.draw(found, "").axes if axes.name == "3d"]
    views = [(axes.elev, axes.azim) for axes in spaces]  # type: ignore[attr-defined]
    assert sorted(views) == sorted([*surfaces.VIEWPOINTS] * 2)
    assert {axes.get_zlim() for axes in spaces} == {spaces[0].get_zlim()}  # type: ignore[attr-defined]
    low, high = spaces[0].get_zlim()  # type: ignore[attr-defined]
    assert low <= 0.5
    assert high >= 4.0


def test_records_without_probes_have_none_of_these(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", config(), **RESULT)
    assert not {"gradients", "sharpness", "landscape"} & {c.name for c in section(tmp_path).charts}


def test_every_chart_is_drawn_as_png_and_svg_again_the_same(tmp_path: Path) -> None:
    probes = [gradients(0, {"audio": 1.0, "image": 2.0}, 0.1), curvature([2.0], 0.1, audio=0.1), landscape(BOWL)]
    run(tmp_path / "a.jsonl", "msam", 0, *probes)
    for found in section(tmp_path).charts:
        if found.name in ("gradients", "sharpness", "landscape"):
            assert imread(io.BytesIO(curves.picture(found, "", "png"))).std() > 0.01
            drawn = curves.picture(found, "", "svg")
            assert b"<svg" in drawn
            assert drawn == curves.picture(found, "", "svg")
