"""What to install where a package is missing that only a part of msam needs."""

import re
from importlib.metadata import PackageNotFoundError, requires


def remedy(error: ModuleNotFoundError, part: str, extra: str) -> str:
    """Return what to do about a missing package, in a sentence; empty where msam does not ask for that package.

    Arguments:
        error: what an import raised.
        part: what needs the package.
        extra: of msam's, with which the package comes.

    >>> remedy(ModuleNotFoundError(name="scipy.stats"), "`msam.diagnose`", "train")
    "`msam.diagnose` needs the package scipy, which is not installed. Install it with `pip install 'msam[train]'`."
    >>> remedy(ModuleNotFoundError(name="my_lab"), "`msam.diagnose`", "train")
    ''
    """
    package = (error.name or "").partition(".")[0]
    if package.replace("_", "-") not in _asked():
        return ""
    return f"{part} needs the package {package}, which is not installed. Install it with `pip install 'msam[{extra}]'`."


def _asked() -> set[str]:
    """Names of the packages that msam asks for, with or without an extra."""
    try:
        lines = requires("msam") or []
    except PackageNotFoundError:
        return set()
    return {re.split(r"[^\w-]", line, maxsplit=1)[0].lower() for line in lines} - {"msam"}
