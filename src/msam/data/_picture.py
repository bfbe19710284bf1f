"""A batch as a picture: a row for each sample, a column for each modality."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msam.data._frames import DEVIATION, MEAN
from msam.data._spectrogram import BINS
from msam.types import Batch

ROWS = 8


def draw(batch: Batch, classes: Sequence[str], out: Path) -> None:
    """Draw the first eight samples of a batch, frames beside one another.

    Arguments:
        batch: of any dataset; its target are classes, several for each sample where segments are folded into it.
        classes: their names, or none.
        out: the file to write; its ending says the kind (.png, .svg, .pdf).

    Raises:
        ValueError: for an ending that stands for no kind of picture.
    """
    from matplotlib.figure import Figure

    picture_ending(out)
    names = list(batch.inputs)
    count = min(ROWS, len(batch.inputs[names[0]]))
    figure = Figure(figsize=(4 * len(names), 1.6 * count + 0.4), layout="constrained")
    places = figure.subplots(count, len(names), squeeze=False)
    for row in range(count):
        for column, name in enumerate(names):
            place = places[row, column]
            _show(place, batch.inputs[name][row].detach().cpu().float(), name)
            place.set_xticks([])
            place.set_yticks([])
            if row == 0:
                place.set_title(name, fontsize=9)
        places[row, 0].set_ylabel(_class_of(batch, row, classes), fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}{out.suffix}")
    try:
        figure.savefig(draft, dpi=100)
        os.replace(draft, out)
    finally:
        draft.unlink(missing_ok=True)


def picture_ending(out: Path) -> None:
    """Raise a ValueError if the ending of a file's name stands for no kind of picture that can be written."""
    from matplotlib.backend_bases import FigureCanvasBase

    if out.suffix.lstrip(".") not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(f"`--out` must be a picture, e.g. picture.png, received {str(out)!r}.")


def _show(place: Any, value: Tensor, name: str) -> None:
    if value.ndim == 4 and len(value) == 3:
        mean, deviation = (torch.tensor(of).view(3, 1, 1, 1) for of in (MEAN, DEVIATION))
        frames = (value * deviation + mean).clamp(0, 1)
        place.imshow(torch.cat(list(frames.permute(1, 2, 3, 0)), dim=1).numpy())
    elif value.ndim == 3 and len(value) == 3:
        mean, deviation = (torch.tensor(of).view(3, 1, 1) for of in (MEAN, DEVIATION))
        place.imshow((value * deviation + mean).clamp(0, 1).permute(1, 2, 0).numpy())
    elif value.ndim == 3 and len(value) == 1:
        sound = name == "audio" or value.shape[1] == BINS
        style = {"cmap": "viridis", "origin": "lower", "aspect": "auto"} if sound else {"cmap": "gray"}
        place.imshow(value[0].numpy(), **style)
    elif value.ndim == 1:
        place.plot(value.numpy(), linewidth=0.8)
    else:  # a sequence, or maps over time: time runs to the right, channels are averaged where there is space
        flat = value.mean(-1).flatten(1) if value.ndim > 2 else value
        place.imshow(flat.T.numpy(), cmap="viridis", aspect="auto")


def _class_of(batch: Batch, row: int, classes: Sequence[str]) -> str:
    samples = len(next(iter(batch.inputs.values())))
    target = batch.target.view(samples, -1)[row] if batch.target.numel() % samples == 0 else batch.target[row : row + 1]
    labels = list(dict.fromkeys(int(label) for label in target))
    return ", ".join(classes[label] if label < len(classes) else f"class {label}" for label in labels)
