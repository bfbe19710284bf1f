"""A logger that writes down what it hears, `--log tests.loggers.ear`; as quick, slow or broken as wanted."""

import json
import time

from msam.loggers import Logger

HEARD = "heard.jsonl"


class Ear(Logger):
    """Append every call to a file in the folder."""

    fails_at: str = ""
    """The call that raises."""
    seconds: float = 0.0
    """How long every `log` takes."""

    def begin(self, run, memory):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run, self.calls = run.name, memory.get("calls", 0)
        self._write("begin", name=run.name, group=run.group, memory=dict(memory))

    def log(self, values, step, time_):
        time.sleep(self.seconds)
        self._write("log", step=step, time=time_, values=dict(values))

    def end(self, status, time_):
        self._write("end", status=status, time=time_)

    def flush(self):
        self._write("flush")
        return {"calls": self.calls}

    def close(self):
        self._write("close")

    def _write(self, call, **what):
        if call == self.fails_at:
            raise RuntimeError(f"no {call} today")
        self.calls += 1
        with open(self.folder / HEARD, "a") as file:
            file.write(json.dumps({"call": call, "run": self.run, **what}) + "\n")


def heard(folder, *calls, run=None):
    """Return what was heard in a logger's folder, all of it or some calls, of all runs or of one."""
    path = folder / HEARD
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if (not calls or line["call"] in calls) and run in (None, line["run"])]
