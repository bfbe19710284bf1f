"""Which modality's part of the loss climbs: the dominant one, or, as a control, another."""

import random
from collections.abc import Sequence

from msam.checks import one_of

WORDS = ("dominant", "weakest", "random")


def known(modality: str, names: Sequence[str] | None) -> str:
    """Return the word or the name of a modality.

    Arguments:
        modality: one of `WORDS`, or a name.
        names: of the modalities; None where nobody told.

    Raises:
        ValueError: for what is neither, or a name where names are not known.
    """
    if modality not in WORDS and names is None:
        raise ValueError(
            f"modality={modality!r} is a name, and the names of the modalities are not known: give `model` (a "
            f"MultimodalModel), an optimizer made of `model.parameter_groups()`, or one of {', '.join(WORDS)}."
        )
    return one_of("modality", modality, (*WORDS, *(names or ())))


def place(modality: str, contributions: Sequence[float], names: Sequence[str] | None, step: int) -> int:
    """Return the place of the modality that climbs; the first on ties.

    "random" depends on the step alone: a step asks more than once, and ranks and resumed runs must answer alike.

    >>> place("dominant", [0.2, 0.8], None, 0), place("weakest", [0.2, 0.8], None, 0)
    (1, 0)
    """
    if modality == "random":
        return random.Random(step).randrange(len(contributions))
    if modality in WORDS:
        return contributions.index((max if modality == "dominant" else min)(contributions))
    assert names is not None
    return names.index(modality)
