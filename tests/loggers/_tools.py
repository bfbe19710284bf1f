"""W&B, MLflow and Trackio as users run them, in a process of their own, without this machine's accounts or the network."""

import importlib.util
import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = ("WANDB", "MLFLOW", "TRACKIO", "HF_", "NETRC")


def needs(package: str) -> pytest.MarkDecorator:
    """Skip a file's tests where a tool is not installed."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"needs {package}: pip install 'msam[{package}]'")


def msam(folder: Path, *words: str, **more: str) -> str:
    """Run the command line in `folder`, in a new process without a home or a proxy; return what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(OWN)}
    environment |= {"HOME": str(folder), "PYTHONPATH": str(ROOT), "COLUMNS": "200", "HF_HUB_OFFLINE": "1", **more}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HF_HUB_DISABLE_TELEMETRY": "1"}
    script = "import sys; from msam import cli; cli.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def rows(database: Path, query: str, *values: object) -> list[tuple]:
    """Return what an SQLite file answers."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query, values).fetchall()


def wandb_records(path: Path) -> Iterator:
    """Yield the messages in an offline run's file: blocks of 32 KiB of checked pieces, as LevelDB's log has them."""
    from wandb.proto import wandb_internal_pb2

    content, position, pending = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        size, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        pending += content[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(pending)
            pending = b""


def wandb_history(records: list) -> list[dict]:
    """Return the rows of a run's history, without what W&B adds; `_step` is the step."""
    found = []
    for record in records:
        if record.HasField("history"):
            items = {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item
            }
            found.append({k: v for k, v in items.items() if k == "_step" or not k.startswith("_")})
    return found
