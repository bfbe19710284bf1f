"""`msam train`: every field of the configuration is a flag and a TOML key of the same name.

Flags of parts are read off the parts' signatures, so `msam train --method mine --help` shows what `mine` brings along.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter
from rich.text import Text

from msam import checks, loggers, recipes
from msam.cli._flags import flag, limits, token_type
from msam.cli.log import TEST, following
from msam.train import config as configuration
from msam.train import train
from msam.train.config import KINDS, RunConfig, laid_over, options, part_name, read_toml
from msam.train.progress import Bar
from msam.train.trainer import RECORD

GENERAL, RUN, LOG = Group("Run", sort_key=0), Group("Training", sort_key=1), Group("Logging", sort_key=3)


def train_command(tokens: Sequence[str]) -> Callable[..., None]:
    """Make the `train` command with the flags of the parts that `tokens` choose."""
    chosen = _chosen(tokens) if tokens[:1] == ["train"] else {kind: KINDS[kind].default for kind in KINDS}
    keys: dict[str, str] = {}
    parameters = []
    for key, annotation in _flags(chosen):
        keys[key.replace(".", "__")] = key
        parameters.append(
            inspect.Parameter(
                key.replace(".", "__"), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
            )
        )

    def command(**given: Any) -> None:
        """Train one run; its record and checkpoint go to a folder of its own."""
        file, recipe, out, resume = (given.pop(name, None) for name in ("config", "recipe", "out", "resume"))
        log, log_out, with_test = (given.pop(name, None) for name in ("log", "log_out", "with_test"))
        flags = _nested({keys[name]: value for name, value in given.items()})
        settings = configuration(laid_over(_below(recipe, file), flags))
        folder = Path(out) if out else Path("runs") / settings.run_name()
        bar = Bar()
        with following(log, log_out, with_test, folder / RECORD, bar.console) as listeners:
            result = train(settings, folder, resume=bool(resume), watcher=bar, listeners=listeners)
        bar.console.print(Text(f"Record: {result.path}   Look at it: msam report {folder}"), soft_wrap=True)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _flags(chosen: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    yield "config", flag(str, "config", "a TOML file with any of the keys below", GENERAL)
    yield (
        "recipe",
        flag(
            str, "recipe", "a setting to start from, as `msam list recipes` shows; file and flags go over it", GENERAL
        ),
    )
    yield "out", flag(str, "out", "folder of the run; default runs/NAME", GENERAL)
    yield (
        "resume",
        Annotated[
            bool | None, Parameter(name="--resume", help="go on with the run in the folder", negative=(), group=GENERAL)
        ],
    )
    for kind, name in chosen.items():
        group = Group(kind.capitalize(), sort_key=2)
        part = KINDS[kind]
        known = ", ".join(part.names()) + (", or a module of your own" if part.open else "")
        yield kind, flag(str, kind, f"one of {known} [default: {part.default}]", group)
        for key, option in options(kind, name).items():
            help_ = f"{option.help.rstrip('.')} {limits(option.default, option.range)}"
            yield f"{kind}.{key}", flag(token_type(option.type, switches=False), f"{kind}.{key}", help_, group)
    for key, field in RunConfig.model_fields.items():
        if key not in KINDS:
            allowed = next((m for m in field.metadata if isinstance(m, checks.Range)), None)
            help_ = f"{field.description} {limits(field.default, allowed)}"
            yield key, flag(token_type(field.annotation, switches=False), key, help_, RUN)
    known = ", ".join(loggers.names())
    yield "log", flag(str, "log", f"follow the run with {known} or a module of your own, with commas between", LOG)
    yield "log_out", flag(str, "log_out", "folder with a folder for each logger [default: logs]", LOG)
    yield "with_test", Annotated[bool | None, Parameter(name="--with-test", help=TEST, negative=(), group=LOG)]


def _chosen(tokens: Sequence[str]) -> dict[str, str]:
    """Find the names of the parts in the tokens and the file they name, before the flags are known."""
    finder = App(help_flags=[], version_flags=[])

    @finder.default
    def find(
        *rest: Annotated[str, Parameter(allow_leading_hyphen=True)],
        config: str | None = None,
        recipe: str | None = None,
        data: str | None = None,
        fusion: str | None = None,
        method: str | None = None,
        sharpness: str | None = None,
        optimizer: str | None = None,
        schedule: str | None = None,
    ) -> dict[str, str | None]:
        return {k: v for k, v in locals().items() if k in ("config", "recipe", *KINDS)}

    found = finder(tokens[1:], result_action="return_value", exit_on_error=False, print_error=False)
    below = _below(found["recipe"], found["config"])
    return {kind: part_name(kind, found[kind] or below.get(kind)) for kind in KINDS}


def _below(recipe: str | None, file: str | None) -> dict[str, Any]:
    """Return what flags are laid over: the values of a file, over those of a recipe."""
    return laid_over(recipes.settings(recipe) if recipe else {}, read_toml(file) if file else {})


def _nested(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return flags as nested values; a part whose options alone are given has no name."""
    given = {key: value for key, value in flags.items() if value is not None}
    raw: dict[str, Any] = {key: value for key, value in given.items() if key.partition(".")[0] not in KINDS}
    for kind in KINDS:
        part = {key.partition(".")[2]: value for key, value in given.items() if key.startswith(f"{kind}.")}
        part |= {"name": given[kind]} if kind in given else {}
        raw |= {kind: part} if part else {}
    return raw
