"""Preparation as a specification: what is written, what survives, what is refused."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msam.data import _growing, _layout, _prepare, _workers
from msam.data._prepare import Item, prepared
from msam.data._prepared import damages, opened, read_manifest
from tests.data import _toy

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw(tmp_path):
    return _toy.write(tmp_path / "raw")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def content(folder: Path):
    """Return everything a prepared folder holds, item by item."""
    found = opened(folder, "toy")
    return {
        one: (label, found.arrays["audio"][row].tolist(), [f.tolist() for f in frames_of(found, row)])
        for one, label, row in zip(found.ids, found.labels, found.rows, strict=True)
    }


def frames_of(found, row):
    store = found.frames["video"]
    return [store.frame(row, number) for number in range(store.count(row))]


def decoded(raw: Path):
    made = {item.id: (item.label, _toy.decode(item, scale=1.0)) for item in _toy.items(raw)}
    return {
        one: (label, arrays["audio"].tolist(), [f.tolist() for f in arrays["video"]])
        for one, (label, arrays) in made.items()
    }


class TestWhatIsWritten:
    def test_it_is_what_decode_made_of_every_item(self, raw, out):
        _toy.prepare(raw, out)
        assert content(out) == decoded(raw)

    def test_arrays_are_npy_files_that_are_mapped(self, raw, out):
        _toy.prepare(raw, out)
        found = opened(out, "toy").arrays["audio"]
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable
        np.testing.assert_array_equal(np.load(out / "audio.npy"), found)

    def test_nothing_is_left_but_data_and_manifest(self, raw, out):
        _toy.prepare(raw, out)
        listed = json.loads((out / "manifest.json").read_text())["files"]
        assert {file.name for file in out.iterdir()} == {"manifest.json", *listed}

    def test_the_manifest_says_what_it_was_made_of_and_how(self, raw, out):
        _toy.prepare(raw, out)
        manifest = json.loads((out / "manifest.json").read_text())
        assert (manifest["format"], manifest["dataset"], manifest["parameters"]) == (1, "toy", {"scale": 1.0})
        assert {"msam", "av", "libavcodec", "torch", "numpy"} <= manifest["versions"].keys()
        assert manifest["splits"]["official"] == {
            "how": "by hand",
            "parts": {"train": ["00", "01", "02"], "test": ["03"]},
        }
        assert manifest["failures"] == []
        first = manifest["items"][0]
        assert first["sources"]["text"] == {
            "name": "00.txt",
            "bytes": 5,
            "sha256": hashlib.sha256(b"00000").hexdigest(),
        }

    def test_the_fingerprint_is_of_content_and_not_of_place_time_or_workers(self, raw, out, tmp_path):
        _toy.prepare(raw, out)
        elsewhere = shutil.copytree(raw, tmp_path / "elsewhere" / "raw")
        for file in elsewhere.iterdir():
            os.utime(file, (1, 1))
        _toy.prepare(elsewhere, tmp_path / "other", workers=2)
        mine, other = (read_manifest(folder, "toy") for folder in (out, tmp_path / "other"))
        assert mine == other
        assert [(tmp_path / "other" / name).read_bytes() for name in mine["files"]] == [
            (out / name).read_bytes() for name in mine["files"]
        ]

    @pytest.mark.parametrize("change", ["content", "label", "item"])
    def test_the_fingerprint_tells_another_content_label_or_item(self, raw, out, tmp_path, change):
        _toy.prepare(raw, out)
        wanted = _toy.items(raw)
        if change == "content":
            (raw / "03.txt").write_text("7")
        elif change == "label":
            wanted[3] = _prepare.Item("03", 0, wanted[3].sources)
        else:
            del wanted[3]
        _toy.prepare(raw, tmp_path / "other", wanted=wanted)
        assert read_manifest(out, "toy")["fingerprint"] != read_manifest(tmp_path / "other", "toy")["fingerprint"]

    def test_a_folder_as_source_has_the_checksum_of_all_its_files(self, tmp_path):
        (tmp_path / "clip").mkdir()
        (tmp_path / "clip" / "a.jpg").write_bytes(b"one")
        first = _prepare._source(tmp_path / "clip", tmp_path)
        assert (first["name"], first["bytes"]) == ("clip", 3)
        (tmp_path / "clip" / "b.jpg").write_bytes(b"")
        assert _prepare._source(tmp_path / "clip", tmp_path)["sha256"] != first["sha256"]


class TestMissingAndBroken:
    @pytest.fixture
    def flawed(self, raw):
        wanted = _toy.items(raw)
        (raw / "02.txt").unlink()
        (raw / "05.txt").write_text("broken")
        (raw / "09.txt").unlink()
        return wanted

    def test_fail_names_all_of_them_after_it_has_looked_at_all(self, raw, out, flawed):
        with pytest.raises(
            ValueError, match=r"3 of 12 items of toy .*02: no text at 02.txt.*05: .*must hold digits.*09"
        ) as e:
            _toy.prepare(raw, out, wanted=flawed)
        assert "--missing skip" in str(e.value)
        with pytest.raises(ValueError, match="has not finished"):
            opened(out, "toy")

    def test_fail_names_ten_of_more(self, raw, out):
        wanted = _toy.items(raw)
        for file in raw.iterdir():
            file.unlink()
        with pytest.raises(ValueError, match=r"12 of 12 .*; 09: .*; and 2 more\."):
            _toy.prepare(raw, out, wanted=wanted)

    def test_once_they_are_mended_the_same_call_goes_on(self, raw, out, flawed, tmp_path, monkeypatch):
        with pytest.raises(ValueError, match="3 of 12"):
            _toy.prepare(raw, out, wanted=flawed)
        for name in ("02", "05", "09"):
            (raw / f"{name}.txt").write_text(f"{int(name)}" * 5)
        monkeypatch.setattr(_toy, "decode", again := _Stopping(99))
        _toy.prepare(raw, out, wanted=flawed)
        assert again.ids == ["02", "05", "09"]
        monkeypatch.undo()
        _toy.prepare(raw, tmp_path / "whole", wanted=flawed)
        assert read_manifest(out, "toy")["fingerprint"] == read_manifest(tmp_path / "whole", "toy")["fingerprint"]
        assert content(out) == decoded(raw)

    def test_skip_leaves_them_out_and_lists_them(self, raw, out, flawed):
        _toy.prepare(raw, out, wanted=flawed, missing="skip")
        manifest = read_manifest(out, "toy")
        assert [failure["id"] for failure in manifest["failures"]] == ["02", "05", "09"]
        assert all(failure["reason"] for failure in manifest["failures"])
        assert len(content(out)) == 9
        assert manifest["splits"]["official"]["parts"] == {"train": ["00", "01"], "test": ["03"]}

    def test_skip_with_nothing_left_is_an_error(self, raw, out, flawed):
        with pytest.raises(ValueError, match="2 of 2"):
            _toy.prepare(raw, out, wanted=[flawed[2], flawed[5]], missing="skip")

    def test_bad_rows_count_as_failures(self, raw, out):
        with pytest.raises(ValueError, match=r"1 of 13 items .*train.csv line 3: unknown class"):
            _toy.prepare(raw, out, failures={"train.csv line 3": "unknown class"})
        _toy.prepare(raw, out, failures={"train.csv line 3": "unknown class"}, missing="skip")
        assert read_manifest(out, "toy")["failures"] == [{"id": "train.csv line 3", "reason": "unknown class"}]

    def test_ids_come_once(self, raw, out):
        with pytest.raises(ValueError, match="come once, found 1 that come again: 00"):
            _toy.prepare(raw, out, wanted=[*_toy.items(raw), _toy.items(raw)[0]])
        assert not out.exists()


ORIGINAL_DECODE = _toy.decode


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_of_an_array(monkeypatch):
    true, calls = _growing._append, []

    def append(path, start, chunks):
        calls.append(path)
        if len(calls) < 8:
            return true(path, start, chunks)
        with open(path, "r+b") as file:
            file.seek(start)
            file.write(b"".join(chunks)[:5])
        return die()

    monkeypatch.setattr(_growing, "_append", append)


def between_array_and_line(monkeypatch):
    true = _growing.Growing._write
    monkeypatch.setattr(
        _growing.Growing,
        "_write",
        lambda self, kind, fields: true(self, kind, fields) if fields.get("id") != "06" else die(),
    )


def half_of_a_line(monkeypatch):
    true = _growing.Growing._write

    def write(self, kind, fields):
        if fields.get("id") == "04":
            self._journal.write(json.dumps({"kind": kind, **fields}).encode()[:40])
            die()
        true(self, kind, fields)

    monkeypatch.setattr(_growing.Growing, "_write", write)


def before_the_header(monkeypatch):
    monkeypatch.setattr(_growing.Growing, "_read", lambda *_: die())


def while_files_are_completed(monkeypatch):
    true = _layout._cut
    monkeypatch.setattr(
        _layout, "_cut", lambda path, size, header: (true(path, size, header), die() if path.suffix == ".npy" else None)
    )


def before_the_manifest_has_its_name(monkeypatch):
    true = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: die() if Path(b).name == "manifest.json" else true(a, b))


def after_the_manifest(monkeypatch):
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: die())


MOMENTS = [
    before_the_header,
    half_of_an_array,
    between_array_and_line,
    half_of_a_line,
    while_files_are_completed,
    before_the_manifest_has_its_name,
    after_the_manifest,
]


class TestInterruptions:
    @pytest.fixture
    def whole(self, raw, tmp_path):
        return read_manifest(_toy.prepare(raw, tmp_path / "whole"), "toy")

    @pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: m.__name__)
    def test_killed_at_any_moment_it_goes_on_to_the_same_content(self, raw, out, whole, moment):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of fork beside threads
            child = os.fork()
        if child == 0:
            with pytest.MonkeyPatch.context() as patch:
                moment(patch)
                _toy.prepare(raw, out)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the moment never came"
        if moment is not after_the_manifest:
            with pytest.raises(ValueError, match=r"finished|no prepared"):
                opened(out, "toy")
        _toy.prepare(raw, out)
        assert read_manifest(out, "toy") == whole
        assert content(out) == decoded(raw)

    def test_killed_from_outside_with_two_workers_it_leaves_no_process_and_no_lock(self, raw, out, whole):
        command = [sys.executable, "-m", "tests.data._toy", str(raw), str(out), "2"]
        running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
        journal = out / "journal.jsonl"
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
            assert time.monotonic() < deadline
            assert running.poll() is None
            time.sleep(0.01)
        running.kill()
        running.wait()
        _toy.prepare(raw, out)
        assert read_manifest(out, "toy") == whole
        while _alive(running.pid):
            assert time.monotonic() < deadline, "workers outlive their parent"
            time.sleep(0.05)

    def test_what_is_done_is_not_done_again(self, raw, out, monkeypatch):
        monkeypatch.setattr(_toy, "decode", first := _Stopping(7))
        with pytest.raises(KeyboardInterrupt):
            _toy.prepare(raw, out)
        monkeypatch.setattr(_toy, "decode", again := _Stopping(99))
        _toy.prepare(raw, out)
        assert first.ids + again.ids == [item.id for item in _toy.items(raw)]

    def test_a_source_that_changed_in_between_is_read_again(self, raw, out, monkeypatch, tmp_path):
        monkeypatch.setattr(_toy, "decode", _Stopping(7))
        with pytest.raises(KeyboardInterrupt):
            _toy.prepare(raw, out)
        monkeypatch.undo()
        (raw / "02.txt").write_text("99")
        _toy.prepare(raw, out)
        assert content(out) == decoded(raw)
        _toy.prepare(raw, tmp_path / "afresh")
        assert read_manifest(out, "toy")["fingerprint"] == read_manifest(tmp_path / "afresh", "toy")["fingerprint"]
        assert damages(opened(out, "toy")) == []

    def test_an_item_of_which_something_else_is_known_is_made_again(self, raw, out, monkeypatch):
        def known(start):
            return [replace(item, more={"start": start}) for item in _toy.items(raw)]

        monkeypatch.setattr(_toy, "decode", _Stopping(7))
        with pytest.raises(KeyboardInterrupt):
            _toy.prepare(raw, out, wanted=known(0.0))
        monkeypatch.setattr(_toy, "decode", again := _Stopping(99))
        _toy.prepare(raw, out, wanted=known(5.0))
        assert again.ids == [item.id for item in known(5.0)]

    def test_a_file_that_changed_inside_a_source_folder_is_read_again(self, tmp_path, out, monkeypatch):
        folder = tmp_path / "pictures"
        folder.mkdir()
        (folder / "0.txt").write_text("1")
        wanted = [Item("00", 0, {"text": folder}), Item("01", 1, {"text": tmp_path / "gone"})]

        def decode(item):
            return {"audio": np.array([float((item.sources["text"] / "0.txt").read_text())])}

        def prepare():
            return prepared("toy", tmp_path, out, wanted, decode, classes=("a", "b"), parameters={}, workers=1)

        with pytest.raises(ValueError, match="1 of 2 items"):
            prepare()
        (folder / "0.txt").write_text("2")
        (tmp_path / "gone").mkdir()
        (tmp_path / "gone" / "0.txt").write_text("3")
        assert np.load(prepare() / "audio.npy").tolist() in (
            [[2.0], [3.0]],
            [[1.0], [3.0], [2.0]],
            [[1.0], [2.0], [3.0]],
        )
        rows = {item["id"]: item["row"] for item in read_manifest(out, "toy")["items"]}
        assert np.load(out / "audio.npy")[rows["00"]] == 2

    def test_data_that_a_power_cut_took_are_made_again(self, raw, out, whole, monkeypatch):
        monkeypatch.setattr(_toy, "decode", _Stopping(7))
        with pytest.raises(KeyboardInterrupt):
            _toy.prepare(raw, out)
        monkeypatch.undo()
        with open(out / "audio.npy", "r+b") as file:
            file.seek(_layout.HEADER + 4 * 48)
            file.write(bytes(48))
        _toy.prepare(raw, out)
        assert read_manifest(out, "toy") == whole
        assert content(out) == decoded(raw)

    def test_it_goes_on_with_the_same_options_only(self, raw, out, monkeypatch):
        monkeypatch.setattr(_toy, "decode", _Stopping(3))
        with pytest.raises(KeyboardInterrupt):
            _toy.prepare(raw, out)
        monkeypatch.undo()
        with pytest.raises(ValueError, match=r"unfinished preparation of another kind .*'scale': 1.0.*'scale': 2.0"):
            _toy.prepare(raw, out, scale=2.0)


class _Stopping:
    """Decodes so many items, then Ctrl-C."""

    def __init__(self, after: int) -> None:
        self.after, self.ids = after, []

    def __call__(self, item, **more):
        if len(self.ids) == self.after:
            raise KeyboardInterrupt
        self.ids.append(item.id)
        return ORIGINAL_DECODE(item, **more)


def _alive(session: int) -> bool:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            return True
    return False


class TestOneFolderOneProcess:
    def test_two_at_once_are_refused(self, raw, out):
        header = {"format": 1}
        first = _growing.Growing(out, header)
        with pytest.raises(ValueError, match=r"Another process is preparing .*--out"):
            _toy.prepare(raw, out)
        first.close()

    def test_a_lock_left_by_a_dead_process_is_taken_over(self, raw, out):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            with pytest.MonkeyPatch.context() as patch:
                between_array_and_line(patch)
                _toy.prepare(raw, out)
        os.waitpid(child, 0)
        assert (out / "journal.jsonl").exists()
        _toy.prepare(raw, out)
        assert len(content(out)) == 12

    def test_a_folder_with_something_else_in_it_is_left_alone(self, raw, out):
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
        with pytest.raises(ValueError, match=r"must be empty .*thesis.tex"):
            _toy.prepare(raw, out)
        assert [file.name for file in out.iterdir()] == ["thesis.tex"]

    @pytest.mark.parametrize("change", ["fewer", "label", "known"])
    def test_a_finished_one_of_other_lists_is_refused(self, raw, out, change):
        _toy.prepare(raw, out)
        wanted = _toy.items(raw)
        last = wanted[-1]
        others = {
            "fewer": wanted[:-1],
            "label": [*wanted[:-1], replace(last, label=1 - last.label)],
            "known": [*wanted[:-1], replace(last, more={"start": 1.0})],
        }
        with pytest.raises(ValueError, match=rf"from other lists: 1 items differ, e\.g\. {last.id}"):
            _toy.prepare(raw, out, wanted=others[change])

    def test_a_finished_one_tells_what_was_left_out(self, raw, out, capsys):
        (raw / "03.txt").write_text("none")
        _toy.prepare(raw, out, missing="skip")
        capsys.readouterr()
        _toy.prepare(raw, out, missing="skip")
        said = capsys.readouterr()
        assert "1 were left out then, e.g. 03; to try them again, delete the folder" in said.out + said.err

    def test_a_finished_one_is_kept_and_other_options_are_refused(self, raw, out):
        _toy.prepare(raw, out)
        before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
        _toy.prepare(raw, out)
        with pytest.raises(ValueError, match=r"prepared with .*asked for"):
            _toy.prepare(raw, out, scale=3.0)
        assert {file.name: file.stat().st_mtime_ns for file in out.iterdir()} == before


class TestFullDisk:
    @pytest.mark.parametrize("what", ["array", "line", "manifest"])
    def test_it_is_a_clear_error_and_the_work_goes_on_later(self, raw, out, monkeypatch, tmp_path, what):
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        calls = []

        def array(path, start, chunks):
            calls.append(path)
            if len(calls) > 6:
                with open(path, "ab") as file:
                    file.write(b"torn")
                raise full
            return append(path, start, chunks)

        def line(self, kind, fields):
            if fields.get("id") == "05":
                raise full
            write(self, kind, fields)

        def manifest(path, content):
            raise full

        append, write = _growing._append, _growing.Growing._write
        if what == "array":
            monkeypatch.setattr(_growing, "_append", array)
        elif what == "line":
            monkeypatch.setattr(_growing.Growing, "_write", line)
        else:
            monkeypatch.setattr(_layout, "write_whole", manifest)
        with pytest.raises(OSError, match=r"No space left on device.*give the same command again"):
            _toy.prepare(raw, out)
        monkeypatch.undo()
        _toy.prepare(raw, out)
        assert read_manifest(out, "toy") == read_manifest(_toy.prepare(raw, tmp_path / "whole"), "toy")

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a limit on the size of files, which POSIX has")
    def test_a_real_limit_leaves_a_sound_journal(self, raw, out):
        import resource

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
            try:
                _toy.prepare(raw, out)
            except OSError as error:
                os._exit(42 if "same command again" in str(error) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
        _toy.prepare(raw, out)
        assert content(out) == decoded(raw)


class TestDamage:
    @pytest.mark.parametrize("name", ["audio.npy", "video.frames", "video.frames.npy", "video.starts.npy"])
    def test_a_truncated_or_missing_file_is_noticed_when_it_is_opened(self, raw, out, name):
        _toy.prepare(raw, out)
        whole = (out / name).read_bytes()
        (out / name).write_bytes(whole[:-1])
        with pytest.raises(ValueError, match=rf"{name} must have {len(whole)} bytes, found {len(whole) - 1}"):
            opened(out, "toy")
        (out / name).unlink()
        with pytest.raises(ValueError, match=rf"{name} is missing"):
            opened(out, "toy")

    @pytest.mark.parametrize(("name", "array"), [("audio.npy", "audio"), ("video.frames", "video")])
    def test_a_changed_byte_is_found_by_the_checksums(self, raw, out, name, array):
        _toy.prepare(raw, out)
        assert damages(opened(out, "toy")) == []
        data = bytearray((out / name).read_bytes())
        data[-1] ^= 1
        (out / name).write_bytes(data)
        assert damages(opened(out, "toy")) == [f"{array} of 11 has changed since it was prepared"]

    @pytest.mark.parametrize("name", ["video.frames.npy", "video.starts.npy"])
    def test_a_changed_index_is_noticed_when_it_is_opened(self, raw, out, name):
        _toy.prepare(raw, out)
        data = bytearray((out / name).read_bytes())
        data[-8] ^= 1
        (out / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name} has changed since it was prepared"):
            opened(out, "toy")

    @pytest.mark.parametrize(("old", "new"), [(b"<f4", b"<i4"), (b"NUMPY", b"NUMPI"), (b"3, 4", b"4, 3")])
    def test_a_changed_header_is_noticed_when_it_is_opened(self, raw, out, old, new):
        _toy.prepare(raw, out)
        data = (out / "audio.npy").read_bytes()
        (out / "audio.npy").write_bytes(data.replace(old, new, 1))
        with pytest.raises(ValueError, match=r"audio\.npy must hold rows of"):
            opened(out, "toy")

    def test_a_changed_label_is_found(self, raw, out):
        _toy.prepare(raw, out)
        manifest = json.loads((out / "manifest.json").read_text())
        manifest["items"][0]["label"] = 1
        (out / "manifest.json").write_text(json.dumps(manifest))
        assert "manifest.json has changed" in damages(opened(out, "toy"))[0]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("{", "is damaged"),
            ("[]", "is damaged"),
            ('{"dataset": "ave", "format": 1}', "must hold prepared toy, found 'ave'"),
            ('{"dataset": "toy", "format": 2}', "must be of format 1, found 2"),
        ],
    )
    def test_a_manifest_of_another_kind_is_refused(self, out, text, words):
        out.mkdir()
        (out / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=words):
            opened(out, "toy")


def test_every_item_has_one_form(raw, out, monkeypatch):
    monkeypatch.setattr(_toy, "decode", lambda item, **_: {"audio": np.zeros(2 + int(item.id))})
    with pytest.raises(ValueError, match="audio in one form"):
        _toy.prepare(raw, out)


def test_frames_are_uint8_pictures():
    with pytest.raises(ValueError, match="uint8"):
        _layout.form([np.zeros((2, 2, 3))])
    with pytest.raises(ValueError, match="at least one"):
        _layout.form([])


def _exit(_: int) -> None:
    os._exit(3)


def test_a_worker_that_dies_is_a_clear_error():
    with pytest.raises(ChildProcessError, match=r"worker process died.*--workers"):
        list(_workers.mapped(_exit, [1, 2, 3], workers=2))
