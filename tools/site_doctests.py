"""Examples of docstrings are shown as code on the site: Markdown takes `>>>` for quotations."""

import re
from typing import Any

from griffe import Extension, Object

DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.M)


def fenced(text: str) -> str:
    """Return a docstring with a fence around each doctest.

    >>> fenced("Adds.\\n\\n>>> 1 + 1\\n2")
    'Adds.\\n\\n```pycon\\n>>> 1 + 1\\n2\\n```'
    """
    return DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", text)


class Doctests(Extension):
    """Fences the doctests of whatever has a docstring."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring where it has doctests."""
        if obj.docstring and ">>> " in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)
