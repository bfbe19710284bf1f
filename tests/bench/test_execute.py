"""What is recorded is skipped, what is missing is trained, nothing is lost or half-written."""

import errno
import gzip
import time
from dataclasses import replace
from pathlib import Path

import filelock
import pytest

from msam import bench, record
from msam.bench import Failed, cells, execute, grid
from msam.bench._datasets import kept
from msam.bench.cells import WORK, filed, train_cells
from msam.record import without_volatile
from msam.train import load_model, train
from msam.train.header import weights_digest
from tests.bench.grids import WORLD, tiny
from tests.bench.inline import Inline

DIVERGING = {"name": "sgd", "lr": 1e6}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.jsonl.gz")}


def run(made, folder, **options):
    return bench.run(made.cells(), folder, engine=Inline(), quiet=True, **options)


def test_records_come_back_in_the_order_of_the_cells_and_lie_in_the_folder_alone(tmp_path):
    made = tiny()
    records = run(made, tmp_path)
    assert [r.header["run"] for r in records] == [c.run_name() for c in made.cells()]
    assert {p.name for p in tmp_path.iterdir()} == {f"{c.run_name()}.jsonl.gz" for c in made.cells()}


def test_a_record_holds_what_a_run_of_its_own_records(tmp_path):
    made = tiny(seeds=1)
    for config, found in zip(made.cells(), run(made, tmp_path / "grid"), strict=True):
        alone = train(config, tmp_path / "alone" / config.run_name())
        record.file(alone.path, tmp_path / "alone.jsonl.gz")
        expected = record.read(tmp_path / "alone.jsonl.gz")
        assert without_volatile(found.epochs) == without_volatile(expected.epochs)
        assert without_volatile(found.end) == without_volatile(expected.end)
        assert found.end["weights"] == alone.end["weights"]
        assert not found.steps


def test_what_is_recorded_is_not_trained_again(tmp_path):
    run(tiny(seeds=1), tmp_path)
    before = contents(tmp_path)
    run(tiny(seeds=2), tmp_path)
    after = contents(tmp_path)
    assert len(after) == 2 * len(before)
    assert before.items() <= after.items()


def test_equal_cells_are_run_once(tmp_path):
    one = tiny(seeds=1).cells()[0]
    records = bench.run([one, one], tmp_path, engine=Inline(), quiet=True)
    assert records[0] is records[1]


def test_a_run_that_diverges_is_recorded_as_such_and_not_begun_again(tmp_path):
    made = grid(data=WORLD, optimizer=DIVERGING, seeds=1, epochs=2, batch_size=16)
    assert [r.end["status"] for r in run(made, tmp_path)] == ["diverged"]
    before = contents(tmp_path)
    run(made, tmp_path)
    assert contents(tmp_path) == before


def test_cells_that_fail_are_named_with_the_reason_after_all_others_are_recorded(tmp_path):
    pair = {"method": "mmpareto", "sharpness": {"name": "msam", "weighting": "sample"}}
    made = grid(data=WORLD, **pair, seeds=1, epochs=1)
    with pytest.raises(Failed, match=r"1 of the cells failed.*\n  dial-late-mmpareto-msam-seed0-.*do not go together"):
        bench.run([*made.cells(), *tiny(seeds=1).cells()], tmp_path, engine=Inline(), quiet=True)
    assert len(contents(tmp_path)) == 4


def test_an_error_of_our_own_making_leaves_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "train", lambda *_, **__: 1 / 0)
    with pytest.raises(Failed, match=r"ZeroDivisionError: division by zero \(see .*error.txt\)"):
        run(tiny(seeds=1), tmp_path)
    notes = tmp_path / WORK / tiny(seeds=1).cells()[0].run_name() / "error.txt"
    assert "Traceback" in notes.read_text()


def test_a_full_disk_ends_the_grid_at_once_and_the_same_call_goes_on(tmp_path, monkeypatch):
    made, whole, calls = tiny(seeds=2), record.file, []

    def full_after_three(source, target):
        calls.append(target)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(record, "file", full_after_three)
        with pytest.raises(Failed, match=r"No space left on device.*make room and give the same command again"):
            run(made, tmp_path)
    assert len(calls) == 4
    assert len(contents(tmp_path)) == 3
    records = run(made, tmp_path)
    assert [r.end["status"] for r in records] == ["finished"] * 8


def test_a_cell_that_another_process_trains_is_waited_for_and_taken_over_if_it_is_given_up(tmp_path, monkeypatch):
    config = tiny(seeds=1).cells()[0]
    (tmp_path / WORK).mkdir()
    lock = filelock.FileLock(tmp_path / WORK / f"{config.run_name()}.lock")
    lock.acquire()
    assert train_cells([config], folder=tmp_path, keep_weights=False).elsewhere == (config.run_name(),)
    monkeypatch.setattr(time, "sleep", lambda _: lock.release())
    (found,) = bench.run([config], tmp_path, engine=Inline(), quiet=True)
    assert found.end["status"] == "finished"


