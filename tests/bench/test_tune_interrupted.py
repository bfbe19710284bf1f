"""However a tuning is stopped, the same call goes on to the choice that it would have made, with the same budget."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.storages.journal import JournalFileBackend

from msam.bench.tune import tune
from tests.bench._tuning import ROWS, Runs

ROOT = Path(__file__).parents[2]


def tuned(folder: Path, runs: Runs, sampler: str):
    return tune(ROWS, folder, trials=6, seeds=1, sampler=sampler, quiet=True, runner=runs)


def choices(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "chosen").glob("*.json")}


@pytest.fixture
def stopping(monkeypatch):
    """Stop at a given line of the journal, when half of it is written."""
    write = JournalFileBackend.append_logs

    def stop_at(number: int) -> None:
        lines = iter(range(1, 10**6))

        def append(self, logs):
            if next(lines) == number:
                with open(self._file_path, "ab") as journal:
                    journal.write(json.dumps(logs[0]).encode()[:40])
                raise KeyboardInterrupt
            write(self, logs)

        monkeypatch.setattr(JournalFileBackend, "append_logs", append)

    return stop_at


def test_at_every_line_of_the_journal(tmp_path, stopping, optuna_says):
    rows, how = {"joint": ROWS["joint"]}, {"trials": 5, "seeds": 1, "sampler": "tpe", "quiet": True}
    peace = Runs()
    tune(rows, tmp_path / "peace", runner=peace, **how)
    lines = len((tmp_path / "peace" / "journal.log").read_text().splitlines())
    assert lines == 2 + 5 + 5  # a study and its plan, what was asked, what came of it
    for number in range(1, lines + 1):
        folder, runs = tmp_path / str(number), Runs()
        stopping(number)
        with pytest.raises(KeyboardInterrupt):
            tune(rows, folder, runner=runs, **how)
        assert not choices(folder)
        stopping(0)
        tune(rows, folder, runner=runs, **how)
        assert choices(folder) == choices(tmp_path / "peace"), f"stopped at line {number}"
        assert [made.run_name() for made in runs.made] == [made.run_name() for made in peace.made]
        journal = [json.loads(line) for line in (folder / "journal.log").read_text().splitlines()]
        assert sum("params" in line for line in journal) == 5
    assert optuna_says == []


def test_again_and_again_within_the_runs(tmp_path):
    class Stopping(Runs):
        def _record(self, config, folder):
            if self.stop_after == len(self.made):
                raise KeyboardInterrupt
            return super()._record(config, folder)

    peace, war = Runs(), Stopping()
    tuned(tmp_path / "peace", peace, "tpe")
    for war.stop_after in range(0, 12, 3):
        with pytest.raises(KeyboardInterrupt):
            tuned(tmp_path / "war", war, "tpe")
    war.stop_after = -1
    tuned(tmp_path / "war", war, "tpe")
    assert choices(tmp_path / "war") == choices(tmp_path / "peace")
    assert [made.run_name() for made in war.made] == [made.run_name() for made in peace.made]


def test_a_choice_that_was_not_written_is_made_again_and_one_that_was_stays(tmp_path):
    tuned(tmp_path, Runs(), "tpe")
    before = choices(tmp_path)
    (tmp_path / "chosen" / "joint.json").unlink()
    again = Runs()
    tuned(tmp_path, again, "tpe")
    assert choices(tmp_path) == before
    assert again.made == []
    assert {made.method["name"] for made in again.asked} == {"joint"}


def test_a_damaged_journal_is_refused(tmp_path):
    tuned(tmp_path, Runs(), "sobol")
    journal = tmp_path / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"{]\n", *lines[4:]]))
    (tmp_path / "chosen" / "joint.json").unlink()
    with pytest.raises(ValueError, match=r"journal\.log, line 4 is not JSON .* damaged; tune in another folder"):
        tuned(tmp_path, Runs(), "sobol")


def test_killed_at_random_moments_while_it_trains(tmp_path):
    """Real runs and SIGKILL, by forks of a process of its own; see `tune_and_kill.py`."""
    command = [sys.executable, "-m", "tests.bench.tune_and_kill", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["equal"], report
    assert report["killed"] >= 2, report
