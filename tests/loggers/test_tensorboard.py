"""TensorBoard's own reader finds what the record says, live, afterwards, and after a kill."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.util.tensor_util import make_ndarray

from msam.loggers import Follower, _follow, load, replay
from msam.loggers._scalars import described, scalars, step_of
from msam.loggers._session import Session
from msam.train import train
from tests.loggers._lines import header, lines, written
from tests.train._runs import MSAM, StopAt, settings

NAME = "tensorboard"
RUN = {"sharpness": MSAM, "method": "ogm_ge", "checkpoint_every": 3}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(_follow, "LOOK", 0.01)


def read_back(folder):
    """Return TensorBoard's reader of a run's folder."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    return reader.Reload()


def scalars_of(folder):
    """Return `(name, step, value)` of every scalar that TensorBoard reads."""
    reader = read_back(folder)
    return sorted((tag, e.step, e.value) for tag in reader.Tags()["scalars"] for e in reader.Scalars(tag))


def wanted(record, **options):
    """Return what a record has to say, float32 as TensorBoard keeps it."""
    every = [*record.steps, *record.epochs, record.end]
    names = record.header["modalities"]
    return sorted(
        (name, step_of(line), float(np.float32(value)))
        for line in every
        for name, value in scalars(line, names, **options).items()
    )


def followed(folder, out, **options):
    with Follower([NAME], out, say=pytest.fail) as follower:
        return train(settings(**RUN), folder, listeners=[follower], **options)


def event_file(out):
    (found,) = out.glob("tensorboard/*/events.out.tfevents.*")
    return found


def logged(folder, made):
    session = Session(load(NAME), folder / NAME)
    session.take(made)
    session.close()
    return folder / NAME / "run"


def test_every_value_of_a_real_run_is_read_back(tmp_path):
    record = followed(tmp_path / "run", tmp_path / "logs")
    found = scalars_of(event_file(tmp_path / "logs").parent)
    assert found == wanted(record)
    assert len({name for name, _, _ in found}) > 30
    assert not any(name.startswith("test/") for name, _, _ in found)


def test_test_measures_are_read_back_where_they_were_asked_for(tmp_path):
    record = train(settings(**RUN), tmp_path / "run")
    replay(tmp_path / "run", to=[NAME], out=tmp_path / "logs", with_test=True, quiet=True)
    found = scalars_of(event_file(tmp_path / "logs").parent)
    assert found == wanted(record, with_test=True)
    assert any(name == "test/accuracy" for name, _, _ in found)


def test_live_and_afterwards_give_the_same_file(tmp_path):
    followed(tmp_path / "run", tmp_path / "live")
    replay(tmp_path / "run", to=[NAME], out=tmp_path / "after", quiet=True)
    assert event_file(tmp_path / "live").read_bytes() == event_file(tmp_path / "after").read_bytes()


def test_a_killed_and_resumed_run_is_one_whole_run(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        followed(tmp_path / "run", tmp_path / "logs", watcher=StopAt(5))
    record = followed(tmp_path / "run", tmp_path / "logs", resume=True)

    def timeless(values):
        return [value for value in values if "seconds" not in value[0]]

    assert timeless(scalars_of(event_file(tmp_path / "logs").parent)) == timeless(wanted(record))


def test_the_run_appears_under_its_name_with_the_configuration_as_hyperparameters(tmp_path):
    folder = logged(tmp_path, lines())
    plugin = read_back(folder).PluginTagToContent(metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(plugin[metadata.SESSION_START_INFO_TAG])
    run = described(header())
    found = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    assert found == run.hyperparameters
    assert (start.group_name, start.start_time_secs) == (run.group, run.started)
    text = make_ndarray(read_back(folder).Tensors("run")[0].tensor_proto).item().decode()
    assert "| dataset | avdigits |" in text
    assert "| commit | 5aea07b |" in text


@pytest.mark.parametrize(
    ("status", "code"), [("finished", api_pb2.STATUS_SUCCESS), ("diverged", api_pb2.STATUS_FAILURE)]
)
def test_how_it_ended_is_said(tmp_path, status, code):
    plugin = read_back(logged(tmp_path, lines(status=status))).PluginTagToContent(metadata.PLUGIN_NAME)
    end = metadata.parse_session_end_info_plugin_data(plugin[metadata.SESSION_END_INFO_TAG])
    assert end.status == code
    assert end.end_time_secs - 1772600767 == 21


def test_a_run_that_is_under_way_has_no_end(tmp_path):
    plugin = read_back(logged(tmp_path, lines()[:5])).PluginTagToContent(metadata.PLUGIN_NAME)
    assert set(plugin) == {metadata.SESSION_START_INFO_TAG}


@pytest.mark.parametrize("left", [b"", b"\x01\x02\x03", b"\x00" * 500])
def test_what_a_killed_process_left_half_written_is_cut_off(tmp_path, left):
    whole = event_file(logged(tmp_path / "whole", lines()).parents[1]).read_bytes()
    logged(tmp_path, lines()[:5])
    file = event_file(tmp_path)
    file.write_bytes(file.read_bytes() + left)
    logged(tmp_path, lines())
    assert file.read_bytes() == whole


def test_a_process_that_was_killed_before_it_noted_anything_left_nothing_behind(tmp_path):
    whole = event_file(logged(tmp_path / "whole", lines()).parents[1]).read_bytes()
    session = Session(load(NAME), tmp_path / NAME)
    session._remember = lambda: None
    session.take(lines()[:5])
    session.close()
    logged(tmp_path, lines())
    assert event_file(tmp_path).read_bytes() == whole


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_an_event_file_that_is_gone_or_shorter_than_it_was_is_written_anew(tmp_path, damage):
    logged(tmp_path, lines())
    file = event_file(tmp_path)
    whole = file.read_bytes()
    file.unlink() if damage == "gone" else file.write_bytes(whole[:-9])
    logged(tmp_path, lines())
    assert file.read_bytes() == whole


def test_numbers_that_are_not_finite_are_read_back(tmp_path):
    made = lines()
    made[1]["loss"], made[2]["loss"] = float("nan"), float("inf")
    path = written(tmp_path / "run.jsonl", made)
    replay(path, to=[NAME], out=tmp_path, quiet=True)
    values = [value for name, _, value in scalars_of(tmp_path / NAME / "run") if name == "step/loss"]
    assert np.isnan(values).sum() == 1
    assert np.isinf(values).sum() == 1


def test_two_runs_of_one_name_lie_side_by_side(tmp_path):
    logged(tmp_path, lines())
    logged(tmp_path, lines(started="2026-03-04T06:00:00+00:00"))
    assert {file.parent.name for file in tmp_path.glob("tensorboard/*/events*")} == {"run", "run-20260304T060000"}
