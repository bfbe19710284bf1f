"""Lists that come with datasets: text files, a row a line."""

from pathlib import Path


def lines(file: Path) -> list[str]:
    """Return the lines of a list; a byte-order mark and either kind of line end are taken as they come.

    Raises:
        ValueError: if it is not UTF-8, naming file and line.
    """
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{file} must be UTF-8 text, found byte 0x{content[error.start]:02x} in line {line}."
        ) from error
