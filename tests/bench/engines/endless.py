"""A process that has an endless task under way on an engine, for tests that end it: FOLDER ENGINE [LOGS]."""

import signal
import sys

from msam.bench.engines import load
from tests.bench.engines import _tasks
from tests.bench.engines._tasks import Noted

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    folder, name, *logs = sys.argv[1:]
    options = {"minutes": 5, "logs": logs[0]} if logs else {"workers": 1}
    list(load(name)(**options).map(_tasks.do, [Noted("endless", folder, seconds=600)]))
