"""Prepare a dataset once: sources are decoded in parallel into a folder that is mapped into memory ever after.

A dataset of one's own needs a list of items and a function that decodes one of them:

    def prepare(root: str, out: str, *, fps: int = 1, workers: Workers = 0, missing: Missing = "fail") -> Path:
        items = [Item(id, label, {"audio": Path, "video": Path}) for ...]        # sources: files or folders under root
        return prepared("mine", root, out, items, partial(_decode, fps=fps), classes=..., parameters={"fps": fps},
                        splits={...}, workers=workers, missing=missing)

    def _decode(item: Item, *, fps: int) -> Arrays:                             # of a module: it goes to other processes
        return {"audio": array of one shape for all, "video": [frames (h, w, 3) uint8, of any size and number]}

`decode` raises ValueError or OSError for a source that is broken. `msam data prepare mine` takes its flags from the
signature of the module's `prepare`; `msam.data._prepared.Prepared` opens the folder.
"""

import hashlib
import json
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from msam import checks
from msam.checks import Range
from msam.data import _layout, _workers
from msam.data._growing import Growing
from msam.data._layout import FORMAT, MANIFEST, Arrays

Workers = Annotated[int, Range(ge=0)]
Missing = Literal["fail", "skip"]


@dataclass(frozen=True)
class Item:
    """One sample before it is prepared.

    Attributes:
        id: its name, unique in the dataset.
        label: number of its class.
        sources: role -> file, or folder of files, that it is made of.
        more: what else `decode` has to know of it (a start and an end, say); plain values.
    """

    id: str
    label: int
    sources: Mapping[str, Path]
    more: Mapping[str, Any] = field(default_factory=dict)


Decode = Callable[[Item], Arrays]


def prepared(
    name: str,
    root: str | Path,
    out: str | Path,
    items: Sequence[Item],
    decode: Decode,
    *,
    classes: Sequence[str],
    parameters: Mapping[str, Any],
    splits: Mapping[str, Any] | None = None,
    failures: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    workers: int = 0,
    missing: str = "fail",
) -> Path:
    """Decode `items` into the folder `out` and return it; what an earlier call with the same options did is kept.

    The fingerprint in the manifest is the sha256 of ids, labels and decoded content: it depends neither on places and
    times, nor on the number of workers, nor on interruptions.

    Arguments:
        name: of the dataset.
        root: where the sources lie; the manifest names them relative to it.
        out: the folder to write; new, or left unfinished by an earlier call.
        items: what there is.
        decode: makes one of them into arrays; called in other processes.
        classes: names of the classes.
        parameters: all that decides what `decode` makes; plain values.
        splits: name -> {"how": words, "parts": part -> ids}; ids of items that are left out are dropped from it.
        failures: id -> reason, of rows that did not even make an item.
        notes: what to tell the user at the start.
        workers: processes; 0: one for each core; 1: none but this one.
        missing: "fail": look at all items, then raise if any could not be made; "skip": leave these out, count them and
            list them in the manifest.

    Raises:
        ValueError: if sources are missing or broken, ids come twice, or `out` holds something else or is being written.
        OSError: if it cannot be written (a full disk). The same call goes on later.
        ChildProcessError: if a worker process died.
    """
    checks.one_of("missing", missing, ("fail", "skip"))
    checks.in_range("workers", workers, Range(ge=0))
    root, out = Path(root).absolute(), Path(out)
    _unique(name, items)
    parameters = json.loads(json.dumps(parameters))
    if (out / MANIFEST).exists():
        return _done_before(out, name, parameters, items, splits or {})
    header = {
        "format": FORMAT,
        "dataset": name,
        "parameters": parameters,
        "classes": list(classes),
        "versions": versions(),
    }
    from msam.data._bar import Bar

    with Bar(name, len(items)) as bar:
        store = Growing(out, header, bar.checking)
        try:
            if (out / MANIFEST).exists():  # another process finished it while this one waited for the lock
                return _done_before(out, name, parameters, items, splits or {})
            failed = dict(failures or {})
            for note in [*notes, *([f"{len(failed)} bad rows or files, e.g. {next(iter(failed))}"] if failed else [])]:
                bar.told(note)
            _make(store, root, items, decode, workers, bar)
            failed |= {item.id: store.failures[item.id] for item in items if item.id in store.failures}
            if failed and missing == "fail":
                raise ValueError(_complaint(name, failed, len(items) + len(failures or {})))
            if not store.items:
                raise ValueError(_complaint(name, failed, len(items) + len(failures or {})))
            store.finish(partial(_manifest, header, items, store.items, failed, splits or {}))
        finally:
            store.close()
        bar.told(f"{len(store.items)} items in {out}" + (f", {len(failed)} left out" if failed else ""))
    return out


