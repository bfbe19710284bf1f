"""SLURM: what it refuses, what it would never start, and jobs that their process has left behind."""

import signal
import subprocess

import pytest

from msam.bench.engines import Lost, _slurm_queue, load
from tests.bench.engines import _tasks
from tests.bench.engines._processes import lives, until, with_an_endless_task
from tests.bench.engines._tasks import Noted, beginnings

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("in_slurm")]


@pytest.fixture
def slurm(tmp_path):
    return lambda **options: load("slurm")(**{"minutes": 5, "logs": str(tmp_path / "slurm")} | options)


def test_a_job_does_its_tasks_one_after_the_other_and_leaves_no_logs(slurm, tmp_path):
    found = list(slurm(tasks=3).map(_tasks.process, range(5)))
    assert sorted(position for position, _ in found) == [0, 1, 2, 3, 4]
    assert len({process for position, process in found if position < 3}) == 1
    assert len({process for _, process in found}) == 2
    assert list((tmp_path / "slurm").iterdir()) == []


def test_a_lost_task_says_how_its_job_ended_and_where_the_logs_are(slurm, tmp_path):
    task = Noted("ever", str(tmp_path), dies=9, how="kill")
    ((_, found),) = slurm(retries=0).map(_tasks.do, [task])
    (logs,) = (tmp_path / "slurm").iterdir()
    assert found == Lost(found.reason)
    assert "its worker died 1 time, at last: SLURM's job" in found.reason
    assert "FAILED, exit code 137:0" in found.reason
    assert "Killed" in found.reason
    assert str(logs) in found.reason
    assert list(logs.glob("*_log.err"))


def test_jobs_of_a_killed_process_are_cancelled_by_the_next_map_with_the_same_logs(slurm, tmp_path):
    logs = tmp_path / "slurm"
    _, worker = with_an_endless_task(tmp_path, "slurm", str(logs), end=signal.SIGKILL)
    assert lives(worker)
    assert dict(slurm().map(_tasks.do, [Noted("next", str(tmp_path))])) == {0: "NEXT"}
    until(lambda: not lives(worker))
    assert len(beginnings(tmp_path, "endless")) == 1


def test_jobs_of_another_machine_are_left_alone_and_named(slurm, tmp_path):
    logs = tmp_path / "slurm"
    elsewhere = logs / "20250101-000000-other"
    elsewhere.mkdir(parents=True)
    answer = subprocess.run(
        ["sbatch", "--hold", "--output=/dev/null", "--wrap=true"], capture_output=True, text=True, check=True
    )
    job = answer.stdout.split()[-1]
    (elsewhere / "owner").write_text("login2\n4242\n1\n")
    (elsewhere / "jobs").write_text(f"{job}\n")
    with pytest.raises(ValueError, match=rf"Jobs of process 4242 on login2 are in the queue: {job}.*`scancel {job}`"):
        list(slurm().map(abs, [1]))
    _slurm_queue.cancel([job])
    until(lambda: not _slurm_queue.queued([job]))
    assert dict(slurm().map(abs, [-1])) == {0: 1}


def test_a_job_that_slurm_would_let_wait_for_ever_is_an_error(slurm):
    with pytest.raises(ValueError, match=r"SLURM will not start job \S+ as it is: PartitionTimeLimit"):
        list(slurm(minutes=60).map(abs, [1]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partition": "gpu"}, "SLURM refuses the jobs: sbatch: error: .*invalid partition"),
        ({"options": "--constraint=a100"}, "SLURM refuses the jobs: sbatch: error: .*[Ii]nvalid feature"),
        ({"memory": 1000}, "SLURM refuses the jobs: sbatch: error: Memory specification can not be satisfied"),
    ],
)
def test_what_slurm_refuses_is_told_in_its_words(slurm, options, said):
    with pytest.raises(ValueError, match=f"(?s){said}"):
        list(slurm(**options).map(abs, [1]))


def test_more_jobs_than_an_array_may_have_are_refused_with_the_way_out(slurm):
    with pytest.raises(ValueError, match=r"21 jobs .* \(20\)\. .* `tasks` must be >= 2, received 1"):
        list(slurm().map(abs, range(21)))
