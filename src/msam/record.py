"""One run = one JSON-lines file: a header, its steps and epochs, an end.

Line kinds, in the field `kind`:

    header  config, versions, host, data fingerprint, modalities, passes, started
    step    step, epoch, loss, contributions, dominant, share, radius, method (what the method notes, if anything)
    epoch   epoch, step, loss, lr, seconds, train / valid / test (metrics of the protocol), auxiliary, and, where steps have
            no lines, `means` of them: share, radius, contributions and dominance by modality
    probe   probe (its name), epoch, step, samples, dtype, seconds, and what `msam.train.probes` found; only where a run
            asks for probes
    end     status ("finished" or "diverged"), seconds, steps, epochs, passes_per_step, seconds_per_step, weights (sha256)

A line is written whole or not at all. `read` knows an unfinished last line (a killed process) from a damaged file.
A finished record may be filed: the same lines, numbers of six digits but for the configuration's, compressed.
"""

import errno
import gc
import gzip
import json
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from msam._files import write_whole

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

VOLATILE = ("started", "finished", "seconds", "seconds_per_step", "host")
"""Names of fields, at any depth, that differ between two equal runs: time and host."""


WORLDS = ("dial",)
"""Datasets drawn anew from their seed: for them `data.seed` is one more replication, not another dataset."""


class Listener(Protocol):
    """Whoever reads along while a record is written. It must be quick; what it raises becomes a warning, and it is left."""

    def opened(self, path: Path, position: int) -> None:
        """The record is open and ends at byte `position`; what a resumed run cuts off is cut off."""

    def written(self, position: int) -> None:
        """One more line is on disk, whole; the record ends at byte `position`."""

    def closed(self) -> None:
        """No more lines will come from this process."""


class Writer:
    """Append lines to a record; every line is on disk, whole, when `write` returns.

    Arguments:
        path: the record. It must not exist, unless `keep` says how much of it to go on from.
        keep: number of bytes of an existing record to keep (what a checkpoint remembered); the rest is cut off.
        listeners: are told of the record as it grows.

    Raises:
        FileExistsError: if the record exists and `keep` is None.
        ValueError: if the record is shorter than `keep`, no line ends there, or another process is writing it.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, keep: int | None = None, listeners: Sequence[Listener] = ()
    ) -> None:
        self.path = Path(path)
        self._listeners = list(listeners)
        if keep is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "xb" if keep is None else "r+b", buffering=0)  # noqa: SIM115 - closed by close()
        try:
            self._lock()
            if keep is not None:
                self._cut(keep)
        except BaseException:
            self._file.close()
            raise
        self.position = self._file.tell()
        self._tell("opened", self.path, self.position)

    def _tell(self, what: str, *arguments: Any) -> None:
        for listener in tuple(self._listeners):
            try:
                getattr(listener, what)(*arguments)
            except Exception as error:
                self._listeners.remove(listener)
                warnings.warn(f"{type(listener).__name__} no longer reads {self.path}: {error}", stacklevel=3)

    def _lock(self) -> None:
        """Keep other processes from writing here; the lock goes with the file or the process."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return  # a file system without locks
            raise ValueError(
                f"Another process is writing record {self.path}. Let it finish, or choose another folder with --out."
            ) from None

    def _cut(self, keep: int) -> None:
        size = self.path.stat().st_size
        self._file.seek(max(keep - 1, 0))
        ends = not keep or self._file.read(1) == b"\n"
        if size < keep or not ends:
            found = f"has {size} bytes" if size < keep else f"has no line that ends at byte {keep}"
            raise ValueError(
                f"Record {self.path} {found} but its checkpoint was written at {keep}: they are not of one run. Start the "
                "run anew in another folder."
            )
        self._file.truncate(keep)
        self._file.seek(keep)

    def write(self, kind: str, **fields: Any) -> None:
        """Append one line.

        Raises:
            OSError: if it could not be written whole (a full disk, say); what the line had left in the file
                is taken back, so that the lines before it stay a sound record.
        """
        line = json.dumps({"kind": kind, **fields}, allow_nan=True, separators=(",", ":")).encode() + b"\n"
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError as error:
            self._file.truncate(self.position)
            self._file.seek(self.position)
            raise OSError(
                error.errno,
                f"Cannot write to record {self.path}: {error.strerror}. The record is sound up to its last whole "
                "line; make room and go on with --resume.",
            ) from error
        self.position += len(line)
        self._tell("written", self.position)

    def sync(self) -> None:
        """Force what was written onto the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._tell("closed")

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Record:
    """A record as read back.

    Attributes:
        path: where it was read from.
        header: the header line.
        steps: the step lines, in order.
        epochs: the epoch lines, in order.
        end: the end line, or None for a run that has not finished.
        probes: the probe lines, in order.
    """

    path: Path
    header: dict[str, Any]
    steps: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] | None = None
    probes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the run."""
        return self.header["config"]


