"""Lists of datasets: text as editors of all systems write it; anything else is named with file and line."""

import pytest

from msam.data._lists import lines


@pytest.mark.parametrize("content", [b"a,1\nb,2\n", b"\xef\xbb\xbfa,1\r\nb,2\r\n", b"a,1\r\nb,2"])
def test_marks_and_line_ends_are_taken_as_they_come(tmp_path, content):
    (tmp_path / "list.csv").write_bytes(content)
    assert lines(tmp_path / "list.csv") == ["a,1", "b,2"]


def test_what_is_not_utf_8_is_named_with_file_and_line(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"a,1\nb\xe9,2\n")
    with pytest.raises(ValueError, match=r"list\.csv must be UTF-8 text, found byte 0xe9 in line 2"):
        lines(tmp_path / "list.csv")
