"""The command line: `msam demo | list | train | report`.

Every field of the configuration is a flag and a TOML key of the same name. Flags of parts are read off the parts'
signatures, so `msam train --method mine --help` shows what `mine` brings along.
"""

import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Group, Parameter
from cyclopts.exceptions import CycloptsError
from rich.console import Console
from rich.table import Table
from rich.text import Text

import msam
from msam import checks
from msam.methods import _catalogue as catalogue
from msam.train import config as configuration
from msam.train import train
from msam.train.config import KINDS, RunConfig, options, part_name, read_toml
from msam.train.progress import Bar

GENERAL, RUN = Group("Run", sort_key=0), Group("Training", sort_key=1)


def main(tokens: Sequence[str] | None = None) -> None:
    """Run the command line; errors of the user's making end it with one message and exit code 1.

    Parts of one's own (`--method my_lab.foo`) are also looked for in the current folder.
    """
    if "" not in sys.path:
        sys.path.append("")
    tokens = list(sys.argv[1:] if tokens is None else tokens)
    try:
        _app(tokens)(tokens, exit_on_error=False, print_error=False)
    except KeyboardInterrupt:
        _fail("Interrupted. Go on with --resume; `msam demo` does so by itself.", code=130)
    except (CycloptsError, ValueError, OSError) as error:
        _fail(str(error))


def demo(*, out: Path = Path("demo"), seeds: Annotated[int, Parameter(help="seeds per method")] = 3) -> None:
    """Train Joint, SAM and M-SAM on spoken and written digits; print a table and write a page of pictures.

    Finished runs in the output folder are kept, interrupted ones go on where they stopped.

    Parameters
    ----------
    out
        where records, table, pictures and page go.
    """
    from msam.recipes import demo as recipe

    checks.in_range("seeds", seeds, checks.Range(ge=1))
    _run_all(recipe(seeds), out / "runs")
    _report([out / "runs"], out, "best_validation")


def list_(
    kind: Literal["all", "data", "fusions", "methods", "optimizers", "schedules", "sharpness"] = "all", /
) -> None:
    """List what ships, or one kind of it, with options, defaults and ranges."""
    wanted = [k for k in KINDS if kind in ("all", k, f"{k}s")]
    for one in wanted:
        table = Table("name", "what", "options", title=one, title_justify="left", show_lines=True)
        for name in KINDS[one].names():
            summary = _in_the_catalogue(name) if one == "method" else _summary(KINDS[one].find(name))
            lines = [_described(key, o.default, o.range) for key, o in options(one, name).items()]
            table.add_row(name, Text(summary), Text("\n".join(lines)))
        Console().print(table)


def report(
    *runs: Path,
    out: Path = Path("report"),
    select: Annotated[str, Parameter(help="which epoch is reported: best_validation or last")] = "best_validation",
) -> None:
    """Make a table, pictures and one self-contained page from the records under RUNS.

    Parameters
    ----------
    runs
        records (*.jsonl) or folders that hold some.
    out
        where they go.
    """
    if not runs:
        raise ValueError("`msam report` needs at least one record or folder: msam report runs")
    _report(runs, out, select)


def _app(tokens: Sequence[str]) -> App:
    """Make the commands; those of `train` have the flags of the parts that `tokens` choose."""
    app = App(
        name="msam",
        version=msam.__version__,
        help="Multimodal training that stays balanced: train, compare, and see which modality dominates.",
        suppress_keyboard_interrupt=False,
    )
    train_ = _train_command(tokens)
    commands: dict[str, Callable[..., None]] = {"demo": demo, "list": list_, "train": train_, "report": report}
    for name, command in commands.items():
        app.command(command, name=name)
    return app


