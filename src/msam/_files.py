"""Files that are there whole or not at all."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, and its folder if there is none; even if the power fails it is there whole, or as it was before.

    Raises:
        OSError: if it could not be written (a full disk, say); nothing is left of the attempt.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
