"""The folder of a report: its files, each whole, and none that an earlier report left behind."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from msam._files import write_whole

MANIFEST = ".report.json"
"""What the last report wrote into its folder: names of files, and the sha256 of each."""


def write(out: Path, files: Iterable[tuple[str, bytes]]) -> tuple[Path, ...]:
    """Write files into a folder and take away those of the report before that are not written again.

    What no report wrote is left alone, and so is what was changed since one did.

    Arguments:
        out: the folder, made if it does not exist.
        files: names and contents.

    Raises:
        OSError: if a file could not be written; those before it are written, and none is taken away.
    """
    written = {}
    for name, content in files:
        write_whole(out / name, content)
        written[name] = hashlib.sha256(content).hexdigest()
    for name, digest in _before(out).items():
        if name not in written and _digest(out / name) == digest:
            (out / name).unlink()
    write_whole(out / MANIFEST, json.dumps(written, indent=0).encode())
    return tuple(out / name for name in written)


def _before(out: Path) -> dict[str, str]:
    """What the manifest says; nothing where there is none that can be read. It speaks of files in its folder alone."""
    try:
        found = dict(json.loads((out / MANIFEST).read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}
    return {name: digest for name, digest in found.items() if Path(name).name == name}


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
