"""A Ray cluster whose machines go away, or do not answer."""

import os
import subprocess
import sys

import pytest

from msam.bench.engines import load
from tests.bench.engines import _tasks
from tests.bench.engines._processes import lives, parent, until
from tests.bench.engines._tasks import Noted, beginnings

pytestmark = pytest.mark.ray


def test_a_machine_that_is_killed_in_the_middle_costs_no_result(ray_machines, tmp_path):
    folder = str(tmp_path)
    tasks = [Noted("first", folder), *(Noted(name, folder, awaits="go") for name in "abcd")]
    doomed = ray_machines.add_node(num_cpus=1)
    (raylet,) = (one.process.pid for one in doomed.all_processes["raylet"])
    results = load("ray")().map(_tasks.do, tasks)
    found = [next(results)]
    there = []
    until(lambda: there.extend(p for p in beginnings(tmp_path, "[abcd]") if parent(p) == raylet) or there, 60)
    ray_machines.remove_node(doomed, allow_graceful=False)
    until(lambda: not lives(there[0]))
    (tmp_path / "go").touch()
    assert sorted(found + list(results)) == list(enumerate(["FIRST", "A", "B", "C", "D"]))
    assert len(beginnings(tmp_path, "[abcd]")) == 5


@pytest.mark.usefixtures("ray_machines")
def test_an_open_connection_is_used_and_left_open():
    import ray

    list(load("ray")(address="nobody.invalid:1").map(abs, [1]))
    assert ray.is_initialized()


@pytest.mark.usefixtures("ray_machines")
def test_a_folder_that_a_machine_lacks_is_named(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setattr(os, "getcwd", lambda: "/no/such/folder")
    with pytest.raises(ValueError, match="has no folder /no/such/folder: start from one that all share"):
        list(load("ray")().map(abs, [1]))


def test_a_cluster_that_does_not_answer_is_named(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(
        ValueError, match=r"No Ray cluster answers at '127.0.0.1:9': .*refused.* take the address 'local'"
    ):
        list(load("ray")(address="127.0.0.1:9").map(abs, [1]))


def test_nothing_of_the_users_process_is_replaced():
    """Ray's progress bars, made as soon as a worker is heard, would put a function of their own in place of `print`."""
    program = (
        "import builtins; from msam.bench.engines import load; before = builtins.print\n"
        "if __name__ == '__main__':\n"
        "    list(load('ray')().map(abs, [1]))\n"
        "    from ray.experimental import tqdm_ray\n"
        "    tqdm_ray.instance(); assert builtins.print is before"
    )
    plain = {key: value for key, value in os.environ.items() if key != "RAY_TQDM_PATCH_PRINT"}
    subprocess.run([sys.executable, "-c", program], check=True, env=plain, capture_output=True, timeout=120)
