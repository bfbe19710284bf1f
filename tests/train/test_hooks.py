"""What a method may ask of the loop, each asked by a method of one's own in one file."""

import importlib
import sys
import textwrap

import pytest
import torch
from torch import nn

from msam.data import TensorSplit
from msam.data._loaders import part_of, shuffled
from msam.methods import Passes, Run
from msam.selection import without_auxiliary
from msam.train import checkpoint, load_model, parts, train
from msam.train.passes import Counter
from tests.methods._toys import model, run_of
from tests.train._runs import MSAM, Ear, StopAt, settings, trained

HEAD = """
    from dataclasses import dataclass
    import torch
    from msam.methods import Method, Passes, Stage

    @dataclass(frozen=True)
    class Own(Method):
"""
MAXOUT = {"name": "maxout", "hidden": [8]}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return a function that makes a method of one's own from the body of its class and gives its name."""
    package = tmp_path / "own_hooks"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def write(body: str) -> str:
        name = f"m{len(list(package.iterdir()))}"
        (package / f"{name}.py").write_text(textwrap.dedent(HEAD) + textwrap.indent(textwrap.dedent(body), "    "))
        importlib.invalidate_caches()
        return f"own_hooks.{name}"

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "own_hooks"]:
        del sys.modules[name]


def fresh_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return parts.model(settings(), parts.dataset(settings())).state_dict()


class TestRates:
    BODY = """
    def rate(self, run, group):
        return 0.5 ** run.epoch if group["modality"] == "audio" else 1.0

    def modulate(self, run, output, batch):
        run.notes["lr"] = {str(group["modality"]): group["lr"] for group in run.optimizer.param_groups}
    """

    def test_they_multiply_what_the_schedule_gives_and_do_not_pile_up(self, tmp_path, own):
        schedule = {"name": "step", "at": 0.6, "gamma": 0.1}
        record = trained(tmp_path / "run", method=own(self.BODY), epochs=3, schedule=schedule, optimizer={"lr": 0.2})
        heard = [line["method"]["lr"] for line in record.steps[::4]]
        assert [lr["audio"] for lr in heard] == pytest.approx([0.1, 0.05, 0.0025])
        assert [lr["image"] for lr in heard] == pytest.approx([0.2, 0.2, 0.02])
        assert [line["lr"] for line in record.epochs] == pytest.approx([0.2, 0.2, 0.02])

    def test_a_rate_of_zero_keeps_a_modality_where_it_is(self, tmp_path, own):
        body = "def rate(self, run, group):\n    return 0.0 if group['modality'] == 'audio' else 1.0"
        trained(tmp_path / "run", method=own(body))
        fresh, moved = fresh_weights(), load_model(tmp_path / "run").state_dict()
        for key, value in fresh.items():
            assert torch.equal(moved[key], value) == ("audio" in key)


class TestNotes:
    def test_they_are_written_in_the_step_they_belong_to(self, tmp_path, own):
        body = """
        def modulate(self, run, output, batch):
            if run.step % 2:
                run.notes["odd"] = run.step
        """
        record = trained(tmp_path / "run", method=own(body))
        assert [line.get("method") for line in record.steps] == [{"odd": n} if n % 2 else None for n in range(1, 9)]


class TestOnce:
    def test_the_second_pass_gets_what_the_first_made_and_the_next_step_makes_anew(self):
        run = run_of(model())
        run.begin_step(1)
        assert run.once("k", lambda: 1) == 1
        run.perturbed = True
        assert run.once("k", lambda: 2) == 1
        run.begin_step(2)
        assert not run.perturbed
        assert run.once("k", lambda: 3) == 3

    def test_a_second_pass_without_a_first_is_no_silent_matter(self):
        run = run_of(model())
        run.perturbed = True
        with pytest.raises(KeyError):
            run.once("k", lambda: 1)


