"""Data of one's own: a table of files, any number of classes and modalities."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from msam import checks
from msam.checks import Range
from msam.data import _folder_files, _folder_split, _folder_table, _looks
from msam.data._card import folder_of
from msam.data._check import Check
from msam.data._clips import Choice
from msam.data._folder_files import Forms
from msam.data._folder_table import DELIMITERS, PARTS, TOKENS, Table
from msam.data._loaders import Dataset
from msam.data._prepare import Item, Missing, Workers, prepared, relative
from msam.data._prepared import Prepared, is_prepared, opened, read_manifest

Share = Annotated[float, Range(gt=0, lt=1)]
Whole = Annotated[int, Range(ge=1)]
Augment = Literal["none", "crop"]
SMALLEST = 8
"""Shortest side of what goes through ResNet-18."""


def folder(
    *,
    root: str = "",
    valid: Share = 0.1,
    test: Share = 0.2,
    seed: Annotated[int, Range(ge=0)] = 0,
    frames: Whole = 3,
    choice: Choice = "even",
    size: Annotated[int, Range(ge=SMALLEST)] = 224,
    augment: Augment = "none",
) -> Dataset:
    """Return one's own data as `msam data prepare folder` prepared it.

    Inputs by kind: audio `(n, 1, 257, frames)`, log-spectrogram; image `(n, 3, size, size)`; video `(n, 3, T, size, size)`;
    text and token numbers `(n, length)`, integers; array as it is. Words of a text are numbered by the training samples: 2,
    3, ... by how many samples have them; 1 is a word that train does not have, 0 none.

    A sample that lacks a modality has zeros for it and False in `Batch.present`: its feature is zeros, and losses of a
    modality's own leave it out. The zeros do go through the encoder, and count in the batch statistics of BatchNorm.

    Where the table gives no split, whole groups, or else samples class by class, are held out: a share `test`, then of
    what is left a share `valid`; where it gives one without validation, the latter alone. The order of the table's rows
    decides nothing.

    The fingerprint is a sha256 of content, classes, splits, and of what samples lack.

    Args:
        root: the prepared folder; by default $MSAM_DATA/folder.
        valid: share of train to validate on, unless the table says.
        test: share to test on, unless the table says.
        seed: of what is drawn for the split.
        frames: T, frames of each video.
        choice: which of them in training: evenly spaced, or random ones in every epoch.
        size: height and width that pictures and frames are brought to, in pixels.
        augment: in training: "crop": a random crop and flip of pictures and frames, as for CREMA-D; "none".

    Raises:
        ValueError: for a folder that is not prepared or was changed; if a part would be empty, or a class had no sample of
            train.
    """
    checks.arguments_in_range(folder, locals())
    checks.arguments_among_words(folder, locals())
    place = folder_of("folder", root)
    if place.is_file():
        raise ValueError(
            f"`root` must be a prepared folder, {place} is a file. Run msam data prepare folder --root {place} --out DIR "
            "once, then give DIR."
        )
    found = opened(place, "folder")
    view = _folder_split.View(frames, choice, size, augment == "crop")
    parts = _folder_split.splits(found, view, valid, test, seed)
    shapes = _shapes(found, frames, size)
    classes = tuple(found.manifest["classes"])
    return Dataset(
        "folder",
        parts["train"],
        parts["valid"],
        parts["test"],
        num_classes=len(classes),
        shapes=shapes,
        encoders={name: _encoder(kind, shapes[name]) for name, kind in _folder_split.kinds_of(found).items()},
        fingerprint=_folder_split.fingerprint(found, parts),
        classes=classes,
    )


def prepare(
    root: str,
    out: str,
    *,
    rate: Whole = 16000,
    seconds: Annotated[float, Range(gt=0)] = 3.0,
    fps: Whole = 1,
    short_side: Annotated[int, Range(ge=0)] = 256,
    length: Whole = 50,
    workers: Workers = 0,
    missing: Missing = "fail",
) -> Path:
    """Prepare data of one's own from a table: id, label, a column of paths for each modality; split and group if wanted.

    Args:
        root: the table, .csv or .tsv; paths in it are absolute or begin at its folder.
        out: the folder to write.
        rate: samples of sound a second.
        seconds: length that sound is repeated or cut to.
        fps: frames of video kept of each second.
        short_side: pixels of the shorter side of frames and pictures kept, where it is longer; 0: as they are.
        length: words of a text that are kept.
        workers: processes; 0: one for each core.
        missing: whether samples with missing or broken files end it, or are left out and listed.

    Raises:
        ValueError: if the table has faults, files are missing or broken, an option is not allowed, or `out` was prepared
            from other rows.
    """
    checks.arguments_in_range(prepare, locals())
    checks.arguments_among_words(prepare, locals())
    table = _folder_table.read(Path(root))
    if is_prepared(out):
        _same_table(read_manifest(Path(out), "folder"), table, out)
    forms = Forms(table.kinds, rate, seconds, fps, short_side, length, _folder_files.shapes(table))
    if "audio" in table.kinds.values():
        forms.spectrogram  # noqa: B018 - sound that is too short ends it before anything is decoded
    return prepared(
        "folder",
        table.file.parent,
        out,
        _items(table),
        partial(_folder_files.decode, forms=forms),
        classes=table.classes,
        parameters=vars(forms),
        splits={"given": {"how": f"column split of {table.file.name}", "parts": table.parts}} if table.parts else {},
        notes=[f"found {', '.join(f'{name} ({kind})' for name, kind in table.kinds.items())}", *_lacking(table)],
        workers=workers,
        missing=missing,
    )


def check(
    root: str = "",
    *,
    valid: Share = 0.1,
    test: Share = 0.2,
    seed: Annotated[int, Range(ge=0)] = 0,
    size: Annotated[int, Range(ge=SMALLEST)] = 224,
) -> Check:
    """Say what is there of one's own data, a table or a prepared folder.

    Args:
        root: a prepared folder, or the table.
        valid: share to validate on, unless the table says.
        test: share to test on, unless the table says.
        seed: of the split.
        size: of pictures and frames.

    Raises:
        ValueError: if there is nothing at `root`, or an option is not allowed.
    """
    checks.arguments_in_range(check, locals())
    place, found = folder_of("folder", root), Check("folder")
    if place.is_dir() and not is_prepared(place) and (tables := _tables(place)):
        raise ValueError(f"`root` must be the table itself, received its folder. Give --root {tables[0]}.")
    if not place.is_file():
        _looks.prepared(
            found, place, "samples", lambda _: folder(root=root, valid=valid, test=test, seed=seed, size=size)
        )
        return found
    try:
        table = _folder_table.read(place)
        _folder_files.shapes(table)
    except ValueError as error:
        found.broken(str(error))
        return found
    found.ok(f"{len(table.rows)} rows; {', '.join(f'{name}: {kind}' for name, kind in table.kinds.items())}")
    for note in _lacking(table):
        found.note(note)
    items = _items(table)
    for part in PARTS if table.parts else ("all",):
        members = set(table.parts.get(part, [item.id for item in items]))
        found.split(part, (item.label for item in items if item.id in members), table.classes)
    whole = _looks.sound(found, items, lambda role, path: _folder_files.look(table.kinds[role], path))
    found.ok(f"{len(whole)} of {len(items)} samples have files that can be opened")
    return found


def _items(table: Table) -> list[Item]:
    number = {name: place for place, name in enumerate(table.classes)}
    return [Item(row.id, number[row.label], row.files, {"group": row.group}) for row in table.rows]


def _same_table(manifest: Mapping[str, Any], table: Table, out: str) -> None:
    """Raise if a finished folder was made of other rows than the table has now: what changed would be lost silently."""
    place = table.file.parent.absolute()
    classes, lines = manifest["classes"], {item["id"]: item for item in manifest["items"]}
    left_out = {failure["id"] for failure in manifest["failures"]}
    parts = manifest["splits"].get("given", {"parts": {}})["parts"]
    part_of = {name: part for part, names in parts.items() for name in names}
    now = {
        row.id: [row.label, row.group, row.split, {name: relative(path, place) for name, path in row.files.items()}]
        for row in table.rows
    }
    then = {
        name: [
            classes[item["label"]],
            item["group"],
            part_of.get(name, ""),
            {role: source["name"] for role, source in item["sources"].items()},
        ]
        for name, item in lines.items()
    }
    changed = [name for name in {**now, **then} if name not in left_out and now.get(name) != then.get(name)]
    if changed:
        raise ValueError(
            f"{out} was prepared from other rows than {table.file} has now: {len(changed)} differ, e.g. {changed[0]!r}. "
            "Choose another folder with --out, or delete this one."
        )


def _lacking(table: Table) -> list[str]:
    counts = {name: sum(name not in row.files for row in table.rows) for name in table.kinds}
    return [f"{count} of {len(table.rows)} samples lack {name}" for name, count in counts.items() if count]


def _tables(place: Path) -> list[Path]:
    return [entry for entry in sorted(place.iterdir()) if entry.suffix.lower() in DELIMITERS]


def _shapes(found: Prepared, frames: int, size: int) -> dict[str, tuple[int, ...]]:
    def shape(name: str, kind: str) -> tuple[int, ...]:
        if kind in ("image", "video"):
            return (3, size, size) if kind == "image" else (3, frames, size, size)
        stored = found.arrays[name].shape[1:]
        return (1, *stored) if kind == "audio" else stored

    return {name: shape(name, kind) for name, kind in _folder_split.kinds_of(found).items()}


def _encoder(kind: str, shape: tuple[int, ...]) -> str:
    """Return the encoder for a kind; an array that has the form of pictures is taken for one, very short sound is not."""
    if kind in ("text", TOKENS):
        return "token_mean"
    if kind == "video":
        return "resnet18_frames"
    pictured = len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= SMALLEST
    return "resnet18" if pictured else "mlp"
