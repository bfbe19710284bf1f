"""What is known of a dataset before any file is read, and where its files lie."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Card:
    """What a dataset is, whether its files are there or not; models are built from it.

    Attributes:
        name: its registry name.
        shapes: modality -> shape of one sample's input; its order is the order of modalities.
        encoders: modality -> name of the encoder in `msam.models.encoders` that suits it.
        num_classes: number of classes.
        classes: their names, in the order of the numbers; or empty.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    encoders: Mapping[str, str]
    num_classes: int
    classes: tuple[str, ...] = ()


def folder_of(name: str, root: str) -> Path:
    """Return the folder (or file) of a dataset: `root`, or `$MSAM_DATA/name` where none is given.

    Raises:
        ValueError: if neither is given, or nothing is there.
    """
    shelf = os.environ.get("MSAM_DATA", "")
    place = Path(root) if root else Path(shelf) / name
    if not root and not shelf:
        raise ValueError(
            f"Where {name} lies must be said, received no `root`. Give --data.root FOLDER (root=... in Python), or set "
            f"MSAM_DATA to the folder that holds {name}/."
        )
    if not place.exists():
        said = "`root`" if root else "MSAM_DATA"
        raise ValueError(f"{said} must lead to the files of {name}, found nothing at {place}. See docs/data/{name}.md.")
    return place
