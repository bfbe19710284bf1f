"""The command line."""

import sys
from collections.abc import Sequence

from msam._missing import remedy

__all__ = ["main"]


def main(tokens: Sequence[str] | None = None) -> None:
    """Run the command line; errors of the user's making end it with one message and exit code 1.

    Parts of one's own (`--method my_lab.foo`) are also looked for in the current folder.

    Arguments:
        tokens: the words after `msam`; those of the process by default.

    Raises:
        SystemExit: with 1 after a mistake of the user's, or where a package is missing that the command needs.
    """
    try:
        from msam.cli import app

        app.main(tokens)
    except ModuleNotFoundError as error:
        words = remedy(error, "The command line", "demo")
        if not words:
            raise
        sys.exit(f"error: {words}")
