"""What is there of a CREMA-D release, before it is prepared."""

from functools import partial
from pathlib import Path

from msam.data import _cremad_files, _looks, _spectrogram, cremad
from msam.data._check import Check


def release(found: Check, root: Path, fps: int) -> None:
    """Look at every file: is it there, can it be opened; and decode one clip of each class for the picture."""
    try:
        layout = _cremad_files.layout(root, fps)
    except ValueError as error:
        found.missing(str(error))
        return
    found.ok(f"the {layout.words}")
    listed = _cremad_files.lists(root)
    items, strays = _cremad_files.items(layout, listed)
    if listed.files:
        for part, ids in listed.parts.items():
            found.split(part, (listed.labels[clip] for clip in ids), cremad.CLASSES)
    else:
        found.note(f"no train.csv and test.csv: split 'speaker' only. {_cremad_files.WHERE}.")
        found.split("all", (item.label for item in items), cremad.CLASSES)
    for at, why in {**listed.bad, **strays}.items():
        found.broken(f"{at}: {why}")
    whole = _looks.sound(found, items)
    found.ok(f"{len(whole)} of {len(items)} clips have sound and video that can be opened")
    decode = partial(cremad.decode, definition=_spectrogram.named("257x299"), fps=fps)
    found.batch = _looks.clips(_looks.made(found, _looks.of_each_class(whole), decode), frames=1)
