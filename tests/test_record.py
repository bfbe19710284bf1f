"""A record is a sound file whatever happens to the process or to the disk."""

import errno
import gc
import json
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msam import record
from msam.record import Writer

HEADER = {"config": {"method": "joint", "seed": 1}, "modalities": ["a", "v"]}


@pytest.fixture
def path(tmp_path):
    """A record of a header, two steps, an epoch and an end."""
    path = tmp_path / "deep" / "run.jsonl"
    with Writer(path) as writer:
        writer.write("header", **HEADER)
        writer.write("step", step=1, loss=0.5)
        writer.write("step", step=2, loss=0.25)
        writer.write("epoch", epoch=1, valid={"accuracy": 0.75})
        writer.write("end", status="finished")
    return path


class TestRoundTrip:
    def test_what_was_written_is_read_back_by_kind_and_in_order(self, path):
        read = record.read(path)
        assert read.header == {"kind": "header", **HEADER}
        assert read.config == HEADER["config"]
        assert [line["step"] for line in read.steps] == [1, 2]
        assert read.epochs == [{"kind": "epoch", "epoch": 1, "valid": {"accuracy": 0.75}}]
        assert read.end == {"kind": "end", "status": "finished"}
        assert read.path == path

    def test_every_line_is_on_disk_when_write_returns(self, tmp_path):
        writer = Writer(tmp_path / "run.jsonl")
        for number in range(1, 4):
            writer.write("header" if number == 1 else "step", **HEADER)
            content = writer.path.read_bytes()
            assert content.count(b"\n") == number
            assert content.endswith(b"\n")
            assert writer.position == len(content)
        writer.sync()
        writer.close()

    def test_a_run_without_an_end_has_not_finished(self, tmp_path):
        with Writer(tmp_path / "run.jsonl") as writer:
            writer.write("header", **HEADER)
        assert record.read(tmp_path / "run.jsonl").end is None

    def test_of_several_ends_the_last_counts(self, path):
        with Writer(path, keep=path.stat().st_size) as writer:
            writer.write("end", status="resumed")
        assert record.read(path).end["status"] == "resumed"

    @settings(deadline=None)
    @given(st.floats(), st.text())
    def test_any_number_and_any_text_come_back(self, tmp_path_factory, number, text):
        path = tmp_path_factory.mktemp("any") / "run.jsonl"
        with Writer(path) as writer:
            writer.write("header", number=number, text=text)
        read = record.read(path).header
        assert read["text"] == text
        assert read["number"] == number or (math.isnan(number) and math.isnan(read["number"]))

    def test_nan_and_both_infinities_come_back(self, tmp_path):
        with Writer(tmp_path / "run.jsonl") as writer:
            writer.write("header", values=[math.nan, math.inf, -math.inf])
        nan, *rest = record.read(tmp_path / "run.jsonl").header["values"]
        assert math.isnan(nan)
        assert rest == [math.inf, -math.inf]

    def test_what_json_cannot_hold_is_refused_before_a_byte_is_written(self, path):
        before = path.read_bytes()
        with Writer(path, keep=len(before)) as writer, pytest.raises(TypeError):
            writer.write("step", loss=object())
        assert path.read_bytes() == before


class TestDamage:
    @pytest.mark.parametrize("cut", [1, 5, 20])
    def test_an_unfinished_last_line_is_left_out(self, path, cut):
        path.write_bytes(path.read_bytes()[:-cut])
        read = record.read(path)
        assert read.end is None
        assert (len(read.steps), len(read.epochs)) == (2, 1)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b'{"kind":"ste', "line 2 is not JSON"),
            (b"", "line 2 is not JSON"),
            (b"\x00\x00\x00\x00", "line 2 is not JSON"),
            (b"\xff\xfe\xfd", "line 2 is not JSON"),
            (b"[1]", "line 2 must be a JSON object, found list"),
            (b'{"kind":"stap"}', "line 2: kind must be one of step, epoch, probe, end; found 'stap'"),
            (b'{"kind":"header"}', "line 2: kind must be one of step, epoch, probe, end; found 'header'"),
            (b'{"loss":1}', "line 2: kind must be one of step, epoch, probe, end; found None"),
        ],
        ids=str,
    )
    def test_a_damaged_line_in_the_middle_is_an_error_that_names_file_and_line(self, path, line, message):
        lines = path.read_bytes().split(b"\n")
        lines[1] = line
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(ValueError, match=message) as error:
            record.read(path)
        assert str(path) in str(error.value)

    @pytest.mark.parametrize("content", [b"", b'{"kind":"head', b'{"kind":"step"}\n'], ids=str)
    def test_a_file_without_a_header_is_no_record(self, path, content):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="first line must be of kind 'header'"):
            record.read(path)


