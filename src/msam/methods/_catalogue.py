"""The catalogue of methods: what each says of itself, read off its class; `msam list methods` and a page of the docs."""

import dataclasses
import inspect
import typing
from typing import Any, NamedTuple

from msam import _registry, checks
from msam.methods._base import Method


class Entry(NamedTuple):
    """One method's line.

    Attributes:
        name: its public name.
        title: its class's name.
        what: the first sentence of its file.
        paper: authors, venue and year.
        family: data, feed-forward, objective or optimization.
        changes: what it modulates.
        heads: what it adds to the model.
        passes: forward-backward passes of a step with two modalities, a backward counted as two forwards.
        fusions: which it is defined for.
        modalities: how many it is defined for.
        variants: its choices, as `flag: first, second`, the default first.
        pairs: what to know before pairing it with a sharpness rule or an adaptive optimizer.
    """

    name: str
    title: str
    what: str
    paper: str
    family: str
    changes: str
    heads: str
    passes: str
    fusions: str
    modalities: str
    variants: str
    pairs: str


def entry(name: str) -> Entry:
    """Return the entry of a method, of this folder or of any importable module.

    >>> entry("joint").passes, entry("joint").fusions
    ('1.00', 'late, early')
    """
    module = _registry.module("msam.methods", "method", name)
    kind: type[Method] = _registry.defined_class(module, Method)
    about = kind.about
    flags = ", ".join(f"{key}={value}".lower() for key, value in about.extension.items())
    extended = f" (with {flags})" if flags else ""
    fusions = "late, early" if about.early else f"late{f', early{extended}' if flags else ''}"
    modalities = "any" if about.most is None else f"2{f', more{extended}' if flags else ''}"
    return Entry(
        name=name,
        title=kind.__name__,
        what=(inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " "),
        paper=about.paper,
        family=about.family,
        changes=about.changes,
        heads=about.heads,
        passes=f"{kind().passes(2).cost:.2f}",
        fusions=fusions,
        modalities=modalities,
        variants="; ".join(f"{key}: {', '.join(map(str, found))}" for key, found in choices(kind).items()),
        pairs=about.pairs,
    )


def entries() -> list[Entry]:
    """Return the entries of the methods of this folder."""
    return [entry(name) for name in _registry.names("msam.methods")]


def choices(kind: type[Method]) -> dict[str, list[Any]]:
    """Return the hyper-parameters that choose between words, each with its words, the default first.

    One whose default is None leaves the choice to the method's variant.
    """
    hints = typing.get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        words = checks.parameter_words(hints[field.name])
        if words and field.default is not None:
            found[field.name] = [field.default, *(word for word in words if word != field.default)]
        elif words:
            found[field.name] = ["the variant's", *words]
    return found
