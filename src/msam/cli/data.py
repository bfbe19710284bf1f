"""`msam data prepare` and `msam data check`: their flags are those of the dataset's own `prepare` and `check`."""

import inspect
import sys
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import docstring_parser
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from msam import checks, data
from msam.cli._flags import flag, limits, token_type
from msam.data import Dataset
from msam.data._check import Check
from msam.data._picture import draw, picture_ending

COLOURS = {"ok": "green", "note": "default", "missing": "red", "broken": "red"}
PICTURED = 8
LISTED = 20
"""Findings of one kind that are written out; of the others there is a count."""


def data_app(tokens: Sequence[str]) -> App:
    """Make `msam data` with the flags of the dataset that `tokens` name."""
    app = App(name="data", help="Prepare the files of a dataset once, and look at what is there.")
    name = tokens[2] if tokens[:1] == ["data"] and len(tokens) > 2 and not tokens[2].startswith("-") else ""
    doing = tokens[1] if name else ""
    app.command(_prepare_command(name if doing == "prepare" else ""), name="prepare")
    app.command(_check_command(name if doing == "check" else ""), name="check")
    return app


def _prepare_command(name: str) -> Callable[..., None]:
    function = _function(name, "prepare") if name else None
    if name and function is None:
        raise ValueError(
            f"Dataset {name!r} needs no preparation, use it as it is: msam train --data {name}. To prepare: "
            f"{', '.join(_preparable())}."
        )

    def command(name: str, /, **given: Any) -> None:
        """Prepare a dataset: from its files as they are published to a folder that is fast to load.

        What was done is kept when it is interrupted; the same command goes on.
        """
        assert function is not None  # without a name cyclopts asks for it
        for key in ("root", "out"):
            if given.get(key) is None:
                raise ValueError(f"`msam data prepare {name}` needs --{key}: --root RAW --out DIR.")
        place = function(**{key: value for key, value in given.items() if value is not None})
        Console().print(Text(f"Prepared: {place}   Look at it: msam data check {name} --root {place}"), soft_wrap=True)

    flags = {"root": (str, "the files as they are published"), "out": (str, "the folder to write")}
    return _with_flags(command, function, flags)


def _check_command(name: str) -> Callable[..., None]:
    function = (_function(name, "check") or _loading(data.load(name))) if name else None

    def command(name: str, /, **given: Any) -> None:
        """Say what of a dataset is there, missing or broken, and draw some samples; exit code 1 unless it is sound."""
        assert function is not None  # without a name cyclopts asks for it
        out = given.pop("out", None)
        if out is not None:
            picture_ending(Path(out))
        if not {"root"} <= set(inspect.signature(function).parameters):
            given.pop("root", None)
        found = function(**{key: value for key, value in given.items() if value is not None})
        console = Console()
        _tell(console, found)
        if out is not None:
            _draw(console, found, Path(out))
        if not found.sound:
            raise SystemExit(1)

    flags = {"root": (str, "prepared folder or files; by default $MSAM_DATA/NAME"), "out": (str, "a picture to write")}
    return _with_flags(command, function, flags)


def _with_flags(
    command: Callable[..., None], function: Callable[..., Any] | None, flags: Mapping[str, tuple[type, str]]
) -> Callable[..., None]:
    """Give `command` the flags listed, then those of `function`."""
    known = [*data.names(), "or a module of your own"]
    name = Annotated[str, Parameter(help=", ".join(known))]
    annotations: dict[str, Any] = {key: flag(kind, key, said) for key, (kind, said) in flags.items()}
    for key, option in (inspect.signature(function).parameters if function else {}).items():
        if key not in annotations:
            hint = typing.get_type_hints(function, include_extras=True)[key]
            said = f"{_said(function).get(key, '').rstrip('.')} {_limits(option.default, hint)}"
            annotations[key] = flag(token_type(hint), key, said)
    parameters = [inspect.Parameter("name", inspect.Parameter.POSITIONAL_ONLY, annotation=name)]
    parameters += [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for key, hint in annotations.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {"name": name, **annotations}
    return command


def _limits(default: Any, hint: Any) -> str:
    words = checks.parameter_words(hint)
    choice = f"one of {', '.join(map(str, words))} " if words else ""
    return choice + limits(default if default != "" else None, checks.parameter_range(hint))


def _said(function: Callable[..., Any] | None) -> dict[str, str]:
    parsed = docstring_parser.parse(inspect.getdoc(function) or "", docstring_parser.DocstringStyle.GOOGLE)
    return {one.arg_name: " ".join((one.description or "").split()) for one in parsed.params}


def _function(name: str, what: str) -> Callable[..., Any] | None:
    found: Callable[..., Any] | None = getattr(_module(name), what, None)
    return found


def _module(name: str) -> ModuleType:
    return sys.modules[data.load(name).__module__]


def _preparable() -> list[str]:
    return [name for name in data.names() if _function(name, "prepare")]


def _loading(dataset: Callable[..., Dataset]) -> Callable[..., Check]:
    """Return the `check` of a dataset that has none of its own: it is loaded as it is by default."""

    def check() -> Check:
        loaded = dataset()
        found = Check(loaded.name, fingerprint=loaded.fingerprint, classes=loaded.classes)
        classes = loaded.classes or [f"class {number}" for number in range(loaded.num_classes)]
        for name in ("train", "valid", "test"):
            part = getattr(loaded, name)
            found.split(name, part[range(len(part))].target, classes)
        found.batch = loaded.train[range(min(PICTURED, len(loaded.train)))]
        found.ok("loads")
        return found

    return check


def _tell(console: Console, found: Check) -> None:
    counts = Counter(kind for kind, _ in found.findings)
    shown: Counter[str] = Counter()
    for kind, text in found.findings:
        shown[kind] += 1
        if shown[kind] <= LISTED:
            console.print(Text.assemble((f"{kind:8}", COLOURS[kind]), text), soft_wrap=True)
        elif shown[kind] == counts[kind]:
            more = f"and {counts[kind] - LISTED} more"
            console.print(Text.assemble((f"{kind:8}", COLOURS[kind]), more), soft_wrap=True)
    if found.splits:
        classes = list(next(iter(found.splits.values())))
        table = Table("class", *found.splits)
        for name in classes:
            table.add_row(name, *(str(split.get(name, 0)) for split in found.splits.values()))
        table.add_row("all", *(str(sum(split.values())) for split in found.splits.values()))
        console.print(table)
    if found.fingerprint:
        console.print(f"fingerprint {found.fingerprint}", soft_wrap=True, highlight=False)


def _draw(console: Console, found: Check, out: Path) -> None:
    if found.batch is None:
        console.print(Text("No picture: there is no batch to draw."), soft_wrap=True)
        return
    draw(found.batch, found.classes, out)
    console.print(Text(f"Picture: {out}"), soft_wrap=True)
