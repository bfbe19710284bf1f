"""The table of one's own data: a row for each sample, a column for each modality."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from msam import checks

PARTS = ("train", "valid", "test")
WORDS = ("id", "label", "split", "group")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
ENDINGS = {
    "audio": (".wav", ".flac", ".aiff", ".aif", ".mp3", ".ogg", ".opus", ".m4a", ".aac"),
    "image": (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"),
    "video": (".mp4", ".flv", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg"),
    "text": (".txt",),
    "array": (".npy",),
}
"""Kinds of files by the endings that stand for them."""

TOKENS = "tokens"
"""What a column of text is whose files are .npy: numbers of words."""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
SHOWN = 10


@dataclass(frozen=True)
class Row:
    """One sample: its name, the word for its class, part and group ("" where none is given), and its files."""

    line: int
    id: str
    label: str
    split: str
    group: str
    files: Mapping[str, Path]


@dataclass(frozen=True)
class Table:
    """A table without faults.

    Attributes:
        file: where it stands.
        kinds: modality -> "audio", "image", "video", "text", "tokens" or "array".
        classes: words for the classes, in the order of the numbers: integers ascending, other words by the alphabet.
        rows: the samples.
    """

    file: Path
    kinds: Mapping[str, str]
    classes: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def parts(self) -> dict[str, list[str]]:
        """Part -> ids, where the table says which sample is of which; empty otherwise."""
        if not self.rows[0].split:
            return {}
        return {part: [row.id for row in self.rows if row.split == part] for part in PARTS}


def read(file: Path) -> Table:
    """Read a .csv or .tsv file.

    Raises:
        ValueError: if it is no such table, a column is missing or of no known kind, rows have faults (ten are named), a
            class is not in train, a group is in two parts, or there are not two classes.
    """
    lines = list(_lines(file))
    if not lines:
        raise ValueError(f"{file} must have a header and a row for each sample, found nothing in it.")
    header = [cell.strip() for cell in lines[0][1]]
    declared = _columns(file, header)
    rows, faults = [], []
    seen: dict[str, int] = {}
    for line, cells in lines[1:]:
        row = _row(file, line, header, cells, declared)
        if not isinstance(row, str) and row.id in seen:
            row = f"the id {row.id!r} is that of line {seen[row.id]} as well"
        if isinstance(row, str):
            faults.append(f"line {line}: {row}")
        else:
            seen[row.id] = line
            rows.append(row)
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ValueError(
            f"{file} has {len(faults)} of {len(lines) - 1} rows with a fault: {'; '.join(faults[:SHOWN])}{more}."
        )
    if not rows:
        raise ValueError(f"{file} must have a row for each sample, found a header only.")
    kinds = {name: kind or _kind(file, name, rows) for name, kind in declared.items()}
    kinds = {name: _text(file, name, rows) if kind == "text" else kind for name, kind in kinds.items()}
    classes, rows = _classes(file, rows)
    found = Table(file, kinds, classes, tuple(rows))
    _whole_parts(found)
    return found


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and cells of what is not blank; a byte-order mark and either kind of line end are no matter."""
    if not file.is_file():
        raise ValueError(
            f"`root` must be a .csv or .tsv file, found {'a folder' if file.is_dir() else 'none'} at {file}."
        )
    delimiter = DELIMITERS.get(file.suffix.lower())
    if delimiter is None:
        raise ValueError(f"`root` must be a .csv or .tsv file, received {str(file)!r}.")
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, delimiter=delimiter)
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be in UTF-8, found another encoding ({error}).") from error
    except csv.Error as error:
        raise ValueError(f"{file} is no table: {error}.") from error


def _columns(file: Path, header: Sequence[str]) -> dict[str, str]:
    """Return modality -> kind that the header says, or ""."""
    if len(header) == 1 and (other := next((mark for mark in ";\t," if mark in header[0]), "")):
        wanted = "commas" if file.suffix.lower() == ".csv" else "tabs"
        raise ValueError(f"{file} must have columns separated by {wanted}, found {other!r} between them.")
    for word in ("id", "label"):
        if word not in header:
            near = checks.did_you_mean(word, header)
            raise ValueError(
                f"{file} must have the columns id, label and one for each modality, found no {word!r}.{near} "
                f"Found: {', '.join(header)}."
            )
    declared = {}
    for cell in (cell for cell in header if cell not in WORDS):
        name, _, kind = cell.partition(":")
        if not NAME.fullmatch(name) or hasattr(nn.ModuleDict, name):
            raise ValueError(
                f"{file}: the name of a modality must be of letters, digits and _, begin with a letter, and be none that "
                f"torch uses, received {name!r}. Name the column otherwise."
            )
        if ":" in cell:
            checks.one_of(f"kind of column {name!r}", kind, ENDINGS)
        declared[name] = kind
    twice = [name for name, count in Counter(cell.partition(":")[0] for cell in header).items() if count > 1]
    if twice:
        raise ValueError(f"{file} must have every column once, found {twice[0]!r} again.")
    if not declared:
        raise ValueError(f"{file} must have a column of paths for each modality, found {', '.join(header)} only.")
    return declared


