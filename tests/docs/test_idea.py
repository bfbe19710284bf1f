"""The picture of the idea is drawn from committed records and from a step that the library makes."""

import csv
import re

import numpy as np
import pytest
import torch

from tests.docs.conftest import ROOT, tool

build_idea = tool("build_idea")


def words(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_the_committed_picture_says_what_the_tool_would_write(tmp_path):
    build_idea.draw(tmp_path / "idea.svg")
    drawn = words((tmp_path / "idea.svg").read_text(encoding="utf-8"))
    assert len(drawn) > 20
    assert words(build_idea.PICTURE.read_text(encoding="utf-8")) == drawn, "run tools/build_idea.py"


def test_its_accuracies_are_those_of_the_committed_table():
    with (build_idea.RECORDS.parent / "table.csv").open(encoding="utf-8") as table:
        rows = {row["row"]: row for row in csv.DictReader(table)}
    found = build_idea.numbers()
    for name in build_idea.MODALITIES:
        assert len(found.alone[name]) == len(found.inside[name]) == len(found.together) == 10
        assert found.alone[name].mean() == pytest.approx(float(rows[f"Unimodal {name}"]["accuracy mean"]))
        assert found.inside[name].mean() == pytest.approx(float(rows["Joint"][f"zeroed.{name} mean"]))
    assert found.together.mean() == pytest.approx(float(rows["Joint"]["accuracy mean"]))
    assert np.allclose(sum(found.shares.values()), 1)


def test_its_step_is_m_sam():
    made = build_idea.step(rho=0.6, contribution=0.65)

    def gradient(at):
        w = torch.tensor(at, requires_grad=True)
        build_idea.loss(w).backward()
        return w.grad.numpy()

    assert np.allclose(made.first, gradient(made.theta))
    assert np.allclose(made.climbed - made.theta, 0.6 * made.first / np.linalg.norm(made.first))
    assert np.allclose(made.second, gradient(made.climbed))
    assert np.allclose(made.spent, 0.65 * made.second + 0.35 * made.first)


def test_two_pages_show_it():
    for page in ("index.md", "idea.md"):
        assert "](assets/idea.svg)" in (ROOT / "docs" / page).read_text(encoding="utf-8")
