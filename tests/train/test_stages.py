"""Methods in stages, and methods of one's own in one file: they train and resume through the loop unchanged."""

import importlib
import sys
import textwrap
from dataclasses import dataclass

import pytest
import torch

from msam.methods import Stage
from msam.record import without_volatile
from msam.train import checkpoint, train
from tests.train._runs import MSAM, Ear, StopAt, settings, trained

TWO_STAGES = """
    from dataclasses import dataclass
    import torch
    from torch import nn
    from msam.methods import Method, Stage

    @dataclass(frozen=True)
    class TwoStages(Method):
        '''Everything for one epoch, then the fusion alone with a fresh optimizer; it remembers all kinds of things.'''

        def stage(self, run, k):
            if "teacher" not in run.state:
                run.state["teacher"] = nn.Linear(3, 3)
            if k == 0:
                return Stage(1)
            roles = frozenset({"head", "fusion"})
            return Stage(2, roles=roles, new_optimizer=True, schedule_from=0) if k == 1 else None

        def gradients(self, run, batch):
            if not run.perturbed:
                run.state["count"] = run.state.get("count", 0) + 1
                run.state["noise"] = torch.rand((), generator=run.generator)
            output = super().gradients(run, batch)
            if not run.perturbed:
                with torch.no_grad():
                    run.state["teacher"].weight += 0.1 * output.logits.mean()
            return output

        def loss(self, run, output, batch):
            taught = run.state["teacher"](output.logits.detach()).detach().softmax(1)
            return super().loss(run, output, batch) - run.state["noise"] * (taught * output.logits.log_softmax(1)).sum(1)

        def epoch_end(self, run, metrics):
            assert not run.perturbed
            run.state["heard"] = [*run.state.get("heard", []), metrics["nll"]]
"""
FADING = """
    from msam.sharpness import Direction, Sharpness, norm

    class Fading(Sharpness):
        '''SAM whose share falls with every climb: a rule that remembers.'''

        def __init__(self, optimizer, rho: float = 0.2, *, model=None, **common) -> None:
            super().__init__(optimizer, rho, model=model, **common)
            self.times = 0

        def direction(self, first):
            return Direction(first, norm(first.values()))

        def share(self, contributions):
            self.times += 1
            return 1 / self.times

        def state_dict(self):
            return {**super().state_dict(), "times": self.times}

        def load_state_dict(self, state):
            super().load_state_dict(state)
            self.times = state["times"]
"""
ONE_FILE = """
    from dataclasses import dataclass
    from typing import Annotated
    from msam.checks import Range
    from msam.methods import Method

    @dataclass(frozen=True)
    class Halved(Method):
        '''Gradients of all encoders are multiplied by `factor`.

        Arguments:
            factor: of the gradients, in [0, 1].
        '''

        factor: Annotated[float, Range(ge=0, le=1)] = 0.5

        def modulate(self, run, output, batch):
            for encoder in run.network.encoders.values():
                for parameter in encoder.parameters():
                    parameter.grad *= self.factor
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return a function that makes a module in the current folder and gives its name."""
    package = tmp_path / "my_methods"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> str:
        (package / f"{name}.py").write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        return f"my_methods.{name}"

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "my_methods"]:
        del sys.modules[name]


def test_a_method_of_ones_own_in_one_file_trains_unchanged(tmp_path, own):
    name = own("halved", ONE_FILE)
    plain = trained(tmp_path / "plain", sharpness=MSAM)
    whole = trained(tmp_path / "whole", sharpness=MSAM, method={"name": name, "factor": 1.0})
    halved = trained(tmp_path / "halved", sharpness=MSAM, method=name)
    assert whole.end["weights"] == plain.end["weights"] != halved.end["weights"]
    assert halved.header["config"]["method"] == {"name": name, "factor": 0.5}
    frozen = trained(tmp_path / "frozen", method={"name": name, "factor": 0.0}, optimizer={"weight_decay": 0.0})
    begun = checkpoint.load(tmp_path / "frozen" / "checkpoint.pt")["model"]
    assert frozen.end["status"] == "finished"
    torch.manual_seed(0)
    from msam import data, models

    world = data.load("tests.train.world")()
    fresh = models.build(world.encoders, world.shapes, 3, "late").state_dict()
    for key, value in begun.items():
        assert torch.equal(value, fresh[key]) == key.startswith("encoders.")


