"""Which modality carries a model, seen while it trains, in any loop: plain, Fabric, Lightning, Hugging Face's Trainer."""

from msam.monitor._monitor import Monitor, Seen
from msam.monitor.lightning import lightning_hook

__all__ = ["Monitor", "Seen", "lightning_hook"]
