"""Take named files out of a stranger's tar archive, and nothing else."""

import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath


def extract(archive: Path, wanted: Iterable[str], out: Path, accept: Callable[[Path], object]) -> Path:
    """Write the wanted files of a tar archive, wherever they lie in it, into the new folder `out`, and return it.

    The folder is there whole or not at all: files go to a draft beside it, which takes its name when `accept` has seen it.
    Names in the archive are compared, never used as paths.

    Arguments:
        archive: a tar file, compressed or not.
        wanted: the files, as paths from `out`; a member is one of them if its path ends so.
        out: the folder to make; it must not be there, or be empty.
        accept: is given the draft and raises if the files in it are not what they should be.

    Raises:
        ValueError: if the archive is missing, truncated or damaged, lacks a file or has it twice, holds a link, a device or
            a path that leads out of it, or if `out` is not free.
        OSError: if the files cannot be written (a full disk).
    """
    with draft_of(out) as draft:
        _take(archive, tuple(wanted), draft)
        accept(draft)
    return out


@contextmanager
def draft_of(out: Path) -> Iterator[Path]:
    """Give a draft folder that becomes `out` if the block ends well, and vanishes if not.

    Raises:
        ValueError: if `out` is there and not an empty folder.
    """
    if out.resolve() == Path.cwd():
        raise ValueError("The folder that you are in cannot be written as a whole. Name a folder in it with --out.")
    out = out.resolve()  # a link to another disk stays one
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out} must be a new or empty folder, found something there. Choose another one with --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield draft
        draft.chmod(0o755)
        os.replace(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _take(archive: Path, wanted: tuple[str, ...], folder: Path) -> None:
    if not archive.is_file():
        found = (
            "a folder: if it is unpacked, give it to training as it is (--data.root)" if archive.is_dir() else "none"
        )
        raise ValueError(f"The archive must be a file, found {found} at {archive}.")
    left = list(wanted)
    try:
        with tarfile.open(archive, "r:*") as opened:
            for member in opened:
                _harmless(archive, member)
                name = next((name for name in wanted if member.isfile() and _ends(member.name, name)), None)
                if name is None:
                    continue
                if name not in left:
                    raise ValueError(f"{archive} must hold {name} once, found it again as {member.name!r}.")
                left.remove(name)
                _copy(opened, member, folder / name)
            _read_out(opened)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise ValueError(f"{archive} is truncated, damaged or no tar archive ({reason}). Get it again.") from error
    except OSError as error:
        if error.errno is None:  # how gzip says that the bytes are not its own
            raise ValueError(f"{archive} is damaged ({error}). Get it again.") from error
        raise
    if left:
        raise ValueError(
            f"{archive} must hold {len(wanted)} files, found {len(wanted) - len(left)}; lacking are {left}."
        )


def _read_out(opened: tarfile.TarFile) -> None:
    """Read to the end of the file: only there does gzip compare its checksum."""
    assert opened.fileobj is not None
    while opened.fileobj.read(2**20):
        pass


def _harmless(archive: Path, member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    odd = "a path that leads out of the archive" if path.is_absolute() or ".." in path.parts else ""
    if not (member.isfile() or member.isdir()):
        odd = "a link" if member.issym() or member.islnk() else "no plain file"
    if odd:
        raise ValueError(
            f"{archive} must hold plain files and folders only, found {member.name!r}, {odd}. Nothing was written. Get the "
            "archive from where the documentation says."
        )


def _ends(name: str, wanted: str) -> bool:
    """Tell whether a path ends with another, part by part.

    >>> _ends("a/b/image/x.npy", "image/x.npy"), _ends("a/my_image/x.npy", "image/x.npy")
    (True, False)
    """
    parts = PurePosixPath(wanted).parts
    return PurePosixPath(name).parts[-len(parts) :] == parts


def _copy(opened: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
    source = opened.extractfile(member)
    assert source is not None  # it is a file
    place.parent.mkdir(parents=True, exist_ok=True)
    with source, place.open("xb") as target:
        shutil.copyfileobj(source, target, 2**20)
        target.flush()
        os.fsync(target.fileno())
    if place.stat().st_size != member.size:
        raise EOFError(f"{member.name} ends after {place.stat().st_size} of {member.size} bytes")
