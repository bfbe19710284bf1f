"""Training: configuration, the loop, measures, checkpoints."""

from msam.train.config import RunConfig, config
from msam.train.loop import Watcher, load_model, train
from msam.train.metrics import evaluate

__all__ = ["RunConfig", "Watcher", "config", "evaluate", "load_model", "train"]