class TestStages:
    BODY = """
    def stage(self, run, k):
        run.state.setdefault("calls", [])
        kinds = [dict(roles=frozenset({"encoder"})), dict(auxiliary=True), dict(modalities=frozenset({"image"}))]
        return Stage(2, **kinds[k]) if k < 3 else None

    def stage_begin(self, run):
        run.state["calls"] = [*run.state["calls"], ("begin", run.stage, run.epoch)]

    def stage_end(self, run):
        run.state["calls"] = [*run.state["calls"], ("end", run.stage, run.epoch)]
    """
    CALLS = (("begin", 0, 1), ("end", 0, 2), ("begin", 1, 3), ("end", 1, 4), ("begin", 2, 5), ("end", 2, 6))

    def test_each_begins_once_and_ends_once(self, tmp_path, own):
        trained(tmp_path / "run", method=own(self.BODY))
        saved = checkpoint.load(tmp_path / "run" / "checkpoint.pt")
        assert tuple(map(tuple, saved["state"]["calls"])) == self.CALLS

    @pytest.mark.parametrize("step", [1, 7, 8, 9, 16, 17, 20])
    def test_also_where_the_run_was_stopped(self, tmp_path, own, step):
        chosen = settings(method=own(self.BODY), checkpoint_every=3)
        with pytest.raises(KeyboardInterrupt):
            train(chosen, tmp_path / "run", watcher=StopAt(step))
        train(chosen, tmp_path / "run", resume=True)
        saved = checkpoint.load(tmp_path / "run" / "checkpoint.pt")
        assert tuple(map(tuple, saved["state"]["calls"])) == self.CALLS

    def test_the_watcher_is_told_of_all_steps_beforehand(self, tmp_path, own):
        ear = Ear()
        record = train(settings(method=own(self.BODY)), tmp_path / "run", watcher=ear)
        assert ear.heard[0][1][1] == record.end["steps"] == 24

    def test_auxiliary_epochs_are_marked_and_never_the_ones_reported(self, tmp_path, own):
        record = trained(tmp_path / "run", method=own(self.BODY))
        assert [line.get("auxiliary", False) for line in record.epochs] == [False, False, True, True, False, False]
        kept = without_auxiliary(record)
        assert [line["epoch"] for line in kept.epochs] == [1, 2, 5, 6]
        assert {line["epoch"] for line in kept.steps} == {1, 2, 5, 6}
        assert without_auxiliary(kept) is kept

    @pytest.mark.parametrize("sharpness", ["none", MSAM])
    def test_what_does_not_train_is_in_evaluation_mode(self, tmp_path, own, sharpness):
        body = """
        def stage(self, run, k):
            return Stage(2, roles=frozenset({"encoder"})) if k == 0 else None
        def gradients(self, run, batch):
            assert not run.network.fusion.training
            assert all(encoder.training for encoder in run.network.encoders.values())
            return super().gradients(run, batch)
        """
        trained(tmp_path / "run", method=own(body), fusion=MAXOUT, sharpness=sharpness)
        norms = [m for m in load_model(tmp_path / "run").fusion.modules() if isinstance(m, nn.BatchNorm1d)]
        assert norms
        assert all(m.num_batches_tracked == 0 for m in norms)

    def test_the_schedule_goes_on_or_stands_where_the_stage_wants_it(self, tmp_path, own):
        body = """
        def stage(self, run, k):
            return [Stage(2), Stage(1, new_optimizer=True), Stage(2, schedule_from=1), None][k]
        """
        schedule = {"name": "step", "at": 0.4, "gamma": 0.1}  # of five epochs: from the third on
        record = trained(tmp_path / "run", method=own(body), epochs=5, schedule=schedule, optimizer={"lr": 1e-3})
        assert [line["lr"] for line in record.epochs] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-3, 1e-4])


