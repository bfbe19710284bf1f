"""`msam bench tune`, and a grid that takes what it chose."""

import pytest

from msam import bench, cli, record
from tests.bench.grids import tiny

GRID = "tests.bench.grids.tiny"
FEW = ("--trials", "2", "--seeds", "1", "--engine.workers", "1", "--set", "epochs=1")


def msam(*words: object) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main([*map(str, words)])
    assert not done.value.code


def test_a_grid_is_tuned_and_run_with_what_was_chosen(tmp_path, capsys):
    msam("bench", "tune", GRID, *FEW, "--out", tmp_path / "tuning")
    said = " ".join(capsys.readouterr().out.split())
    assert f"msam bench run {GRID} --tuned {tmp_path / 'tuning'}" in said
    found = bench.chosen(tmp_path / "tuning")
    assert list(found) == sorted(tiny().rows)
    assert all(choice.plan.seeds == (1000,) and len(choice.trials) == 2 for choice in found.values())
    msam("bench", "run", GRID, "--tuned", tmp_path / "tuning", "--no-controls", *FEW[4:], "--out", tmp_path / "runs")
    rates = {one.config["optimizer"]["lr"] for one in record.find(tmp_path / "runs")}
    assert rates == {choice.values["optimizer.lr"] for choice in found.values()}


def test_seeds_that_chose_do_not_report(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "tune", "tests.bench.grids.late_seeds", "--out", str(tmp_path)])
    assert "must be apart, both have 1001" in " ".join(capsys.readouterr().err.split())