def test_a_second_stage_freezes_encoders_and_takes_a_new_optimizer(tmp_path, own):
    name = own("two_stages", TWO_STAGES)
    record = trained(
        tmp_path / "all", method=name, sharpness=MSAM, schedule={"name": "step", "at": 0.5}, checkpoint_every=1
    )
    assert [(line["epoch"], line["step"]) for line in record.epochs] == [(1, 4), (2, 8), (3, 12)]
    # the schedule of two epochs begins anew with the second stage, at epoch 2
    assert [line["lr"] for line in record.epochs] == pytest.approx([0.05, 0.05, 0.005])
    with pytest.raises(KeyboardInterrupt):
        train(
            settings(method=name, sharpness=MSAM, schedule={"name": "step", "at": 0.5}),
            tmp_path / "one",
            watcher=StopAt(5),
        )
    one, last = (checkpoint.load(tmp_path / n / "checkpoint.pt") for n in ("one", "all"))
    assert (one["at"]["step"], last["at"]["step"]) == (4, 12)
    for key, value in one["model"].items():
        assert torch.equal(value, last["model"][key]) == key.startswith("encoders.")
    momenta = last["optimizer"]["state"]
    groups = last["optimizer"]["param_groups"]
    moved = {g["role"] for g in groups if any(i in momenta for i in g["params"])}
    assert moved == {"head"}  # those of the first stage's encoders are gone
    assert last["state"]["count"] == 12
    assert last["state"]["heard"] == [line["valid"]["nll"] for line in record.epochs]  # nothing of the test split


@pytest.mark.parametrize("step", [1, 4, 5, 7, 8, 11])
@pytest.mark.parametrize("every", [0, 1, 3])
def test_a_run_in_stages_stopped_anywhere_goes_on_bit_for_bit(tmp_path, own, step, every):
    more = {
        "method": own("two_stages", TWO_STAGES),
        "sharpness": own("fading", FADING),
        "fusion": {"name": "maxout", "hidden": [8]},
        "optimizer": {"name": "adam", "lr": 0.01},
        "schedule": {"name": "cosine"},
    }
    expected = trained(tmp_path / "undisturbed", **more)
    wanted = settings(**more, checkpoint_every=every)
    with pytest.raises(KeyboardInterrupt):
        train(wanted, tmp_path / "stopped", watcher=StopAt(step))
    torch.manual_seed(step)  # another process would be anywhere
    ear = Ear()
    resumed = train(wanted, tmp_path / "stopped", resume=True, watcher=ear)
    saved = max(4 * ((step - 1) // 4), every * ((step - 1) // every) if every else 0)
    assert ear.heard[0][1][2] == saved
    assert resumed.end["weights"] == expected.end["weights"]
    for mine, other in zip(resumed.steps + resumed.epochs, expected.steps + expected.epochs, strict=True):
        assert without_volatile(mine) == without_volatile(other)


def test_a_stage_says_which_groups_train():
    encoder = {"role": "encoder", "modality": "audio"}
    fusion = {"role": "fusion", "modality": None}
    assert Stage(1).trains(encoder)
    assert Stage(1).trains(fusion)
    assert not Stage(1, roles=frozenset({"fusion"})).trains(encoder)
    assert Stage(1, modalities=frozenset({"audio"})).trains(encoder)
    assert not Stage(1, modalities=frozenset({"image"})).trains(encoder)
    assert Stage(1, modalities=frozenset({"image"})).trains(fusion)


@dataclass
class Held:
    value: int

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_state_is_packed_as_plain_values_and_put_back_into_what_is_there():
    packed = checkpoint.packed({"plain": [1, 2], "tensor": torch.ones(2), "held": Held(3)})
    assert packed["held"] == {"value": 3}
    state = {"held": Held(0)}
    held = state["held"]
    checkpoint.unpack(state, packed)
    assert state["held"] is held
    assert held.value == 3
    assert state["plain"] == [1, 2]