class TestParts:
    def test_a_stage_trains_on_its_part_and_the_method_finds_the_rest(self, tmp_path, own):
        body = """
        def stage(self, run, k):
            return Stage(2, part=(0.0, 0.75)) if k == 0 else None
        def gradients(self, run, batch):
            run.state["seen"] = run.state.get("seen", []) + batch.inputs["audio"][:, 0].tolist()
            return super().gradients(run, batch)
        def stage_end(self, run):
            for name, part in (("first", (0.0, 0.75)), ("rest", (0.75, 1.0))):
                run.state[name] = [v for b in run.train_batches(*part) for v in b.inputs["audio"][:, 0].tolist()]
        """
        record = trained(tmp_path / "run", method=own(body))
        state = checkpoint.load(tmp_path / "run" / "checkpoint.pt")["state"]
        assert record.end["steps"] == 2 * 3
        assert (len(state["first"]), len(state["rest"])) == (48, 16)
        assert not set(state["first"]) & set(state["rest"])
        for epoch in (state["seen"][:48], state["seen"][48:]):
            assert sorted(epoch) == sorted(state["first"])

    def test_parts_are_the_same_in_every_epoch_and_cover_everything(self):
        split = TensorSplit({}, torch.arange(50))
        for epoch in range(3):
            order = shuffled(split, 8, seed=4, epoch=epoch, part=(0.2, 0.6))
            assert sorted(i for chunk in order for i in chunk) == sorted(part_of(50, 0.2, 0.6, seed=4))
        pieces = [part_of(50, k / 10, (k + 1) / 10, seed=4) for k in range(10)]
        assert sorted(i for piece in pieces for i in piece) == list(range(50))
        assert part_of(50, 0, 0.5, seed=4) != part_of(50, 0, 0.5, seed=5)

    @pytest.mark.parametrize("part", [(-0.1, 1), (0.5, 0.5), (0.6, 0.4), (0, 1.1)])
    def test_a_part_must_lie_within_the_data(self, part):
        with pytest.raises(ValueError, match="0 <= start < stop <= 1"):
            part_of(10, *part, seed=0)

    def test_a_part_must_hold_a_sample(self):
        with pytest.raises(ValueError, match="holds none"):
            part_of(3, 0.0, 0.1, seed=0)


class TestPasses:
    def test_a_backward_costs_two_forwards(self):
        assert Passes().cost == 1
        assert Passes(forward=3, backward=0).cost == 1
        assert Passes(forward=1, backward=2).cost == pytest.approx(5 / 3)

    def test_parts_of_batches_repeated_backwards_and_frozen_encoders_are_counted_as_what_they_are(self):
        encoders = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
        counter = Counter(encoders, 2)
        x = torch.ones(8, 3)
        encoders[0](x)
        assert counter.forward == 0
        with counter.counting(8):
            one, other = encoders[0](x), encoders[1](x)
            one.sum().backward(retain_graph=True)
            (one.sum() + other.sum()).backward()
            assert (counter.forward, counter.backward) == (1, 1.5)
            encoders[0](x[:2]).sum().backward()
            assert (counter.forward, counter.backward) == (1.125, 1.625)
            with torch.no_grad():
                encoders[1](x)
            encoders[1].requires_grad_(False)
            encoders[1](x)
        assert (counter.forward, counter.backward) == (2.125, 1.625)
        assert counter.cost == (2.125 + 2 * 1.625) / 3

    def test_teachers_kept_by_the_method_are_counted_and_evaluation_is_not(self, tmp_path, own):
        body = """
        def passes(self, modalities):
            return Passes(2, 1)
        def stage(self, run, k):
            if "teachers" not in run.state:
                linear = torch.nn.Linear
                run.state["teachers"] = torch.nn.ModuleDict({"audio": linear(6, 4), "image": linear(4, 4)})
            return super().stage(run, k)
        def gradients(self, run, batch):
            with torch.no_grad():
                for name, teacher in run.state["teachers"].items():
                    teacher(batch.inputs[name])
            return super().gradients(run, batch)
        """
        record = trained(tmp_path / "run", method=own(body))
        assert record.end["passes_per_step"] == pytest.approx((2 + 2) / 3, abs=1e-6)

    @pytest.mark.parametrize(("absent", "cost"), [("feature", 2), ("input", 3)])
    def test_coalitions_count_where_the_rule_needs_them_on_encoders(self, tmp_path, absent, cost):
        record = trained(tmp_path, sharpness=MSAM, absent=absent)
        assert record.end["passes_per_step"] == cost  # three coalitions of two modalities, forward alone: one pass
        plain = trained(tmp_path / "plain", absent=absent)
        assert plain.end["passes_per_step"] == 1


def test_several_backwards_on_one_forward_are_summed_in_the_recorded_loss(tmp_path, own):
    body = """
    def gradients(self, run, batch):
        output = run.model(batch.inputs)
        loss = self.loss(run, output, batch).mean()
        run.backward(loss, retain_graph=True)
        run.backward(loss)
        return output
    """
    twice, plain = trained(tmp_path / "a", method=own(body)), trained(tmp_path / "b")
    assert twice.steps[0]["loss"] == 2 * plain.steps[0]["loss"]
    assert twice.end["passes_per_step"] == pytest.approx(5 / 3, abs=1e-6)


def test_a_run_names_its_modalities():
    run: Run = run_of(model())
    assert run.modalities == run.network.modalities
