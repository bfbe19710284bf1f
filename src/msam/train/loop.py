"""Train one run into a folder, or go on with the one that is there."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from msam import models
from msam.data import Dataset
from msam.record import Listener, Record, Writer, read
from msam.train import checkpoint, parts
from msam.train.config import RunConfig
from msam.train.config import config as checked
from msam.train.progress import Watcher
from msam.train.trainer import CHECKPOINT, RECORD, Trainer


def train(
    config: RunConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
    dataset: Dataset | None = None,
    listeners: Sequence[Listener] = (),
) -> Record:
    """Train one run and return its record, which lies in `folder/record.jsonl` beside `folder/checkpoint.pt`.

    Seeds torch's global generator with `config.seed`. An interrupted run goes on with `resume=True` from its last
    checkpoint, bit for bit: the final weights and the record (time and host aside) are those of an undisturbed run.
    A run that diverged has an end line of status "diverged"; it would do so again, and is not gone on with.

    Arguments:
        config: what to train, from `msam.train.config.config`.
        folder: made if it does not exist.
        resume: go on with the run in `folder` if there is one; a finished one is returned as it is.
        watcher: is told of every step and epoch.
        dataset: the configuration's, where it is loaded already (many runs on the same data).
        listeners: read the record while it is written, as `msam.loggers.Follower` does.

    Raises:
        FileExistsError: if `folder` holds a run and `resume` is False.
        ValueError: if the checkpoint is damaged, missing or of another configuration, if the data are others than those
            the run began with, or if the loss is no longer finite.
        OSError: if record or checkpoint cannot be written; what was there is intact.
    """
    folder = Path(folder)
    record, saved = begun(folder, config, resume=resume)
    if record is not None and record.end:
        if record.end["status"] == "finished":
            _check_data(record, config, folder)
            return record
        raise ValueError(
            f"The run in {folder} has {record.end['status']} at step {record.end['steps']} and would do so again. Lower "
            "`optimizer.lr` or `sharpness.rho`, and choose another folder with --out."
        )
    trainer = Trainer(config, folder, watcher, dataset)
    if record is not None:
        same_data(record, trainer.dataset, folder)
    if saved is None:
        (folder / RECORD).unlink(missing_ok=True)
    keep = saved["record"] if saved else None
    with closing(Writer(folder / RECORD, keep=keep, listeners=listeners)) as writer:
        trainer.go(writer, saved)
    return read(folder / RECORD)


def load_model(folder: str | Path) -> models.MultimodalModel:
    """Return the model of a run's checkpoint, in evaluation mode.

    Raises:
        FileNotFoundError: if there is no checkpoint in `folder`.
        ValueError: if it is damaged.
    """
    return opened(folder).network


class Opened(NamedTuple):
    """A run that is looked at again: its configuration, its data, its model in evaluation mode."""

    config: RunConfig
    dataset: Dataset
    network: models.MultimodalModel


def opened(path: str | Path) -> Opened:
    """Return what a run was made of, with the weights of its checkpoint.

    Arguments:
        path: the run's folder, or the checkpoint in it.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it is damaged, or the data are others than the run's record says.
    """
    path = Path(path)
    file = path / CHECKPOINT if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"No checkpoint {file}. Give the folder of a run, which holds {CHECKPOINT}.")
    saved = checkpoint.load(file)
    config = checked(saved["config"])
    dataset = parts.dataset(config)
    if (file.parent / RECORD).is_file():
        same_data(read(file.parent / RECORD), dataset, file.parent)
    network = parts.model(config, dataset)
    network.to(next(value.dtype for value in saved["model"].values() if value.is_floating_point()))
    network.load_state_dict(saved["model"])
    return Opened(config, dataset, network.eval())


def begun(folder: Path, config: RunConfig, *, resume: bool) -> tuple[Record | None, dict[str, Any] | None]:
    """Return record and checkpoint of the run in `folder`, both None where none has begun; changes nothing on disk.

    Raises:
        FileExistsError: if there is a run and it is not to be gone on with.
        ValueError: if it is of another configuration, or record and checkpoint are not both there.
    """
    files = {name: folder / name for name in (RECORD, CHECKPOINT) if (folder / name).exists()}
    if files and not resume:
        raise FileExistsError(
            f"{folder} holds a run already. Go on with --resume, or choose another folder with --out."
        )
    saved = checkpoint.load(files[CHECKPOINT]) if CHECKPOINT in files else None
    record = None
    if RECORD in files and (saved is not None or _has_more_than_header(files[RECORD])):
        record = read(files[RECORD])
    found = saved["config"] if saved else record.config if record else config.model_dump()
    lines = checkpoint.differing(config.decisive(), _completed(found))
    if lines:
        raise ValueError(
            f"The run in {folder} is of another configuration (asked for != found): {'; '.join(lines)}. "
            "Resume with the same configuration, or choose another folder with --out."
        )
    if record is None and saved is not None:
        raise ValueError(f"{folder} holds a checkpoint without its record. Choose another folder with --out.")
    if record is not None and saved is None and not record.end:
        raise ValueError(
            f"{folder} holds an unfinished record without its checkpoint. Choose another folder with --out."
        )
    return record, saved


def _check_data(record: Record, config: RunConfig, folder: Path) -> None:
    """Where the data lie elsewhere than those of a finished run, check that they are the same."""
    if record.config["data"] != config.model_dump()["data"]:
        same_data(record, parts.dataset(config), folder)


def same_data(record: Record, dataset: Dataset, folder: Path) -> None:
    """Check that a dataset is the one that a run began with.

    Raises:
        ValueError: if it is not.
    """
    if record.header["data"]["fingerprint"] != dataset.fingerprint:
        raise ValueError(
            f"The data are not those that the run in {folder} began with: their fingerprints differ. Bring those back, "
            "or choose another folder with --out."
        )


def _completed(found: dict[str, Any]) -> dict[str, Any]:
    """Return what decides of a recorded configuration, with defaults of later options; as it is if it is none."""
    try:
        return checked(found).decisive()
    except ValueError:
        return found


def _has_more_than_header(file: Path) -> bool:
    """Tell whether a record is more than what a run killed before its first checkpoint leaves."""
    with open(file, "rb") as lines:
        lines.readline()
        return bool(lines.readline())
