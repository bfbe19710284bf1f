"""Who reads a record along is told how far it is written, and cannot harm it."""

import pytest

from msam.record import Writer, read
from tests.test_record import HEADER


class Reader:
    """A listener that reads what it is told of."""

    def __init__(self, fails_at=""):
        self.calls, self.fails_at, self.read = [], fails_at, b""

    def opened(self, path, position):
        self.path = path
        self._note("opened", position)

    def written(self, position):
        self._note("written", position)

    def closed(self):
        self._note("closed")

    def _note(self, call, position=None):
        self.calls.append(call)
        if call == self.fails_at:
            raise RuntimeError("no ear for it")
        if position is not None:
            self.read = self.path.read_bytes()
            assert len(self.read) == position
            assert self.read == b"" or self.read.endswith(b"\n")


def test_a_listener_is_told_of_the_begin_of_every_line_and_of_the_end(tmp_path):
    reader = Reader()
    with Writer(tmp_path / "run.jsonl", listeners=[reader]) as writer:
        writer.write("header", **HEADER)
        writer.write("step", step=1)
    assert reader.calls == ["opened", "written", "written", "closed"]
    assert reader.read == (tmp_path / "run.jsonl").read_bytes()


def test_a_resumed_record_is_opened_when_it_is_cut(tmp_path):
    with Writer(tmp_path / "run.jsonl") as writer:
        writer.write("header", **HEADER)
        keep = writer.position
        writer.write("step", step=1)
    reader = Reader()
    Writer(tmp_path / "run.jsonl", keep=keep, listeners=[reader]).close()
    assert reader.calls == ["opened", "closed"]
    assert len(reader.read) == keep


@pytest.mark.parametrize("call", ["opened", "written", "closed"])
def test_a_listener_that_fails_is_left_with_a_warning_and_the_record_is_whole(tmp_path, call):
    bad, good = Reader(call), Reader()
    with pytest.warns(UserWarning, match=r"Reader no longer reads .*run\.jsonl: no ear for it"):
        _written(tmp_path / "run.jsonl", bad, good)
    assert bad.calls[-1] == call
    assert bad.calls.count(call) == 1
    assert good.calls == ["opened", "written", "written", "closed"]
    assert len(read(tmp_path / "run.jsonl").steps) == 1


def test_a_record_that_cannot_be_opened_has_no_listeners(tmp_path):
    (tmp_path / "run.jsonl").write_text("")
    reader = Reader()
    with pytest.raises(FileExistsError):
        Writer(tmp_path / "run.jsonl", listeners=[reader])
    assert reader.calls == []


def _written(path, *listeners):
    with Writer(path, listeners=listeners) as writer:
        writer.write("header", **HEADER)
        writer.write("step", step=1)
