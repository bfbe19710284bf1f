"""Multimodal training that stays balanced."""

__version__ = "0.1.0"
