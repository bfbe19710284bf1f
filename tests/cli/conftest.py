"""The command line as a function, in an empty folder."""

import pytest

from msam import cli


@pytest.fixture
def msam_(tmp_path, monkeypatch, capsys):
    """Return a function from a command line to (exit code, stdout, stderr), in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("MSAM_DATA", raising=False)

    def run(line: str):
        code = 0
        try:
            cli.main(line.split())
        except SystemExit as done:
            code = done.code or 0
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out, said.err

    return run