def _train_command(tokens: Sequence[str]) -> Callable[..., None]:
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
        file, out, resume = (given.pop(name, None) for name in ("config", "out", "resume"))
        raw = _nested({keys[name]: value for name, value in given.items()}, read_toml(file) if file else {})
        settings = configuration(raw)
        folder = Path(out) if out else Path("runs") / settings.run_name()
        bar = Bar()
        result = train(settings, folder, resume=bool(resume), watcher=bar)
        bar.console.print(Text(f"Record: {result.path}   Look at it: msam report {folder}"), soft_wrap=True)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _flags(chosen: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    yield "config", _flag(str, "config", "a TOML file with any of the keys below", GENERAL)
    yield "out", _flag(str, "out", "folder of the run; default runs/NAME", GENERAL)
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
        yield kind, _flag(str, kind, f"one of {known} [default: {part.default}]", group)
        for key, option in options(kind, name).items():
            help_ = f"{option.help.rstrip('.')} {_limits(option.default, option.range)}"
            yield f"{kind}.{key}", _flag(_token_type(option.type), f"{kind}.{key}", help_, group)
    for key, field in RunConfig.model_fields.items():
        if key not in KINDS:
            allowed = next((m for m in field.metadata if isinstance(m, checks.Range)), None)
            help_ = f"{field.description} {_limits(field.default, allowed)}"
            yield key, _flag(_token_type(field.annotation), key, help_, RUN)


def _flag(type_: Any, key: str, help_: str, group: Group) -> Any:
    names = [f"--{key}", f"--{key.replace('_', '-')}"] if "_" in key else [f"--{key}"]
    return Annotated[type_ | None, Parameter(name=names, help=help_, group=group, show_default=False, negative=())]


def _token_type(annotation: Any) -> Any:
    """Numbers are read as such; all else as text, which the configuration then reads as what it needs."""
    plain = typing.get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
    return plain if plain in (int, float) else str


def _chosen(tokens: Sequence[str]) -> dict[str, str]:
    """Find the names of the parts in the tokens and the file they name, before the flags are known."""
    finder = App(help_flags=[], version_flags=[])

    @finder.default
    def find(
        *rest: Annotated[str, Parameter(allow_leading_hyphen=True)],
        config: str | None = None,
        data: str | None = None,
        fusion: str | None = None,
        method: str | None = None,
        sharpness: str | None = None,
        optimizer: str | None = None,
        schedule: str | None = None,
    ) -> dict[str, str | None]:
        return {k: v for k, v in locals().items() if k in ("config", *KINDS)}

    found = finder(tokens[1:], result_action="return_value", exit_on_error=False, print_error=False)
    file = read_toml(found["config"]) if found["config"] else {}
    return {kind: part_name(kind, found[kind] or file.get(kind)) for kind in KINDS}


def _nested(flags: Mapping[str, Any], file: Mapping[str, Any]) -> dict[str, Any]:
    """Lay flags over the values of a file; a part named on the command line drops another part's options."""
    raw: dict[str, Any] = dict(file)
    for kind in KINDS:
        below = dict(raw[kind]) if isinstance(raw.get(kind), Mapping) else {}
        name = flags.get(kind) or part_name(kind, raw.get(kind))
        if name != part_name(kind, raw.get(kind)):
            below = {}
        given = {k.partition(".")[2]: v for k, v in flags.items() if k.startswith(f"{kind}.") and v is not None}
        raw[kind] = {**below, **given, "name": name}
    return raw | {k: v for k, v in flags.items() if v is not None and k.partition(".")[0] not in KINDS}


def _run_all(configs: Sequence[RunConfig], folder: Path) -> None:
    bar = Bar()
    for number, settings in enumerate(configs, start=1):
        bar.console.print(f"[dim]run {number} of {len(configs)}[/]", highlight=False, end="  ")
        train(settings, folder / settings.run_name(), resume=True, watcher=bar)


def _report(runs: Sequence[Path], out: Path, select: str) -> None:
    from msam.report import report as make

    made = make(runs, out, select=select)
    console = Console()
    console.print(made.console_table())
    console.print(Text(f"Page: {out / 'page.html'}   Table: {out / 'table.md'}"), soft_wrap=True)


def _limits(default: Any, allowed: checks.Range | None) -> str:
    shown = "none" if default is None else ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f"[{allowed.describe()}; default: {shown}]" if allowed else f"[default: {shown}]"


def _summary(part: Callable[..., Any]) -> str:
    return (inspect.getdoc(part) or "").split("\n\n")[0].replace("\n", " ")


def _in_the_catalogue(name: str) -> str:
    """Return what the catalogue says of a method, a line for each point."""
    found = catalogue.entry(name)
    shown = ("paper", "family", "changes", "heads", "passes", "fusions", "modalities", "variants")
    lines = [f"{key}: {value}" for key in shown if (value := getattr(found, key))]
    return "\n".join([found.what, *lines])


def _described(key: str, default: Any, allowed: checks.Range | None) -> str:
    return f"{key} {_limits(default, allowed)}"


def _fail(message: str, code: int = 1) -> typing.NoReturn:
    Console(stderr=True).print(Text("error: ", "bold red").append(message, "default not bold"), soft_wrap=True)
    raise SystemExit(code)
