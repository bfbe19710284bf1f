"""What a run can be gone on with, and what is refused without a change on disk."""

import json

import pytest
import torch

from msam.record import without_volatile
from msam.train import checkpoint, train
from tests.train._runs import MSAM, WORLD, files, settings, trained
from tests.train.test_stages import StopAt


def stopped(folder, step: int = 6, **more):
    """Train up to a step, be interrupted, return the settings."""
    wanted = settings(sharpness=MSAM, **more)
    with pytest.raises(KeyboardInterrupt):
        train(wanted, folder, watcher=StopAt(step))
    return wanted


def refused(wanted, folder, message: str, error: type[Exception] = ValueError) -> None:
    before = files(folder)
    with pytest.raises(error, match=message) as found:
        train(wanted, folder, resume=True)
    assert "\n" not in str(found.value)
    assert files(folder) == before


def test_lines_after_the_checkpoint_are_written_anew_not_twice(tmp_path):
    expected = trained(tmp_path / "undisturbed", sharpness=MSAM)
    wanted = stopped(tmp_path / "run")
    beyond = (tmp_path / "run" / "record.jsonl").read_text().splitlines()
    assert [json.loads(line).get("step") for line in beyond][-1] == 6  # the checkpoint is of step 4
    with open(tmp_path / "run" / "record.jsonl", "a") as file:
        file.write('{"kind":"step","st')  # what a kill leaves
    resumed = train(wanted, tmp_path / "run", resume=True)
    assert [line["step"] for line in resumed.steps] == list(range(1, 9))
    assert without_volatile(resumed.steps + resumed.epochs) == without_volatile(expected.steps + expected.epochs)


def test_it_may_be_interrupted_again_and_again(tmp_path):
    expected = trained(tmp_path / "undisturbed", sharpness=MSAM)
    wanted = stopped(tmp_path / "run", step=1, checkpoint_every=1)
    for _ in range(7):
        with pytest.raises(KeyboardInterrupt):
            train(wanted, tmp_path / "run", resume=True, watcher=StopAt(2))
    assert train(wanted, tmp_path / "run", resume=True).end["weights"] == expected.end["weights"]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"seed": 1}, ["seed: 1 != 0"]),
        ({"epochs": 3}, ["epochs: 3 != 2"]),
        ({"sharpness": {"name": "msam", "rho": 0.3}}, ["sharpness.rho: 0.3 != 0.2"]),
        ({"sharpness": None}, ["sharpness: None != "]),
        ({"sharpness": "sam"}, ["sharpness.name: 'sam' != 'msam'", "sharpness.rho: 0.05 != 0.2"]),
        ({"fusion": "early", "batch_size": 8}, ["fusion.name: 'early' != 'late'", "batch_size: 8 != 16"]),
    ],
)
@pytest.mark.parametrize("over", [True, False])
def test_another_configuration_is_refused_naming_every_key_that_differs(tmp_path, more, named, over):
    if over:
        trained(tmp_path, sharpness=MSAM)
    else:
        stopped(tmp_path)
    other = settings(**{"sharpness": MSAM, **more})
    refused(other, tmp_path, "of another configuration")
    with pytest.raises(ValueError, match="another configuration") as error:
        train(other, tmp_path, resume=True)
    assert all(name in str(error.value) for name in named)


def test_other_data_under_the_same_configuration_are_refused(tmp_path, monkeypatch):
    wanted = stopped(tmp_path)
    from tests.train import world as module

    plain = module.world
    monkeypatch.setattr(module, "world", lambda **given: plain(**given | {"seed": 1}))
    refused(wanted, tmp_path, "data are not those that the run .* began with")


def test_a_checkpoint_without_its_record_and_a_record_without_its_checkpoint_are_refused(tmp_path):
    wanted = stopped(tmp_path / "a")
    (tmp_path / "a" / "record.jsonl").unlink()
    refused(wanted, tmp_path / "a", "a checkpoint without its record")
    wanted = stopped(tmp_path / "b")
    (tmp_path / "b" / "checkpoint.pt").unlink()
    refused(wanted, tmp_path / "b", "an unfinished record without its checkpoint")


def test_a_finished_record_needs_no_checkpoint_to_be_returned(tmp_path):
    record = trained(tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    assert train(settings(), tmp_path, resume=True) == record
    refused(settings(seed=1), tmp_path, "another configuration.*seed: 1 != 0")


@pytest.mark.parametrize("left", [b"", b'{"kind":"hea', b'{"kind":"header","config":{}}\n'])
def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path, left):
    expected = trained(tmp_path / "undisturbed")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.jsonl").write_bytes(left)
    (tmp_path / "run" / ".checkpoint.pt.tmp").write_bytes(b"half a checkpoint")
    assert train(settings(), tmp_path / "run", resume=True).end["weights"] == expected.end["weights"]
    assert set(files(tmp_path / "run")) == {"record.jsonl", "checkpoint.pt"}


def test_a_record_that_was_shortened_by_hand_is_refused(tmp_path):
    wanted = stopped(tmp_path)
    content = (tmp_path / "record.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_bytes(b"".join(content[:2]))
    refused(wanted, tmp_path, "not of one run")


@pytest.mark.parametrize("content", [b"", b"\x00" * 5000, b"PK\x03\x04garbage", "not a checkpoint".encode("utf-16")])
def test_garbage_is_refused(tmp_path, content):
    wanted = stopped(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(content)
    refused(wanted, tmp_path, "checkpoint.pt is truncated or damaged")


@pytest.mark.parametrize("content", [[1, 2], {"model": {}}, {"format": 99}, torch.ones(2)])
def test_a_file_of_torch_that_is_no_checkpoint_of_ours_is_refused(tmp_path, content):
    wanted = stopped(tmp_path)
    torch.save(content, tmp_path / "checkpoint.pt")
    refused(wanted, tmp_path, "must be of format 1, found")


def test_no_byte_of_a_checkpoint_may_be_missing(tmp_path):
    wanted = stopped(tmp_path)
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    for keep in (1, 4, len(whole) // 3, len(whole) - 1):
        (tmp_path / "checkpoint.pt").write_bytes(whole[:keep])
        refused(wanted, tmp_path, "truncated or damaged")
    (tmp_path / "checkpoint.pt").write_bytes(whole)
    assert train(wanted, tmp_path, resume=True).end["status"] == "finished"


def test_checkpoints_hold_tensors_and_plain_values_alone(tmp_path):
    stopped(tmp_path, data=WORLD | {"flaw": "present"})
    saved = checkpoint.load(tmp_path / "checkpoint.pt")
    assert {"config", "record", "at", "model", "optimizer", "rule", "state", "generator", "torch"} <= set(saved)
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "nowhere.pt")


def test_without_resume_nothing_is_touched(tmp_path):
    wanted = stopped(tmp_path)
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match=r"holds a run already\. Go on with --resume, or choose another folder"):
        train(wanted, tmp_path)
    assert files(tmp_path) == before
