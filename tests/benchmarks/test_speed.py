"""The speed bench measures what it says; times are not asserted, memory is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    out = tmp_path_factory.mktemp("speed")
    command = [sys.executable, ROOT / "benchmarks" / "speed", "--models", "mlps", "--rounds", "1", "--out", out]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads((out / "speed.json").read_text()), (out / "speed.md").read_text()


def test_it_measures_every_contender_with_both_base_optimizers(bench):
    found, table = bench
    assert [(one["place"], one["model"], one["flags"]) for one in found["measured"][:2]] == [
        ("cpu", "mlps", "default"),
        ("cpu", "mlps", "fused"),
    ]
    for one in found["measured"]:
        assert one["contenders"]["SGD"]["wall_over_sgd"] == 1
        for who, told in one["contenders"].items():
            assert told["wall_over_sgd"] > 0
            assert f"| {one['flags']} | {who} |" in table


def test_memory_is_in_copies_of_the_parameters_beyond_those_of_sgd(bench):
    found, _ = bench
    copies = {who: told["copies"] for who, told in found["measured"][0]["contenders"].items()}
    assert copies["SGD"] == 0
    assert 1 <= copies["pytorch_optimizer SAM"] < 1.2
    assert 2 <= copies["M-SAM"] < 2.2  # the first gradients and the weights; a little for the first output
    assert 1 <= copies["M-SAM, memory low"] < 1.2
    assert copies["M-SAM by the letter"] > 3


def test_an_unknown_model_is_refused():
    command = [sys.executable, ROOT / "benchmarks" / "speed", "--models", "mlp"]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode != 0
    assert "Did you mean 'mlps'?" in said.stderr