def test_weights_are_kept_where_they_are_wanted(tmp_path):
    made = tiny(seeds=1)
    (config, *_), (found, *_) = made.cells(), run(made, tmp_path, keep_weights=True)
    assert weights_digest(load_model(tmp_path / config.run_name())) == found.end["weights"]
    assert record.find(tmp_path)[0].path.suffix == ".gz"


def test_a_record_of_another_configuration_under_the_name_of_a_cell_is_refused(tmp_path):
    made = tiny(seeds=2)
    run(made, tmp_path)
    one, other = made.cells_of("dial-late-joint-none-sgd")
    filed(tmp_path, one.run_name()).write_bytes(filed(tmp_path, other.run_name()).read_bytes())
    with pytest.raises(ValueError, match=r"another configuration.*seed: 0 != 1"):
        run(made, tmp_path)


def test_a_value_of_many_digits_is_recorded_as_it_is(tmp_path):
    made = grid(data=WORLD, sharpness={"name": "sam", "rho": 10**-1.5}, seeds=1, epochs=1, batch_size=16)
    for _ in range(2):
        (found,) = run(made, tmp_path)
        assert found.config["sharpness"]["rho"] == 10**-1.5


def test_a_configuration_that_this_version_does_not_know_is_refused_with_its_file(tmp_path):
    (config, *_) = tiny(seeds=1).cells()
    bench.run([config], tmp_path, engine=Inline(), quiet=True)
    path = filed(tmp_path, config.run_name())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'"batch_size"', b'"bunch_size"')))
    with pytest.raises(ValueError, match=rf"{path.name} is none of this version: Unknown key 'bunch_size'"):
        bench.run([config], tmp_path, engine=Inline(), quiet=True)


def moved(config, root):
    return config.model_copy(update={"data": {**config.data, "root": root}})


def test_two_datasets_that_differ_in_their_place_alone_are_no_cells_of_one_grid(tmp_path):
    (config, *_) = tiny(seeds=1).cells()
    with pytest.raises(ValueError, match=r"data in two places \(root: 'a' != 'b'\)"):
        bench.run([moved(config, "a"), moved(config, "b")], tmp_path, engine=Inline(), quiet=True)


def test_a_record_made_of_the_data_of_another_place_counts_if_they_are_the_same(tmp_path, monkeypatch):
    (config, *_) = tiny(seeds=1).cells()
    (found,) = bench.run([config], tmp_path, engine=Inline(), quiet=True)
    data = kept(config)
    monkeypatch.setattr(execute, "kept", lambda _: data)
    assert bench.run([moved(config, "b")], tmp_path, engine=Inline(), quiet=True)[0].end == found.end
    monkeypatch.setattr(execute, "kept", lambda _: replace(data, fingerprint="other"))
    with pytest.raises(ValueError, match="The data are not those"):
        bench.run([moved(config, "b")], tmp_path, engine=Inline(), quiet=True)


def test_weights_survive_a_kill_at_the_moment_the_record_is_filed(tmp_path, monkeypatch):
    (config, *_), whole = tiny(seeds=1).cells(), record.file

    def killed_after(source, target):
        whole(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(record, "file", killed_after)
        with pytest.raises(KeyboardInterrupt):
            bench.run([config], tmp_path, engine=Inline(), quiet=True, keep_weights=True)
    (found,) = bench.run([config], tmp_path, engine=Inline(), quiet=True, keep_weights=True)
    assert weights_digest(load_model(tmp_path / config.run_name())) == found.end["weights"]


@pytest.mark.parametrize("left", ["", '{"kind":"hea'])
def test_a_cell_killed_before_its_header_was_written_is_begun_anew(tmp_path, left):
    config = tiny(seeds=1).cells()[0]
    place = tmp_path / WORK / config.run_name()
    place.mkdir(parents=True)
    (place / "record.jsonl").write_text(left)
    (found,) = bench.run([config], tmp_path, engine=Inline(), quiet=True)
    assert found.end["status"] == "finished"


def test_what_a_stack_left_behind_is_begun_anew_alone(tmp_path):
    config = tiny(seeds=1).cells()[0]
    place = tmp_path / WORK / config.run_name()
    place.mkdir(parents=True)
    (place / "record.jsonl").write_text('{"kind":"header"}\n{"kind":"epoch","epoch":1}\n')
    (found,) = bench.run([config], tmp_path, engine=Inline(), quiet=True)
    assert len(found.epochs) == 2


def test_records_are_small_and_many_are_read_at_once(tmp_path):
    world = {**WORLD, "modalities": 3}
    made = grid(data=world, sharpness="msam", seeds=1, epochs=20, batch_size=32)
    (found,) = run(made, tmp_path)
    assert len(found.epochs) == 20
    assert found.path.stat().st_size <= 20_000
