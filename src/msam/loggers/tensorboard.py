"""TensorBoard: one event file per run, written by TensorBoard's own writer of events."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from msam.loggers._base import Logger, Memory
from msam.loggers._scalars import RunInfo


class TensorBoard(Logger):
    """Write scalars and hyper-parameters for TensorBoard, into a folder for each run.

    Runs that differ in nothing but their seeds are one session group of the tab HPARAMS, which shows their mean. An event
    file that was being written when the process was killed is cut to what is known to be in it, and gone on with.
    Numbers are float32, as TensorBoard keeps them.
    """

    package = "tensorboard"
    extra = "tensorboard"

    def knows(self, memory: Memory) -> bool:
        """Tell whether the event file is there, with all that was written."""
        file = self.folder / str(memory.get("file", ""))
        return file.is_file() and file.stat().st_size >= memory["position"]

    def begin(self, run: RunInfo, memory: Memory) -> None:
        """Open the event file; into a new one go version and hyper-parameters, and what the run is in words."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._name = f"{run.name}/events.out.tfevents.{int(run.started)}.msam"
        path, position = self.folder / self._name, int(memory.get("position", 0))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = open(path, "r+b" if position else "wb")  # noqa: SIM115 - closed by close()
        self._file.truncate(position)
        self._file.seek(position)
        self._records = RecordWriter(self._file)
        if not position:
            self._event(run.started, file_version="brain.Event:2")
            self._hparams(run.started, session_start_info=_start(run))
            self._text("run", _in_words(run), run.started)

    def log(self, values: Mapping[str, float], step: int, time: float) -> None:
        """Write one event with a value for each name."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._event(time, step=step, summary=summary)

    def end(self, status: str, time: float) -> None:
        """Write how the run ended."""
        from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

        code = api_pb2.STATUS_SUCCESS if status == "finished" else api_pb2.STATUS_FAILURE
        self._hparams(time, session_end_info=plugin_data_pb2.SessionEndInfo(status=code, end_time_secs=time))

    def flush(self) -> dict[str, Any]:
        """Hand events to the system; remember file and position."""
        self._file.flush()
        return {"file": self._name, "position": self._file.tell()}

    def close(self) -> None:
        """Close the event file."""
        self._file.close()

    @classmethod
    def look(cls, folder: Path) -> str:
        """Return the command that shows the runs."""
        return f"tensorboard --logdir {folder}"

    def _event(self, time: float, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time, **content).SerializeToString())

    def _hparams(self, time: float, **content: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        tag = metadata.SESSION_START_INFO_TAG if "session_start_info" in content else metadata.SESSION_END_INFO_TAG
        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
        value = Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)
        self._event(time, summary=Summary(value=[value]))

    def _text(self, name: str, text: str, time: float) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        value = Summary.Value(
            tag=name, metadata=create_summary_metadata(name, ""), tensor=make_tensor_proto([text.encode()])
        )
        self._event(time, summary=Summary(value=[value]))


def _start(run: RunInfo) -> Any:
    from tensorboard.plugins.hparams import plugin_data_pb2

    start = plugin_data_pb2.SessionStartInfo(group_name=run.group, start_time_secs=run.started)
    for name, value in run.hyperparameters.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    return start


def _in_words(run: RunInfo) -> str:
    """Return a table in Markdown of what the run is."""
    data = run.header.get("data") or {}
    facts = {
        "name": run.name,
        "group": run.group,
        **run.tags,
        "modalities": ", ".join(run.modalities),
        "data": data.get("fingerprint", ""),
        "commit": run.header.get("commit") or "",
        **{f"version of {name}": version for name, version in (run.header.get("versions") or {}).items()},
    }
    return "\n".join(["| | |", "| :--- | :--- |", *(f"| {key} | {value} |" for key, value in facts.items())])
