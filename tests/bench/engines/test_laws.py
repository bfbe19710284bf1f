"""Laws of every engine: each task's result once, in any order; a death costs only the task that died of it."""

import os
import sys
from itertools import islice

import pytest

from msam.bench.engines import Engine, Lost, load, names
from tests.bench.engines import _tasks
from tests.bench.engines._processes import lives, until
from tests.bench.engines._tasks import Noted, beginnings

every_engine = pytest.mark.parametrize(
    "make",
    ["local", pytest.param("slurm", marks=pytest.mark.slurm), pytest.param("ray", marks=pytest.mark.ray)],
    indirect=True,
)


@every_engine
def test_a_task_whose_worker_dies_is_begun_again_and_then_lost_and_the_others_are_unharmed(make, tmp_path):
    folder = str(tmp_path)
    tasks = [Noted("a", folder), Noted("once", folder, dies=1), Noted("b", folder, seconds=0.2)]
    tasks += [Noted("ever", folder, dies=9, how="kill"), *(Noted(name, folder) for name in "cdef")]
    found = list(make().map(_tasks.do, tasks))
    assert sorted(position for position, _ in found) == list(range(len(tasks)))
    results = {tasks[position].name: result for position, result in found}
    assert isinstance(results["ever"], Lost)
    assert "died 2 times" in results["ever"].reason
    assert {name: result for name, result in results.items() if name != "ever"} == {
        name: name.upper() for name in results if name != "ever"
    }
    begun = {task.name: len(beginnings(tmp_path, task.name)) for task in tasks}
    assert begun == {task.name: 1 for task in tasks} | {"once": 2, "ever": 2}


@every_engine
def test_what_the_function_raises_is_raised_and_nothing_is_left_running(make, tmp_path):
    with pytest.raises(KeyError, match="a word"):
        list(make().map(_tasks.fails, ["a word"]))


@every_engine
def test_tasks_do_not_outlive_a_map_that_is_closed(make, tmp_path):
    tasks = [Noted("quick", str(tmp_path)), Noted("endless", str(tmp_path), seconds=600)]
    results = make().map(_tasks.do, tasks)
    assert list(islice(results, 1)) == [(0, "QUICK")]
    until(lambda: beginnings(tmp_path, "endless"))
    results.close()
    (process,) = beginnings(tmp_path, "endless")
    until(lambda: not lives(process))


@every_engine
def test_a_task_runs_on_the_threads_that_it_was_given_in_the_folder_of_the_map(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(os.getcwd())
    assert [found for _, found in make().map(_tasks.threads_and_folder, [0])] == [(1, str(tmp_path))]


@every_engine
def test_no_tasks_no_results(make):
    assert list(make().map(_tasks.do, [])) == []


@pytest.mark.parametrize(("name", "package"), [("local", "joblib.externals"), ("slurm", "submitit"), ("ray", "ray")])
def test_a_package_that_is_not_there_is_named_with_the_command_that_brings_it(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"The {name} engine needs \w+: pip install 'msam\[\w+\]'"):
        list(load(name)().map(_tasks.do, [1]))


def test_the_folder_is_the_registry():
    assert names() == ["local", "ray", "slurm"]
    assert all(issubclass(load(name), Engine) for name in names())
    with pytest.raises(ValueError, match=r"Unknown engine 'slrum'\. Did you mean 'slurm'"):
        load("slrum")


@pytest.mark.parametrize(
    ("name", "options", "rule"),
    [
        ("local", {"workers": -1}, "`workers` must be >= 0, received -1"),
        ("slurm", {"tasks": 0}, "`tasks` must be >= 1, received 0"),
        ("ray", {"cpus": 0}, "`cpus` must be > 0, received 0"),
    ],
)
def test_options_out_of_range_are_refused_when_the_engine_is_made(name, options, rule):
    with pytest.raises(ValueError, match=rule):
        load(name)(**options)
