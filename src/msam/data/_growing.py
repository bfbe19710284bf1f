"""A prepared folder while it grows: data files that are appended to, and a journal that says how much of them counts.

An item's arrays are written first, its line in the journal after; what lies behind the last whole line is cut off when
the work goes on. So a process may be killed at any moment. Lines of the journal:

    header    format, dataset, parameters, classes, versions
    item      id, row, seen (size and time of change of its sources), sources, arrays (sha256, sizes), ends (of the files)
    failure   id, reason
"""

import errno
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from msam.data import _layout
from msam.data._layout import Arrays

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

JOURNAL = "journal.jsonl"


class Growing:
    """The store of one preparation; it goes on where an earlier one of the same header stopped.

    Arguments:
        folder: where it lies; made if it is not there.
        header: what must be the same for the work to go on.
        checking: is told how many items of an earlier preparation have been read back, and of how many.

    Attributes:
        items: id -> its line, of what is done.
        failures: id -> reason.

    Raises:
        ValueError: if the folder holds something else, a preparation with another header, or another process works in it.
    """

    def __init__(
        self, folder: Path, header: Mapping[str, Any], checking: Callable[[int, int], None] = lambda _, __: None
    ) -> None:
        self.folder = folder
        self.items: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, str] = {}
        self._rows = 0
        self._ends: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / JOURNAL
        others = [entry.name for entry in folder.iterdir() if entry.name != JOURNAL]
        if others and not path.exists():
            raise ValueError(
                f"{folder} must be empty or hold an unfinished preparation, found {sorted(others)[0]} in it. Choose "
                "another folder with --out."
            )
        self._journal = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
        try:
            self._lock()
            self._read(json.loads(json.dumps(header)), checking)
        except BaseException:
            self._journal.close()
            raise

    def commit(self, item_id: str, arrays: Arrays, digests: Mapping[str, str], **more: Any) -> None:
        """Append an item.

        Raises:
            ValueError: if an array has not the form of those before it.
            OSError: if it could not be written whole (a full disk, say); what lies there already is kept.
        """
        line: dict[str, Any] = {"id": item_id, "row": self._rows, **more, "arrays": {}}
        ends = {}
        try:
            for name, value in arrays.items():
                form = _layout.form(value)
                self._same_form(name, form)
                file = _layout.file(name, value)
                start = self._ends.get(file, _layout.begin(value))
                ends[file] = _append(self.folder / file, start, _layout.chunks(value))
                line["arrays"][name] = {**form, "sha256": digests[name]}
                if isinstance(value, list):
                    line["arrays"][name] |= {"start": start, "sizes": [frame.shape[:2] for frame in value]}
            self._write("item", {**line, "ends": ends})
        except OSError as error:
            raise self._cannot_write(error) from error
        self._take({**line, "ends": ends})

    def fail(self, item_id: str, reason: str) -> None:
        """Remember why an item could not be made."""
        try:
            self._write("failure", {"id": item_id, "reason": reason})
        except OSError as error:
            raise self._cannot_write(error) from error
        self.failures[item_id] = reason

    def finish(self, manifest: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Complete the data files, then write the manifest that makes the folder a dataset, and drop the journal.

        Arguments:
            manifest: from what is known of arrays and files to the whole manifest.
        """
        try:
            described = _layout.complete(self.folder, list(self.items.values()), self._rows)
            _layout.write_whole(self.folder / _layout.MANIFEST, json.dumps(manifest(described), indent=1).encode())
        except OSError as error:
            raise self._cannot_write(error) from error
        (self.folder / JOURNAL).unlink()

    def close(self) -> None:
        """Let go of the folder."""
        self._journal.close()

    def _cannot_write(self, error: OSError) -> OSError:
        return OSError(
            error.errno,
            f"Cannot write to {self.folder}: {error.strerror}. What is prepared so far is kept ({len(self.items)} items); "
            "make room and give the same command again to go on.",
        )

    def _lock(self) -> None:
        """Keep other processes away; the lock goes with the process, however it ends."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return  # a file system without locks
            raise ValueError(
                f"Another process is preparing {self.folder}. Let it finish, or choose another folder with --out."
            ) from None

    def _read(self, header: dict[str, Any], checking: Callable[[int, int], None]) -> None:
        self._journal.seek(0)
        whole, found, _torn = self._journal.read().rpartition(b"\n")
        self._journal.truncate(len(whole) + len(found))
        lines = [json.loads(line) for line in whole.split(b"\n")] if found else []
        if not lines:
            self._write("header", header)
            return
        _same_header(self.folder, {k: v for k, v in lines[0].items() if k != "kind"}, header)
        for number, line in enumerate(lines[1:], start=1):
            checking(number, len(lines) - 1)
            if line.pop("kind") == "failure":
                continue  # it is tried again
            if not _layout.is_sound(self.folder, line):  # a power cut may keep a line and lose its data
                self._journal.truncate(sum(len(one) + 1 for one in whole.split(b"\n")[:number]))
                return
            self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        self._rows = line["row"] + 1
        self._ends |= line.pop("ends")
        self.items[line["id"]] = line
        self.failures.pop(line["id"], None)

    def _same_form(self, name: str, form: dict[str, Any]) -> None:
        first: dict[str, Any] = next(iter(self.items.values()), {"arrays": {}})["arrays"]
        known = {key: first[name][key] for key in form} if name in first else None if first else form
        if json.loads(json.dumps(form)) != json.loads(json.dumps(known)):
            raise ValueError(f"Every item must give {name} in one form, received {form} after {known}.")

    def _write(self, kind: str, fields: Mapping[str, Any]) -> None:
        size = os.fstat(self._journal.fileno()).st_size
        line = json.dumps({"kind": kind, **fields}, separators=(",", ":")).encode() + b"\n"
        try:
            if self._journal.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._journal.truncate(size)
            raise


def _append(path: Path, start: int, chunks: Iterable[memoryview]) -> int:
    """Write `chunks` at `start`, cut off whatever lay behind, and return the new end."""
    with open(path, "r+b" if path.exists() else "w+b") as file:
        file.seek(start)
        for chunk in chunks:
            file.write(chunk)
        file.truncate()
        return file.tell()


def _same_header(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    if found == wanted:
        return
    differing = [
        f"{key}: {found.get(key)!r} there, {wanted.get(key)!r} now"
        for key in {**found, **wanted}
        if found.get(key) != wanted.get(key)
    ]
    raise ValueError(
        f"{folder} holds an unfinished preparation of another kind ({'; '.join(differing)}). Give the same options to go "
        "on, or choose another folder with --out."
    )
