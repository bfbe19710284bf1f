"""A dataset of small text files, for tests of preparation: `python -m tests.data._toy RAW OUT WORKERS` prepares it."""

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from msam.data._layout import Arrays
from msam.data._prepare import Item, prepared

CLASSES = ("odd", "even")


def write(root: Path, count: int = 12) -> Path:
    root.mkdir()
    for number in range(count):
        (root / f"{number:02d}.txt").write_text(f"{number}" * 5)
    return root


def items(root: Path) -> list[Item]:
    return [Item(file.stem, int(file.stem) % 2, {"text": file}) for file in sorted(root.glob("*.txt"))]


def decode(item: Item, *, scale: float, pause: float = 0.0) -> Arrays:
    time.sleep(pause)
    text = item.sources["text"].read_text()
    if not text.isdigit():
        raise ValueError(f"{item.sources['text']} must hold digits.")
    rng = np.random.default_rng(int(text))
    sizes = [(2 + int(text) % 3, 3 + number) for number in range(1 + int(text) % 4)]
    return {
        "audio": (scale * rng.normal(size=(3, 4))).astype(np.float32),
        "video": [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes],
    }


def prepare(root: Path, out: Path, *, wanted: list[Item] | None = None, scale: float = 1.0, **more) -> Path:
    pause = more.pop("pause", 0.0)
    return prepared(
        "toy",
        root,
        out,
        items(root) if wanted is None else wanted,
        partial(decode, scale=scale, pause=pause),
        classes=CLASSES,
        parameters={"scale": scale},
        splits={"official": {"how": "by hand", "parts": {"train": ["00", "01", "02"], "test": ["03"]}}},
        **{"workers": 1, **more},
    )


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]), workers=int(sys.argv[3]), pause=0.05)
