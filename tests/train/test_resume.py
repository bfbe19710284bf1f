"""An interrupted run goes on bit for bit; what cannot be gone on with is refused and left as it is."""

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from msam.record import read, without_volatile
from msam.train import config, load_model, train

SMALL = {"name": "dial", "train_size": 96, "valid_size": 30, "test_size": 30, "bayes_samples": 100}


def small(**more):
    return config(
        {"data": SMALL, "sharpness": {"name": "msam", "rho": 0.2}, "epochs": 2, "batch_size": 16, "threads": 1} | more
    )


def snapshot(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()}


def test_killed_at_ten_random_moments_every_run_ends_as_if_undisturbed(tmp_path):
    seed = random.randrange(10**6)
    script = Path(__file__).with_name("kill_and_resume.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(seed), "10"], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    report = json.loads(done.stdout.splitlines()[-1])
    print(report)
    assert report["equal"] == 10, report
    assert report["killed"] >= 5, report


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path):
    (tmp_path / "record.jsonl").write_text('{"kind":"header"}\n')
    assert train(small(), tmp_path, resume=True).end["status"] == "finished"


def test_a_finished_run_is_returned_as_it_is(tmp_path):
    train(small(), tmp_path)
    before = snapshot(tmp_path)
    assert train(small(), tmp_path, resume=True).end["steps"] == 12
    assert snapshot(tmp_path) == before


def test_an_existing_run_is_not_overwritten(tmp_path):
    train(small(), tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(FileExistsError, match="--resume"):
        train(small(), tmp_path)
    assert snapshot(tmp_path) == before


def test_a_checkpoint_of_another_configuration_is_refused_naming_what_differs(tmp_path):
    train(small(), tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=r"seed: 1 != 0; .*|.*sharpness.rho: 0.3 != 0.2.*"):
        train(small(seed=1, sharpness={"name": "msam", "rho": 0.3}), tmp_path, resume=True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("keep", [0, 10, 1000, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_and_left_as_it_is(tmp_path, keep):
    train(small(), tmp_path)
    path = tmp_path / "checkpoint.pt"
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="truncated or damaged"):
        train(small(), tmp_path, resume=True)
    assert snapshot(tmp_path) == before


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (os.environ["BOMB"],))


def test_nothing_in_a_strangers_checkpoint_is_executed(tmp_path, monkeypatch):
    train(small(), tmp_path)
    bomb = tmp_path / "exploded"
    monkeypatch.setenv("BOMB", str(bomb))
    for write in (lambda p: torch.save(Bomb(), p), lambda p: p.write_bytes(pickle.dumps(Bomb()))):
        write(tmp_path / "checkpoint.pt")
        with pytest.raises(ValueError, match="truncated or damaged"):
            train(small(), tmp_path, resume=True)
    assert not bomb.exists()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tests.train.test_resume import small
from msam.train import train
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    train(small(), Path(sys.argv[1]), resume=True)
except OSError as error:
    print(error)
    raise SystemExit(3)
"""


@pytest.mark.parametrize("what", ["record", "checkpoint"])
def test_a_full_disk_leaves_what_was_there_and_the_run_can_go_on(tmp_path, what):
    expected = train(small(), tmp_path / "undisturbed")
    sizes = {f.name: f.stat().st_size for f in (tmp_path / "undisturbed").iterdir()}
    header = len((tmp_path / "undisturbed" / "record.jsonl").read_bytes().partition(b"\n")[0]) + 1
    first_lines = header + (sizes["record.jsonl"] - header) // 8
    assert sizes["checkpoint.pt"] > first_lines  # the checkpoint of so small a model is the larger file
    limit = {"record": first_lines, "checkpoint": sizes["checkpoint.pt"] - 50}[what]
    folder = tmp_path / "full"
    root = Path(__file__).parents[2]
    stopped = subprocess.run(
        [sys.executable, "-c", FULL_DISK, folder, str(limit)], capture_output=True, text=True, cwd=root, check=False
    )
    assert stopped.returncode == 3, stopped.stderr
    assert "make room" in stopped.stdout
    assert read(folder / "record.jsonl").header
    assert not list(folder.glob("*.tmp"))
    resumed = train(small(), folder, resume=True)
    assert resumed.end["weights"] == expected.end["weights"]
    assert without_volatile(resumed.steps) == without_volatile(expected.steps)


def test_the_model_of_a_finished_run_can_be_loaded(tmp_path):
    record = train(small(), tmp_path)
    from msam.train.header import weights_digest

    assert weights_digest(load_model(tmp_path)) == record.end["weights"]


def test_a_finished_run_is_not_taken_for_one_of_other_data_that_lie_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "elsewhere.py").write_text(
        "from msam.data.dial import dial\n"
        "def elsewhere(*, root: str = ''):\n"
        "    return dial(seed=len(root), train_size=40, valid_size=20, test_size=20, bayes_samples=10)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def at(root):
        return config(data={"name": "lab.elsewhere", "root": root}, epochs=1, threads=1)

    done = train(at("a"), tmp_path / "run")
    assert train(at("b"), tmp_path / "run", resume=True).end == done.end
    with pytest.raises(ValueError, match="fingerprints differ"):
        train(at("other"), tmp_path / "run", resume=True)
