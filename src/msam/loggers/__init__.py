"""Loggers: records, while they are written or afterwards, in the tools of the field; the folder is the registry."""

from msam.loggers._base import Logger
from msam.loggers._find import load, names
from msam.loggers._follow import Follower
from msam.loggers._own import Scalars
from msam.loggers._replay import Replayed, replay
from msam.loggers._scalars import RunInfo

__all__ = ["Follower", "Logger", "Replayed", "RunInfo", "Scalars", "load", "names", "replay"]