def _row(file: Path, line: int, header: Sequence[str], cells: Sequence[str], declared: Mapping[str, str]) -> Row | str:
    """Return a row, or what is wrong with it."""
    if len(cells) != len(header):
        return f"a row must have {len(header)} cells as the header has, received {len(cells)}"
    found = {name.partition(":")[0]: cell.strip() for name, cell in zip(header, cells, strict=True)}
    for word in ("id", "label"):
        if not found[word]:
            return f"the {word} is empty"
    split = found.get("split", "")
    if split and split not in PARTS:
        near = checks.did_you_mean(split, PARTS)
        return f"unknown split {split!r}.{near} Known: {', '.join(PARTS)}"
    files = {name: file.parent / found[name] for name in declared if found[name]}
    if not files:
        return f"{found['id']!r} has no modality at all"
    return Row(line, found["id"], found["label"], split, found.get("group", ""), files)


def _kind(file: Path, name: str, rows: Sequence[Row]) -> str:
    """Return the kind that the endings of a column's files stand for."""
    first: dict[str, Path] = {}
    for path in (row.files[name] for row in rows if name in row.files):
        kind = next((kind for kind, endings in ENDINGS.items() if path.suffix.lower() in endings), "")
        if not kind:
            raise ValueError(
                f"{file}: the ending of {path.name!r} in column {name!r} stands for no kind of file. Say the kind in the "
                f"header, e.g. {name}:text. Kinds: {', '.join(ENDINGS)}."
            )
        first.setdefault(kind, path)
    if not first:
        raise ValueError(f"{file}: column {name!r} must have a path for some samples, found none. Take it out.")
    if len(first) > 1:
        said = " and ".join(f"{path.name!r} ({kind})" for kind, path in list(first.items())[:2])
        raise ValueError(
            f"{file}: column {name!r} must hold files of one kind, found {said}. Make two columns of it, or say the "
            f"kind in the header, e.g. {name}:audio."
        )
    return next(iter(first))


def _text(file: Path, name: str, rows: Sequence[Row]) -> str:
    """Tell text of words from numbers of words."""
    paths = [row.files[name] for row in rows if name in row.files]
    numbers = [path for path in paths if path.suffix.lower() == ".npy"]
    if numbers and len(numbers) < len(paths):
        other = next(path for path in paths if path not in numbers)
        raise ValueError(
            f"{file}: column {name!r} must hold words or numbers of words (.npy) and not both, found {other.name!r} and "
            f"{numbers[0].name!r}."
        )
    return TOKENS if numbers else "text"


def _classes(file: Path, rows: Sequence[Row]) -> tuple[tuple[str, ...], list[Row]]:
    """Return the classes in order, and the rows with their words for them; `07` and `7` are one integer."""
    whole = all(re.fullmatch(r"-?\d+", row.label) for row in rows)
    if whole:
        rows = [Row(**{**vars(row), "label": str(int(row.label))}) for row in rows]
    classes = sorted({row.label for row in rows}, key=int if whole else str)
    if len(classes) < 2:
        raise ValueError(f"{file} must have samples of at least two classes, found only {classes[0]!r}.")
    return tuple(classes), list(rows)


def _whole_parts(table: Table) -> None:
    """Raise for a split that is given by halves, or does not hold what it must."""
    parts = table.parts
    odd = next((row for row in table.rows if bool(row.split) != bool(parts)), None)
    if odd:
        raise ValueError(
            f"{table.file} must give the split of every sample or of none, found line {odd.line} the other way."
        )
    if not parts:
        return
    for part in ("train", "test"):
        if not parts[part]:
            raise ValueError(
                f"{table.file} must have samples of train and test where it gives the split, found none of {part}. Leave "
                "the column out to have a split drawn."
            )
    trained = {row.label for row in table.rows if row.split == "train"}
    for row in table.rows:
        if row.label not in trained:
            raise ValueError(
                f"{table.file}: every class must have samples of train, found {row.label!r} (line {row.line}) in "
                f"{row.split} only."
            )
    part_of: dict[str, Row] = {}
    for row in (row for row in table.rows if row.group):
        other = part_of.setdefault(row.group, row)
        if other.split != row.split:
            raise ValueError(
                f"{table.file}: a group must be in one part, found {row.group!r} in {other.split} (line {other.line}) and "
                f"{row.split} (line {row.line})."
            )
