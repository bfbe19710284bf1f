"""How fast CREMA-D is prepared and loaded: `python benchmarks/loading.py` prints two tables.

Preparation, in clips for each second of one core, beside the ffmpeg program with one thread on the same clips (which
decodes them and keeps one frame a second, and makes no spectrogram). "At work" is the share of the time from the first
clip to the last in which workers decode, whoever else uses the machine; what they hash and send counts as waiting.
Loading, in samples a second, beside the training step that waits for them. Clips are synthetic, in the size and codecs of
the release; give --root for the release itself.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from cyclopts import run
from rich.console import Console
from rich.table import Table

from msam import models
from msam.data import _cremad_files, _spectrogram
from msam.data._layout import Arrays
from msam.data._loaders import batches, in_epoch, shuffled
from msam.data._prepare import Item, prepared
from msam.data.cremad import CLASSES, cremad, decode

ROOT = Path(__file__).parents[1]
SYNTHETIC = 4
BATCH = 16


def main(*, root: str = "", actors: int = SYNTHETIC, steps: int = 3) -> None:
    """Measure.

    Parameters
    ----------
    root
        the release of CREMA-D; by default synthetic clips.
    actors
        how many synthetic actors, 18 clips each.
    steps
        training steps that are timed.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(root) if root else _synthetic(Path(folder) / "raw", actors)
        count = sum(1 for _ in (raw / "VideoFlash").glob("*.flv"))
        console = Console()
        table = Table("preparation", "clips a second", "clips a second of a core", "workers at work")
        for workers in (1, 2):
            out, log = Path(folder) / f"out{workers}", Path(folder) / f"log{workers}"
            log.mkdir()
            wall, cpu = _timed(partial(_prepare, raw, out, workers, log))
            table.add_row(f"msam --workers {workers}", *_rates(count, wall, cpu), f"{_at_work(log, workers):.0%}")
        if shutil.which("ffmpeg"):
            table.add_row("ffmpeg -threads 1", *_rates(count, *_timed(lambda: _ffmpeg(raw))), "")
        console.print(table)
        table = Table("loading and training, one core", "samples a second")
        for what, rate in _loading(str(Path(folder) / "out1"), steps).items():
            table.add_row(what, f"{rate:.1f}")
        console.print(table)
        console.print(f"{count} clips, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")


def _synthetic(root: Path, actors: int) -> Path:
    sys.path.insert(0, str(ROOT))
    from tests.fixtures.cremad import names, write_release

    return write_release(root, names(actors), zoom=5)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds on the clock and seconds of cores, of this process and those it started."""
    began, cpu = time.perf_counter(), _cpu()
    work()
    return time.perf_counter() - began, _cpu() - cpu


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _rates(count: int, wall: float, cpu: float) -> tuple[str, str]:
    return f"{count / wall:.1f}", f"{count / cpu:.1f}"


def _prepare(raw: Path, out: Path, workers: int, log: Path) -> None:
    """Prepare as `msam data prepare cremad` does, with a note of when each clip was decoded."""
    layout, lists = _cremad_files.layout(raw, 1), _cremad_files.lists(raw)
    prepared(
        "cremad",
        raw,
        out,
        _cremad_files.items(layout, lists)[0],
        partial(_noted, log=str(log)),
        classes=CLASSES,
        parameters={"spectrogram": "257x299", "fps": 1, "standardise": False},
        splits={"official": {"how": "as listed", "parts": lists.parts}},
        workers=workers,
    )


def _noted(item: Item, *, log: str) -> Arrays:
    began = time.monotonic()
    made = decode(item, definition=_spectrogram.named("257x299"), fps=1)
    with open(Path(log) / str(os.getpid()), "a") as file:
        file.write(f"{began} {time.monotonic()}\n")
    return made


def _at_work(log: Path, workers: int) -> float:
    spans = [tuple(map(float, line.split())) for file in log.iterdir() for line in file.read_text().splitlines()]
    whole = max(end for _, end in spans) - min(begin for begin, _ in spans)
    return sum(end - begin for begin, end in spans) / (workers * whole)


def _ffmpeg(raw: Path) -> None:
    for video in sorted((raw / "VideoFlash").glob("*.flv")):
        kept = ["-an", "-vf", "select=not(mod(n\\,30))", "-vsync", "0", "-pix_fmt", "rgb24", "-f", "rawvideo"]
        _run(["-i", str(video), *kept])
        _run(["-i", str(raw / "AudioWAV" / f"{video.stem}.wav"), "-f", "f32le"])


def _run(arguments: list[str]) -> None:
    command = ["ffmpeg", "-v", "error", "-threads", "1", *arguments, "-y", "/dev/null"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _loading(folder: str, steps: int) -> dict[str, float]:
    data = cremad(root=folder)
    order = shuffled(data.train, BATCH, seed=0, epoch=1)
    wall, _ = _timed(lambda: [None for _ in batches(in_epoch(data.train, seed=0, epoch=1), order)])
    model = models.build(data.encoders, data.shapes, data.num_classes, "late")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = data.train[order[0]]

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch.inputs).logits, batch.target).backward()
        optimizer.step()

    step()
    step_wall, _ = _timed(lambda: [step() for _ in range(steps)])
    return {
        "loader (spectrogram, crop, flip, resize)": len(data.train) / wall,
        f"training step of two ResNet-18, batch {BATCH}": steps * len(order[0]) / step_wall,
    }


if __name__ == "__main__":
    run(main)
