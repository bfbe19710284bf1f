"""From `humor.pkl` to three npz files and a manifest, and back into arrays.

SPLIT.npz       audio (words, 81), vision (words, 371), text (words, 300) float32: all samples one after another;
                start (n + 1,) int64: the first word of each; label (n,) int64; row (n,) int64: where it lay in the pickle
manifest.json   what it was made of and counts; written last
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam.data import _archives, _layout, _pickles
from msam.data._prepared import read_manifest

NAME = "urfunny"
SPLITS = ("train", "valid", "test")
SIZES = {"audio": 81, "vision": 371, "text": 300}
CLASSES = ("not humorous", "humorous")
LENGTH = 50
"""Words of a sample at most."""

Content = dict[str, NDArray[Any]]


def prepare(pickle: Path, out: Path) -> Path:
    """Write the folder; see `msam.data.urfunny.prepare`."""
    from rich.console import Console

    if pickle.is_dir():
        raise ValueError(f"`root` must be the file humor.pkl, received the folder {pickle}.")
    with _archives.draft_of(out) as draft:
        held = _pickles.load(pickle)
        contents, counts = {}, {}
        for split in SPLITS:
            contents[split], counts[split] = _cleaned(pickle, split, _entries(pickle, held, split))
            held[split] = None
            _write(draft / f"{split}.npz", contents[split])
        files = {f"{split}.npz": (draft / f"{split}.npz").stat().st_size for split in SPLITS}
        manifest = {
            "format": _layout.FORMAT,
            "dataset": NAME,
            "parameters": {},
            "classes": CLASSES,
            "versions": {"numpy": np.__version__},
            "fingerprint": fingerprint(contents),
            "source": {"name": pickle.name, "bytes": pickle.stat().st_size, "sha256": _sha256(pickle)},
            "files": files,
            "splits": counts,
        }
        _layout.write_whole(draft / _layout.MANIFEST, json.dumps(manifest, indent=1).encode())
    console = Console(stderr=True)
    for split in SPLITS:
        console.print(f"{NAME}: {split}: {told(counts[split])}", highlight=False, soft_wrap=True)
    return out


def told(counts: Mapping[str, int]) -> str:
    """Return the counts of a split in words."""
    return (
        f"{counts['kept']} samples, {counts['humorous']} of them humorous ({counts['given']} in the pickle, "
        f"{counts['silent']} without text dropped, {counts['infinite']} values -inf set to 0)"
    )


def manifest_of(folder: Path) -> dict[str, Any]:
    """Return the manifest of a prepared folder.

    Raises:
        ValueError: if it is not prepared, or a file is missing or has not the size it had.
    """
    if folder.is_file():
        raise ValueError(
            f"`root` must be a prepared folder, received the file {folder}. Prepare it once: "
            f"msam data prepare {NAME} --root {folder} --out FOLDER"
        )
    manifest = read_manifest(folder, NAME)
    for name, size in manifest["files"].items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else None
        if found != size:
            state = "missing" if found is None else f"damaged: it must have {size} bytes, found {found}"
            raise ValueError(f"{folder / name} is {state}. Prepare {NAME} again.")
    return manifest


def read(folder: Path, split: str, manifest: Mapping[str, Any]) -> Content:
    """Return the arrays of a split.

    Raises:
        ValueError: if the file is damaged, or its arrays do not fit one another.
    """
    path = folder / f"{split}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in (*SIZES, "start", "label", "row")}
        _fitting(content, manifest["splits"][split]["kept"])
    except Exception as error:  # a broken zip raises a dozen kinds
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise ValueError(f"{path} is damaged ({reason}). Prepare {NAME} again.") from error
    return content


def fingerprint(contents: Mapping[str, Content]) -> str:
    """Return the sha256 of names, shapes, types and bytes of all arrays."""
    found = hashlib.sha256()
    for split in SPLITS:
        for name, values in contents[split].items():
            found.update(f"{split} {name} {_layout.digest(values)};".encode())
    return found.hexdigest()


def _fitting(content: Content, size: int) -> None:
    start, label = content["start"], content["label"]
    if start.shape != (size + 1,) or label.shape != (size,) or start[0] != 0:
        raise ValueError(f"start and label must be of {size} samples, found {start.shape} and {label.shape}")
    lengths = np.diff(start)
    if (lengths < 1).any() or (lengths > LENGTH).any() or not np.isin(label, (0, 1)).all():
        raise ValueError(f"lengths must be 1 to {LENGTH} and labels 0 or 1")
    for name, width in SIZES.items():
        if content[name].shape != (start[-1], width) or content[name].dtype != np.float32:
            raise ValueError(f"{name} must be {(int(start[-1]), width)} of float32, found {content[name].shape}")


def _entries(pickle: Path, held: Any, split: str) -> Content:
    """Return the four arrays of a split of the pickle.

    Raises:
        ValueError: naming what is not there or not as it should be.
    """
    if not isinstance(held, dict) or not isinstance(held.get(split), dict):
        found = sorted(map(str, held)) if isinstance(held, dict) else type(held).__name__
        raise ValueError(f"{pickle} must be a dict with a dict for each of {list(SPLITS)}, found {found}.")
    part = held[split]
    lacking = [name for name in (*SIZES, "labels") if not isinstance(part.get(name), np.ndarray)]
    if lacking:
        raise ValueError(f"{pickle} must have an array {lacking[0]!r} in {split!r}, found {sorted(map(str, part))}.")
    size = len(part["labels"]) if part["labels"].ndim else 0
    for name, width in SIZES.items():
        wanted = (size, LENGTH, width)
        if part[name].shape != wanted or part[name].dtype.kind not in "fiu":
            found = f"{part[name].shape} of {part[name].dtype}"
            raise ValueError(f"{pickle} must have {name!r} of {split!r} as {wanted} of numbers, found {found}.")
    labels = part["labels"]
    if not size or labels.size != size or labels.dtype.kind not in "fiub":
        raise ValueError(f"{pickle} must have one label a sample in {split!r}, found {labels.shape} of {labels.dtype}.")
    wrong = np.flatnonzero(~np.isin(labels.reshape(-1), (-1, 0, 1)))
    if len(wrong):
        value = labels.reshape(-1)[wrong[0]]
        raise ValueError(f"{pickle} must have labels -1, 0 or 1, found {value} in row {wrong[0]} of {split!r}.")
    return {name: part[name] for name in (*SIZES, "labels")}


def _cleaned(pickle: Path, split: str, given: Content) -> tuple[Content, dict[str, int]]:
    """Return what is kept of a split, and counts."""
    spoken = (given["text"] != 0).any(axis=2)
    kept = np.flatnonzero(spoken.any(axis=1))
    if not len(kept):
        raise ValueError(f"{pickle} must have samples with text in {split!r}, found none among {len(spoken)}.")
    first = spoken[kept].argmax(axis=1)
    content: Content = {}
    infinite = 0
    for name in SIZES:
        words = np.concatenate([given[name][row, begin:] for row, begin in zip(kept, first, strict=True)])
        with np.errstate(over="ignore"):
            words = words.astype(np.float32)
        if name == "audio":
            infinite = int(np.isneginf(words).sum())
            words[np.isneginf(words)] = 0
        bad = int((~np.isfinite(words)).sum())
        if bad:
            raise ValueError(
                f"{pickle} must hold finite numbers (and -inf in audio), found {bad} values of {name!r} of {split!r} that "
                "are not. Set them to 0 or leave their samples out."
            )
        content[name] = words
    content["start"] = np.concatenate([[0], np.cumsum(LENGTH - first)]).astype(np.int64)
    content["label"] = (given["labels"].reshape(-1)[kept] >= 1).astype(np.int64)
    content["row"] = kept.astype(np.int64)
    counts = {
        "given": len(spoken),
        "silent": len(spoken) - len(kept),
        "kept": len(kept),
        "humorous": int(content["label"].sum()),
        "infinite": infinite,
    }
    return content, counts


def _write(path: Path, content: Content) -> None:
    held = io.BytesIO()
    np.savez(held, allow_pickle=False, **content)
    _layout.write_whole(path, held.getvalue())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
