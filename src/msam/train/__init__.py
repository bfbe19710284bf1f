"""Training: configuration, the loop, measures, checkpoints."""

from msam.train.config import RunConfig, config
from msam.train.loop import load_model, train
from msam.train.metrics import evaluate
from msam.train.progress import Watcher

__all__ = ["RunConfig", "Watcher", "config", "evaluate", "load_model", "train"]
