"""A bench whose runs are stacked gives the records of one whose runs are not."""

import pytest

from msam import bench
from msam.bench import cells
from msam.bench.cells import WORK, filed
from tests.bench.inline import Inline
from tests.bench.stacks import Interrupted, furthest, seeds, stopped_in_its_second_epoch

SIX_DIGITS = 2e-6


def run(configs, folder, **options):
    return bench.run(configs, folder, engine=Inline(), quiet=True, **options)


def told(record):
    """Return what a record says of its run: its epochs, and how it ended."""
    epochs = [{key: value for key, value in line.items() if key != "seconds"} for line in record.epochs]
    return [*epochs, {key: record.end[key] for key in ("status", "steps", "epochs", "passes_per_step")}]


@pytest.fixture
def mixed():
    """Rows that are stacked, one that is not, and one that diverges; two seeds of each."""
    few = {"epochs": 1, "record_every": 0}
    return [
        *seeds(2, **few, sharpness="msam"),
        *seeds(2, **few, method="agm"),
        *seeds(2, **few, method="ogm_ge"),
        *seeds(2, **few, optimizer={"lr": 1e300}),
    ]


def test_records_are_those_of_runs_that_are_alone(mixed, tmp_path):
    stacked, alone = run(mixed, tmp_path / "stacked", stacked=True), run(mixed, tmp_path / "alone")
    for one, other in zip(stacked, alone, strict=True):
        assert furthest(told(one), told(other)) <= SIX_DIGITS
    assert [record.end["status"] for record in stacked] == ["finished"] * 6 + ["diverged"] * 2
    assert [record.header["host"].get("lanes") for record in stacked] == [2, 2, None, None, 2, 2, 2, 2]
    names = {f"{config.run_name()}.jsonl.gz" for config in mixed}
    assert {path.name for path in (tmp_path / "stacked").iterdir()} - {WORK} == names


def test_weights_are_kept_of_every_lane(tmp_path):
    configs = seeds(2, epochs=1)
    run(configs, tmp_path, stacked=True, keep_weights=True)
    assert all((tmp_path / config.run_name() / "checkpoint.pt").exists() for config in configs)


@pytest.mark.parametrize("then", [True, False], ids=["stacked again", "alone"])
def test_a_bench_that_was_stopped_in_a_stack_goes_on(then, monkeypatch, tmp_path):
    configs = seeds(3, epochs=3, sharpness="msam", record_every=0)
    with stopped_in_its_second_epoch(monkeypatch):
        run(configs, tmp_path / "stopped", stacked=True)
    whole, stopped = run(configs, tmp_path / "whole", stacked=True), run(configs, tmp_path / "stopped", stacked=then)
    for one, other in zip(stopped, whole, strict=True):
        assert furthest(told(one), told(other)) <= SIX_DIGITS


def test_what_was_stopped_while_it_was_filed_is_filed(monkeypatch, tmp_path):
    configs = seeds(3, epochs=1)
    file, left = cells.record.file, [2]

    def stopped(source, target):
        left[0] -= 1
        if not left[0]:
            raise Interrupted
        file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(cells.record, "file", stopped)
        with pytest.raises(Interrupted):
            run(configs, tmp_path, stacked=True)
    assert [filed(tmp_path, config.run_name()).exists() for config in configs] == [True, False, False]
    assert [record.end["status"] for record in run(configs, tmp_path, stacked=True)] == ["finished"] * 3
