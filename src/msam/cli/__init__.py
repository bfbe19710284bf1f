"""The command line."""

from msam.cli.app import main

__all__ = ["main"]