def file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write a record anew for keeping: floats of six significant digits, compressed; equal lines give equal bytes.

    The configuration keeps all digits: it is what the run is.

    Arguments:
        source: a record, which stays.
        target: where it goes, `*.jsonl.gz`; it appears whole or not at all.

    Raises:
        OSError: if it could not be written (a full disk, say); what was there before is untouched.
    """
    rounded = (json.dumps(_short(line), separators=(",", ":")) for line in lines(source))
    content = gzip.compress("".join(line + "\n" for line in rounded).encode(), mtime=0)
    write_whole(Path(target), content)


def read(path: str | os.PathLike[str]) -> Record:
    """Read a record, filed or not; an unfinished last line is left out.

    Raises:
        ValueError: if a line is no JSON object of a known kind, or the first line is no header: naming the line.
    """
    path = Path(path)
    found = list(lines(path))
    if not found or found[0].get("kind") != "header":
        raise ValueError(f"{path} is no record of a run: its first line must be of kind 'header'.")
    record: dict[str, list[dict[str, Any]]] = {"step": [], "epoch": [], "probe": [], "end": []}
    for number, line in enumerate(found[1:], start=2):
        kind = line.get("kind")
        if kind not in record:
            raise ValueError(f"{path}, line {number}: kind must be one of step, epoch, probe, end; found {kind!r}.")
        record[kind].append(line)
    end = record["end"][-1] if record["end"] else None
    return Record(path, found[0], record["step"], record["epoch"], end, record["probe"])


def find(*paths: str | os.PathLike[str]) -> list[Record]:
    """Read every record that `files` finds.

    Raises:
        FileNotFoundError: if a path does not exist or nothing is found under any of them.
    """
    with _uncollected():
        return [read(file) for file in files(*paths)]


def files(*paths: str | os.PathLike[str]) -> list[Path]:
    """Return every record (`*.jsonl`, `*.jsonl.gz`) under files and folders but hidden ones, in order of paths.

    Raises:
        FileNotFoundError: if a path does not exist or nothing is found under any of them.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"No file or folder {path}. Give a record (*.jsonl) or a folder that holds some.")
        inside = () if path.is_file() else (*path.rglob("*.jsonl"), *path.rglob("*.jsonl.gz"))
        shown = (f for f in inside if not any(part.startswith(".") for part in f.relative_to(path).parts))
        found += [path] if path.is_file() else sorted(shown)
    if not found:
        raise FileNotFoundError(f"No record (*.jsonl) under {', '.join(map(str, paths))}. Make one with `msam train`.")
    return list(dict.fromkeys(found))


def without_volatile(value: Any) -> Any:
    """Return `value` (a line, or part of one) without the fields that differ between two equal runs.

    >>> without_volatile({"loss": 1.0, "seconds": 2.3, "inner": {"host": "a", "x": 1}})
    {'loss': 1.0, 'inner': {'x': 1}}
    """
    if isinstance(value, dict):
        return {k: without_volatile(v) for k, v in value.items() if k not in VOLATILE}
    return [without_volatile(v) for v in value] if isinstance(value, list) else value


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let the collector of garbage rest: looking for cycles in lines that have none takes as long as reading them."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a compressed record ({error}). The record is damaged.") from error


def _short(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value if key == "config" else _rounded(value) for key, value in line.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def lines(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the lines of a record, filed or not, of any kind; an unfinished last line is left out.

    Raises:
        ValueError: if a line is no JSON object, naming it.
    """
    path = Path(path)
    content = _content(path)
    whole, _, _unfinished = content.rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        try:
            parsed = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not JSON ({error}). The record is damaged.") from error
        if not isinstance(parsed, dict):
            raise ValueError(f"{path}, line {number} must be a JSON object, found {type(parsed).__name__}.")
        yield parsed