class TestGoingOn:
    def test_an_existing_record_is_never_overwritten(self, path):
        before = path.read_bytes()
        with pytest.raises(FileExistsError):
            Writer(path)
        assert path.read_bytes() == before

    def test_keep_cuts_what_came_after_it_and_goes_on_there(self, path):
        keep = sum(len(line) + 1 for line in path.read_bytes().split(b"\n")[:2])
        with Writer(path, keep=keep) as writer:
            assert writer.position == keep
            writer.write("step", step=99)
        read = record.read(path)
        assert [line["step"] for line in read.steps] == [1, 99]
        assert (read.epochs, read.end) == ([], None)

    def test_keeping_more_than_there_is_is_refused_and_cuts_nothing(self, path):
        before = path.read_bytes()
        with pytest.raises(ValueError, match="not of one run"):
            Writer(path, keep=len(before) + 1)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("back", [2, 5])
    def test_keeping_half_a_line_is_refused_and_cuts_nothing(self, path, back):
        before = path.read_bytes()
        with pytest.raises(ValueError, match="no line that ends at byte"):
            Writer(path, keep=len(before) - back)
        assert path.read_bytes() == before

    def test_two_writers_at_once_are_refused_and_the_second_cuts_nothing(self, path):
        before = path.read_bytes()
        with Writer(path, keep=len(before)):
            with pytest.raises(ValueError, match="Another process is writing"):
                Writer(path, keep=0)
            assert path.read_bytes() == before
        Writer(path, keep=len(before)).close()

    def test_going_on_with_a_record_that_is_not_there_is_refused(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            Writer(tmp_path / "none.jsonl", keep=0)


FULL_DISK = """
import resource, sys
from msam.record import Writer
writer = Writer(sys.argv[1])
writer.write("header", config={})
writer.write("step", step=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (writer.position + 30, resource.RLIM_INFINITY))
for line in ("x" * 1000, "y" * 500):
    try:
        writer.write("step", step=2, text=line)
    except OSError as error:
        print(error)
    assert writer.path.stat().st_size == writer.position
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.write("step", step=3)
"""


class ShortThenFull:
    """A raw file on a disk with room for a few more bytes."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(data[: self.room])
        self.room -= written
        return written


class TestFullDisk:
    def test_a_line_that_does_not_fit_is_taken_back_and_the_next_that_fits_follows_the_last_sound_one(self, tmp_path):
        path = tmp_path / "run.jsonl"
        done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        errors = done.stdout.splitlines()
        assert len(errors) == 2
        assert all(f"Cannot write to record {path}: File too large" in error for error in errors)
        assert [line["step"] for line in record.read(path).steps] == [1, 3]

    @pytest.mark.parametrize("room", [0, 1, 7])
    def test_no_space_left_is_one_clear_error_and_a_sound_record(self, path, room):
        before = path.read_bytes()
        writer = Writer(path, keep=len(before))
        writer._file = ShortThenFull(writer._file, room)
        with pytest.raises(OSError, match=r"No space left.*sound up to its last whole line.*--resume") as error:
            writer.write("step", step=3)
        writer.close()
        assert error.value.errno == errno.ENOSPC
        assert path.read_bytes() == before

    def test_short_writes_that_go_on_make_one_whole_line(self, path):
        class Slow(ShortThenFull):
            def write(self, data):
                return self.file.write(data[:3])

        writer = Writer(path, keep=path.stat().st_size)
        writer._file = Slow(writer._file, 1)
        writer.write("step", step=3)
        writer.close()
        assert json.loads(path.read_bytes().splitlines()[-1]) == {"kind": "step", "step": 3}


class TestFind:
    def test_files_and_folders_are_found_in_order_and_once(self, path):
        second = path.with_name("a.jsonl")
        second.write_bytes(path.read_bytes())
        (path.parent / "notes.txt").write_text("no record")
        assert [r.path for r in record.find(path.parent.parent)] == [second, path]
        assert [r.path for r in record.find(path, path.parent, second)] == [path, second]

    def test_a_path_that_does_not_exist_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"No file or folder .*nowhere"):
            record.find(tmp_path / "nowhere")

    def test_a_folder_without_records_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="msam train"):
            record.find(tmp_path)

    def test_nothing_asked_for_is_nothing_found(self):
        with pytest.raises(FileNotFoundError):
            record.find()

    def test_a_damaged_record_among_sound_ones_is_an_error(self, path):
        path.with_name("b.jsonl").write_text("nonsense\n")
        with pytest.raises(ValueError, match=r"b\.jsonl, line 1"):
            record.find(path.parent)


def test_two_equal_runs_differ_only_in_what_is_volatile():
    one = {"kind": "epoch", "loss": 1.0, "seconds": 2.0, "inner": [{"host": "a", "x": [1]}], "finished": "now"}
    other = {"kind": "epoch", "loss": 1.0, "seconds": 9.0, "inner": [{"host": "b", "x": [1]}], "started": "then"}
    assert one != other
    assert record.without_volatile(one) == record.without_volatile(other)
    assert record.without_volatile(one) == {"kind": "epoch", "loss": 1.0, "inner": [{"x": [1]}]}


def test_the_collector_is_as_it_was_after_records_were_found_or_not(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"kind":"header"}\n')
    record.find(tmp_path)
    assert gc.isenabled()
    (tmp_path / "a.jsonl").write_text("no record\n")
    with pytest.raises(ValueError, match="not JSON"):
        record.find(tmp_path)
    assert gc.isenabled()
    gc.disable()
    try:
        with pytest.raises(ValueError, match="not JSON"):
            record.find(tmp_path)
        assert not gc.isenabled()
    finally:
        gc.enable()
