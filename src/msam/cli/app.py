"""The command line: `msam demo | list | train | data | bench | report | diagnose | log`.

A user's mistake ends it with one message.
"""

import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError
from rich.console import Console
from rich.text import Text

import msam
from msam import checks
from msam.cli.bench import bench_app
from msam.cli.data import data_app
from msam.cli.diagnose import diagnose
from msam.cli.listing import list_
from msam.cli.log import log
from msam.cli.train import train_command
from msam.train import RunConfig, train
from msam.train.progress import Bar


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
        _fail("Interrupted. Go on with --resume; `demo`, `bench` and `data prepare` do so by themselves.", code=130)
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
    _report([out / "runs"], out)


def report(
    *runs: Path,
    out: Path = Path("report"),
    select: Annotated[str, Parameter(help="which epoch is reported: best_validation or last")] = "best_validation",
    formats: Annotated[str, Parameter(help="any of md,csv,tex,parquet,png,svg")] = "md,csv,png",
    paper: Annotated[bool, Parameter(help="the paper's tables, of a single dataset too", negative=())] = False,
    theirs: Annotated[bool, Parameter(help="in them the paper's own numbers beside ours", negative=())] = False,
) -> None:
    """Make tables, pictures and one self-contained page from the records under RUNS.

    Parameters
    ----------
    runs
        records (*.jsonl, *.jsonl.gz) or folders that hold some; by default the folder runs.
    out
        where they go.
    """
    words = tuple(word.strip() for word in formats.split(",") if word.strip())
    _report(runs or (Path("runs"),), out, select=select, formats=words, paper=paper, theirs=theirs)


def _app(tokens: Sequence[str]) -> App:
    """Make the commands; those of `train` have the flags of the parts that `tokens` choose."""
    app = App(
        name="msam",
        version=msam.__version__,
        help="Multimodal training that stays balanced: train, compare, and see which modality dominates.",
        suppress_keyboard_interrupt=False,
    )
    train_ = train_command(tokens)
    commands: dict[str, Callable[..., None]] = {
        "demo": demo,
        "list": list_,
        "train": train_,
        "report": report,
        "diagnose": diagnose,
        "log": log,
    }
    for name, command in commands.items():
        app.command(command, name=name)
    app.command(data_app(tokens))
    app.command(bench_app(tokens))
    return app


def _run_all(configs: Sequence[RunConfig], folder: Path) -> None:
    bar = Bar()
    for number, settings in enumerate(configs, start=1):
        bar.console.print(f"[dim]run {number} of {len(configs)}[/]", highlight=False, end="  ")
        train(settings, folder / settings.run_name(), resume=True, watcher=bar)


def _report(runs: Sequence[Path], out: Path, **options: Any) -> None:
    from msam.report import report as make

    made = make(runs, out, **options)
    console = Console()
    console.print(made.console_table())
    table = next((f"   Table: {path}" for path in made.paths if path.name.startswith("table.")), "")
    console.print(Text(f"Page: {out / 'page.html'}{table}"), soft_wrap=True)


def _fail(message: str, code: int = 1) -> typing.NoReturn:
    Console(stderr=True).print(Text("error: ", "bold red").append(message, "default not bold"), soft_wrap=True)
    raise SystemExit(code)