def fingerprint(items: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """Return the sha256 of prepared content: ids, labels, names of classes, and the sha256 of every array."""
    found = hashlib.sha256(json.dumps(list(classes)).encode())
    for item in sorted(items, key=lambda one: str(one["id"])):
        arrays = {name: array["sha256"] for name, array in sorted(item["arrays"].items())}
        found.update(json.dumps([item["id"], item["label"], arrays]).encode())
    return found.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of what decodes: the same sources give the same content where these are the same."""
    import av
    import numpy
    import torch

    import msam

    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return {
        "msam": msam.__version__,
        "av": av.__version__,
        "libavcodec": codec,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def _make(store: Growing, root: Path, items: Sequence[Item], decode: Decode, workers: int, bar: Any) -> None:
    """Decode what is not there yet, or was made of sources that have changed since."""
    wanted = {item.id for item in items}
    for gone in [one for one in store.items if one not in wanted]:
        del store.items[gone]
    todo = [item for item in items if item.id not in store.items or store.items[item.id]["seen"] != _seen(item)]
    absent = [item.id for item in todo if not all(path.exists() for path in item.sources.values())]
    bar.begin(len(items) - len(todo), absent)
    with closing(_workers.mapped(partial(_made, decode, root), todo, workers)) as results:
        for item, made in zip(todo, results, strict=True):
            if isinstance(made, str):
                store.items.pop(item.id, None)
                store.fail(item.id, made)
            else:
                arrays, digests, more = made
                store.commit(item.id, arrays, digests, **more)
            bar.advance(isinstance(made, str))


def _made(decode: Decode, root: Path, item: Item) -> tuple[Arrays, dict[str, str], dict[str, Any]] | str:
    """Return arrays, their sha256 and what is known of the sources; or the reason why there are none."""
    lacking = [f"no {role} at {relative(path, root)}" for role, path in item.sources.items() if not path.exists()]
    if lacking:
        return ", ".join(lacking)
    try:
        seen = _seen(item)
        sources = {role: _source(path, root) for role, path in item.sources.items()}
        arrays = decode(item)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())
    return arrays, {name: _layout.digest(value) for name, value in arrays.items()}, {"seen": seen, "sources": sources}


def _manifest(
    header: Mapping[str, Any],
    items: Sequence[Item],
    lines: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, str],
    splits: Mapping[str, Any],
    described: Mapping[str, Any],
) -> dict[str, Any]:
    kept = ("row", "sources", "arrays")
    listed = [
        {"id": item.id, "label": item.label, **dict(item.more), **{key: lines[item.id][key] for key in kept}}
        for item in items
        if item.id in lines
    ]
    return {
        **header,
        "fingerprint": fingerprint(listed, header["classes"]),
        "failures": [{"id": one, "reason": reason} for one, reason in failures.items()],
        **described,
        "splits": _among(splits, {item["id"] for item in listed}),
        "items": listed,
    }


def _among(splits: Mapping[str, Any], there: Collection[str]) -> dict[str, Any]:
    """Return the splits without the ids that are not there."""
    return {
        name: {**made, "parts": {part: [i for i in ids if i in there] for part, ids in made["parts"].items()}}
        for name, made in splits.items()
    }


def _source(path: Path, root: Path) -> dict[str, Any]:
    """Return name, size and sha256 of a source; a folder's are those of its files in order of their names."""
    found, size = hashlib.sha256(), 0
    for file in _files(path):
        content = file.read_bytes()
        if path.is_dir():
            found.update(f"{file.name} {len(content)};".encode())
        found.update(content)
        size += len(content)
    return {"name": relative(path, root), "bytes": size, "sha256": found.hexdigest()}


def _seen(item: Item) -> dict[str, Any] | None:
    """Return what an item was made of: what is known of it, and name, size and time of change of all its files.

    By it a change is noticed; None if a source is not there.
    """
    try:
        found = {role: [_stated(file) for file in _files(path)] for role, path in item.sources.items()}
    except OSError:
        return None
    return {"more": json.loads(json.dumps(dict(item.more))), "sources": found}


def _stated(file: Path) -> list[Any]:
    stat = file.stat()
    return [file.name, stat.st_size, stat.st_mtime_ns]


def _files(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


def relative(path: Path, root: Path) -> str:
    """Return the name by which the manifest knows a source: from the root where it lies below it, or else absolute."""
    absolute = path.absolute()
    return (absolute.relative_to(root) if absolute.is_relative_to(root) else absolute).as_posix()


def _unique(name: str, items: Sequence[Item]) -> None:
    if not items:
        raise ValueError(f"{name} must have at least one item to prepare, found none.")
    seen: set[str] = set()
    twice = sorted({item.id for item in items if item.id in seen or seen.add(item.id)})  # type: ignore[func-returns-value]
    if twice:
        raise ValueError(f"Every id must come once, found {len(twice)} that come again: {', '.join(twice[:10])}.")


def _done_before(
    out: Path, name: str, parameters: Mapping[str, Any], items: Sequence[Item], splits: Mapping[str, Any]
) -> Path:
    """Return a folder that is finished, if it is what is asked for now; tell what was left out."""
    from msam.data._bar import Bar
    from msam.data._prepared import read_manifest

    found = read_manifest(out, name)
    way_out = "Choose another folder with --out, or delete this one."
    if found["parameters"] != parameters:
        raise ValueError(
            f"{out} holds {name} prepared with {found['parameters']}, asked for are {parameters}. {way_out}"
        )
    there = {item["id"]: item for item in found["items"]}
    left_out = {failure["id"] for failure in found["failures"]}
    known = {item.id: (item.label, json.loads(json.dumps(dict(item.more)))) for item in items if item.id in there}
    differ = [i for i, (label, more) in known.items() if (label, more) != _told(there[i], more)]
    differ += sorted({item.id for item in items} - set(there) - left_out) + sorted(set(there) - set(known))
    if differ or _among(splits, there) != found["splits"]:
        which = f"{len(differ)} items differ, e.g. {differ[0]}" if differ else "the splits differ"
        raise ValueError(f"{out} holds {name} prepared from other lists: {which}. {way_out}")
    with Bar(name, len(items)) as bar:
        bar.told(f"{out} was prepared before, nothing is done")
        if left_out:
            bar.told(f"{len(left_out)} were left out then, e.g. {min(left_out)}; to try them again, delete the folder")
    return out


def _told(line: Mapping[str, Any], more: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    return line["label"], {key: line.get(key) for key in more}


def _complaint(name: str, failures: Mapping[str, str], total: int) -> str:
    first = "; ".join(f"{one}: {reason}" for one, reason in list(failures.items())[:10])
    more = f"; and {len(failures) - 10} more" if len(failures) > 10 else ""
    return (
        f"{len(failures)} of {total} items of {name} have missing or broken sources: {first}{more}. Mend them and give the "
        "same command again (what is prepared is kept), or pass --missing skip to go on without them."
    )
