"""The bench of stacks runs the same cells in every way, and its table says what was measured."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

from msam.bench.stack import groups
from msam.train import config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stacking():
    spec = importlib.util.spec_from_file_location("stacking", ROOT / "benchmarks" / "stacking.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("data", ["dial", "avdigits"])
def test_a_process_trains_the_configuration_that_a_worker_trains(stacking, data):
    for cell in stacking._cells(data, 2, epochs=3):
        assert config(tomllib.loads(stacking._toml(cell.model_dump(mode="json")))) == cell


def test_the_dial_is_stacked_by_tens_and_digits_are_not(stacking):
    assert [len(group) for group in groups(stacking._cells("dial", 10, epochs=3))] == [10] * 4
    assert {len(group) for group in groups(stacking._cells("avdigits", 2, epochs=3))} == {1}


def test_the_table_compares_with_a_process_for_every_run(stacking):
    part = {"wall": 10.0, "cpu": 20.0, "load": 2.0}
    table = stacking._told(
        {
            "machine": "a machine",
            "epochs": 20,
            "parts": {
                "dial, processes, 0": part | {"runs": 4},
                "dial, processes, 1": part | {"runs": 4},
                "dial, workers, 0": part | {"runs": 40, "accuracy": [0.5, 0.7]},
                "dial, stacks of 10, 0": part | {"runs": 80, "accuracy": [0.5, 0.69]},
            },
        }
    )
    assert "| dial | processes | 8 | 1440 | 1.0 | 5.00 | 1.0 |" in table
    assert "| dial | stacks of 10 | 80 | 28800 | 20.0 | 0.25 | 20.0 |" in table
    assert "of 2 pairs 1 are equal, the largest difference is 0.0100" in table


def test_cpu_time_is_that_of_all_descendants(stacking):
    before = stacking._cpu_seconds()
    stacking.subprocess.run([stacking.sys.executable, "-c", "sum(range(10**7))"], check=True)
    assert stacking._cpu_seconds() > before
