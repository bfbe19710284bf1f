"""`msam bench`: a grid by name, its engine's options as flags, and a report without a word about where."""

import pytest

from msam import record
from msam.bench import tune
from tests.bench import grids
from tests.bench.grids import tiny

GRID = "tests.bench.grids.tiny"


@pytest.fixture
def here(monkeypatch, request):
    monkeypatch.syspath_prepend(request.config.rootpath)


def test_smoke_and_a_report_of_it(msam_):
    code, out, err = msam_("bench run smoke --seeds 2 --engine.workers 1")
    assert code == 0, err
    assert "Records: runs/smoke" in out
    code, out, _ = msam_("report")
    assert code == 0
    assert "M-SAM" in out
    assert "page.html" in out


def test_a_grid_of_ones_own_runs_where_it_is_told_to_and_is_not_run_twice(msam_, here, tmp_path):
    code, _, err = msam_(f"bench run {GRID} --out mine --no-controls --engine.workers 1")
    assert code == 0
    assert "mine: 8 of 8 cells recorded, 8 of them now" in err
    assert {r.header["run"] for r in record.find(tmp_path / "mine")} == {c.run_name() for c in tiny().cells()}
    assert "8 of 8 cells recorded, 0 of them now" in msam_(f"bench run {GRID} --out mine --no-controls")[2]


def test_controls_are_run_after_the_rows_that_they_belong_to(msam_, here, tmp_path):
    _, _, err = msam_(f"bench run {GRID} --seeds 1 --engine.workers 1")
    assert "4 of 4 cells recorded" in err
    assert "7 of 7 cells recorded, 7 of them now" in err
    kinds = {
        (r.config["method"]["name"], (r.config["sharpness"] or {}).get("name")) for r in record.find(tmp_path / "runs")
    }
    assert {("ensemble", None), ("joint", "sam"), ("ogm_ge", "sam")} <= kinds


def test_help_shows_the_flags_of_the_engine_that_is_chosen(msam_):
    assert "--engine.partition" in msam_("bench run smoke --engine slurm --help")[1]
    assert "--engine.partition" not in msam_("bench run smoke --help")[1]


def test_what_ships_is_listed(msam_):
    _, out, _ = msam_("list grids")
    assert all(name in out for name in ("smoke", "avdigits", "dial", "pairs", "paper/cremad"))
    _, out, _ = msam_("list engines")
    assert all(name in out for name in ("local", "slurm", "ray", "workers", "partition"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("bench run smok", "Unknown grid 'smok'. Did you mean 'smoke'?"),
        ("bench run tests.bench.grids.tinny", "has no attribute 'tinny'"),
        ("bench run tests.bench.nothing.tiny", "A dotted name must be a function of an importable module"),
        ("bench run tests.bench.grids.WORLD", "must be a function that returns a Grid, found dict"),
        ("bench run tests.bench.grids.no_grid", "must return a msam.bench.Grid, returned list"),
        ("bench run smoke --engine cloud", "Unknown engine 'cloud'"),
        ("bench run smoke --engine.workers -1", "`workers` must be >= 0, received -1"),
        ("bench run tests.bench.grids.late_seeds --seeds 2", "its function takes no `seeds`"),
        ("bench run smoke --seeds 0", "`seeds` must be >= 1, received 0"),
    ],
)
def test_a_mistake_ends_with_one_message(msam_, here, line, said):
    code, _, err = msam_(line)
    assert code == 1
    assert said in err


def test_tuning_then_the_tuned_grid(msam_, here, tmp_path):
    code, out, err = msam_(f"bench tune {GRID} --trials 2 --seeds 1 --engine.workers 1")
    assert code == 0, err
    assert f"msam bench run {GRID} --tuned tuning/{GRID}" in out
    chosen = {name: choice.settings for name, choice in tune.chosen(tmp_path / "tuning" / GRID).items()}
    assert set(chosen) == set(tiny().rows)
    assert msam_(f"bench run {GRID} --tuned tuning/{GRID} --seeds 1 --no-controls --engine.workers 1")[0] == 0
    ran = {r.header["run"] for r in record.find(tmp_path / "runs")}
    assert ran == {c.run_name() for c in tiny(seeds=1).tuned(chosen).cells()}


def test_a_seed_of_tuning_is_not_reported(msam_, here, monkeypatch):
    monkeypatch.setattr("tests.bench.grids.tiny.__defaults__", ([0, 1000],))
    code, _, err = msam_(f"bench tune {GRID} --trials 1 --seeds 1")
    assert code == 1
    assert "Seeds of tuning and of the report must be apart, both have 1000" in err


def test_a_grid_with_rows_that_were_not_tuned_is_refused(msam_, here):
    assert msam_("bench tune tests.bench.grids.tiny --trials 1 --seeds 1 --engine.workers 1 --out few")[0] == 0
    code, _, err = msam_("bench run smoke --tuned few --seeds 1")
    assert code == 1
    assert "rows were not tuned" in err


def test_settings_go_over_every_row(msam_, here, tmp_path):
    line = f"bench run {GRID} --seeds 1 --no-controls --engine.workers 1 --set epochs=1 --set data.train_size=64"
    assert msam_(line)[0] == 0
    records = record.find(tmp_path / "runs")
    assert {(r.config["epochs"], r.config["data"]["train_size"]) for r in records} == {(1, 64)}


@pytest.mark.parametrize(
    "words", ["optimizer=adamw --set optimizer.lr=0.02", "optimizer.lr=0.02 --set optimizer=adamw"]
)
def test_a_part_and_its_options_are_set_in_any_order(msam_, here, tmp_path, words):
    assert msam_(f"bench run {GRID} --seeds 1 --no-controls --engine.workers 1 --set epochs=1 --set {words}")[0] == 0
    found = [r.config["optimizer"] for r in record.find(tmp_path / "runs")]
    assert {(optimizer["name"], optimizer["lr"]) for optimizer in found} == {("adamw", 0.02)}


def test_what_is_set_goes_over_what_was_tuned(msam_, here, tmp_path):
    assert msam_(f"bench tune {GRID} --trials 1 --seeds 1 --engine.workers 1 --out few")[0] == 0
    line = f"bench run {GRID} --tuned few --seeds 1 --no-controls --engine.workers 1 --set epochs=1"
    assert msam_(line)[0] == 0
    assert {r.config["epochs"] for r in record.find(tmp_path / "runs")} == {1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("seed=3", "Say which with `seeds`"),
        ("epochs", "`--set` must be KEY=VALUE"),
        ("epoch=3", "Unknown key 'epoch'. Did you mean 'epochs'"),
        ("epochs=0", ">= 1"),
    ],
)
def test_settings_that_are_none_end_it_before_anything_runs(msam_, here, tmp_path, words, said):
    code, _, err = msam_(f"bench run {GRID} --set {words}")
    assert code == 1
    assert said in err
    assert not (tmp_path / "runs").exists()


def test_a_row_that_has_changed_since_it_was_tuned_is_refused(msam_, here, monkeypatch):
    assert msam_(f"bench tune {GRID} --trials 1 --seeds 1 --engine.workers 1")[0] == 0
    monkeypatch.setitem(grids.WORLD, "nuisance", 0.5)
    code, _, err = msam_(f"bench run {GRID} --tuned tuning/{GRID} --seeds 1")
    assert code == 1
    assert "has changed since it was tuned" in err
    assert "nuisance" in err
