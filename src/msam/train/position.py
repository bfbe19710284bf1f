"""Where a run stands."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Position:
    """Where a run stands: all that a checkpoint needs beside the states of its parts.

    Attributes:
        stage: position of the current stage, from 0.
        stage_epoch: epochs of it that are done.
        scheduled: epochs that the schedule of learning rates has seen.
        epoch: epochs of the run that are done.
        batch: batches of the current epoch that are done.
        step: steps that are done.
        losses: of the steps of the current epoch.
        steps: what the epoch's line will tell of its steps, where they have no lines of their own.
        seconds: spent so far.
        stepping: seconds of it that were spent in steps.
        passes: forward-backward passes so far.
    """

    stage: int = 0
    stage_epoch: int = 0
    scheduled: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    stepping: float = 0.0
    passes: float = 0.0
