"""`msam log`: records afterwards in the tools of the field; and what `msam train --log` shares with it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from msam import loggers
from msam.record import Listener

OUT = Path("logs")
TEST = "log test measures too; who sees them while choosing has chosen by them"


def log(
    *runs: Path,
    to: str,
    out: Path = OUT,
    with_test: Annotated[bool, Parameter(name="--with-test", help=TEST, negative=())] = False,
) -> None:
    """Log the records under RUNS to TensorBoard, Weights & Biases, MLflow or Trackio, as if they had been followed live.

    What is logged already is left out, so that the same command goes on after anything that stopped it, and with runs that
    have come since.

    Parameters
    ----------
    runs
        records (*.jsonl, *.jsonl.gz) or folders that hold some; by default the folder runs.
    to
        one or more of tensorboard, wandb, mlflow, trackio, or a module of your own, with commas between.
    out
        folder with a folder for each logger.
    """
    done = loggers.replay(*(runs or (Path("runs"),)), to=named(to), out=out, with_test=with_test)
    for name, what in done.items():
        runs_ = f"{what.logged} run{'s' * (what.logged != 1)} logged, {what.there} there already"
        look = f"   Look at them: {what.look}" if what.look else ""
        Console().print(Text(f"{name}: {runs_}{look}"), soft_wrap=True)


def named(text: str) -> list[str]:
    """Return names with commas between as a list.

    >>> named("tensorboard, wandb")
    ['tensorboard', 'wandb']
    """
    return list(dict.fromkeys(name for name in (word.strip() for word in text.split(",")) if name))


@contextlib.contextmanager
def following(
    names: str | None, out: str | None, with_test: bool | None, record: Path, console: Console
) -> Iterator[list[Listener]]:
    """Yield the listeners that `--log` wishes for, none without it; a run that had finished before is logged at the end.

    Raises:
        ValueError: if a logger is not known or its package not installed, or there is none and other flags want one.
    """
    if names is None:
        if out is not None or with_test:
            raise ValueError(
                "`--log-out` and `--with-test` say how to log: say to what with --log, as in --log tensorboard."
            )
        yield []
        return

    def say(message: str) -> None:
        console.print(Text(f"warning: {message}"), soft_wrap=True)

    follower = loggers.Follower(named(names), out or OUT, with_test=bool(with_test), say=say)
    with follower:
        yield [follower]
    if not follower.heard:
        try:
            loggers.replay(record, to=named(names), out=out or OUT, with_test=bool(with_test))
        except ValueError as error:
            say(str(error))
