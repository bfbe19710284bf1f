"""G-Blending: what weighs the losses, on which samples it is measured, and what trains when."""

import copy
import dataclasses
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from msam.data import Dataset, TensorSplit
from msam.data._loaders import part_of
from msam.methods import Stage, gblending
from msam.methods.gblending import GBlending, gain_and_overfit, weights
from msam.methods.joint import Joint
from msam.methods.uniform import Uniform
from msam.record import without_volatile
from msam.train import checkpoint, config, load_model, parts, train
from msam.train.optimizers import step as step_schedule
from msam.train.trainer import Trainer
from tests.definitions import gblending as slow
from tests.methods._toys import (
    CLASSES,
    EARLY,
    FOUR,
    LATE,
    NAMES,
    batch,
    built,
    close,
    enter,
    gradients,
    model,
    run_of,
    steps,
)
from tests.train._runs import MSAM, StopAt, settings, trained
from tests.train.world import world

every_fusion = pytest.mark.parametrize("fusion", [*LATE, *EARLY])
every_count = pytest.mark.parametrize("names", [FOUR[:2], FOUR[:3], FOUR])
MAXOUT = {"name": "maxout", "hidden": [8]}
number = st.floats(-5, 5)
sizeable = number.filter(lambda v: v == 0 or abs(v) > 1e-100)  # half of the smallest number is none
pairs = st.lists(st.tuples(sizeable, sizeable), min_size=2, max_size=5)


def both(found: list[tuple[float, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.tensor(column, dtype=torch.float64) for column in zip(*found, strict=True))


class TestWeights:
    @how(deadline=None)
    @given(pairs)
    def test_they_sum_to_one_and_a_head_without_gain_has_none(self, found):
        gain, overfit = both(found)
        w = weights(gain, overfit)
        close(float(w.sum()), 1.0)
        assert (w >= 0).all()
        if (gain > 0).any():
            assert (w[gain <= 0] == 0).all()
            assert (w[gain > 1e-3] > 0).all()
        else:
            close(w, torch.full_like(w, 1 / len(w)))

    @how(deadline=None)
    @given(st.lists(st.tuples(st.floats(0.01, 5), st.floats(0.01, 5)), min_size=2, max_size=5))
    def test_they_go_as_gain_over_the_square_of_overfitting(self, found):
        gain, overfit = both(found)
        w = weights(gain, overfit)
        for j in range(len(w)):
            close(float(w[j] / w[0]), found[j][0] / found[j][1] ** 2 / (found[0][0] / found[0][1] ** 2), 1e-6)

    @how(deadline=None)
    @given(pairs, st.floats(0.5, 2), st.randoms())
    def test_units_signs_of_overfitting_and_the_order_of_heads_mean_nothing(self, found, unit, random):
        gain, overfit = both(found)
        w = weights(gain, overfit)
        close(weights(unit * gain, overfit), w)
        close(weights(gain, -overfit), w)
        order = list(range(len(w)))
        random.shuffle(order)
        close(weights(gain[order], overfit[order]), w[order])

    def test_no_overfitting_at_all_is_no_division_by_zero(self):
        assert weights(torch.tensor([1.0, 3.0]), torch.zeros(2)).tolist() == [0.25, 0.75]

    def test_gain_and_overfitting_are_differences_over_the_interval(self):
        before = torch.tensor([[1.0, 2.0], [1.1, 2.5]], dtype=torch.float64)
        after = torch.tensor([[0.2, 1.0], [0.9, 2.6]], dtype=torch.float64)
        gain, overfit = gain_and_overfit(before, after)
        close(gain, torch.tensor([0.2, -0.1], dtype=torch.float64))
        close(overfit, torch.tensor([0.7 - 0.1, 1.6 - 0.5], dtype=torch.float64))


class TestFixed:
    @every_fusion
    @every_count
    def test_all_weight_on_the_fused_loss_is_joint_training(self, fusion, names):
        method = GBlending(fixed=(*[0.0] * len(names), 3.0))
        run, joint = built(method, fusion, names=names), built(Joint(), fusion, names=names)
        for m, r in ((method, run), (Joint(), joint)):
            torch.manual_seed(1)
            steps(m, r, 4, names)
        for key, value in joint.network.state_dict().items():
            close(run.network.state_dict()[key], value)

    @every_fusion
    @every_count
    def test_equal_weights_are_uniforms_gradients_divided_by_the_number_of_losses(self, fusion, names):
        method = GBlending(fixed=(1.0,) * (len(names) + 1))
        run, uniform = built(method, fusion, names=names), built(Uniform(), fusion, names=names)
        for m, r in ((method, run), (Uniform(), uniform)):
            torch.manual_seed(1)
            m.gradients(r, batch(names=names))
        for key, grad in gradients(run).items():
            close(grad * (len(names) + 1), gradients(uniform)[key])

    @pytest.mark.parametrize(("position", "name"), list(enumerate(NAMES)))
    def test_weights_are_in_the_order_of_modalities(self, position, name):
        method = GBlending(fixed=tuple(float(k == position) for k in range(4)))
        run = built(method)
        method.gradients(run, batch())
        moved = {key for key, grad in gradients(run).items() if grad is not None and grad.any()}
        assert moved == {key for key in gradients(run) if key.startswith((f"encoders.{name}.", f"heads.{name}."))}
        assert run.notes == {"coefficients": [float(k == position) for k in range(3)], "fused": 0.0}

    def test_there_is_nothing_to_estimate(self, tmp_path):
        method = GBlending(fixed=(0.014, 0.63, 0.356))
        run = built(method, names=("audio", "image"))
        assert [method.stage(run, k) for k in range(2)] == [Stage(2), None]
        assert run.state == {}
        record = trained(tmp_path, method={"name": "gblending", "fixed": [1.4, 63.0, 35.6]})
        assert not any("auxiliary" in line for line in record.epochs)
        assert record.steps[0]["method"] == {"coefficients": [0.014, 0.63], "fused": 0.356}
        assert not checkpoint.load(tmp_path / "checkpoint.pt")["state"]


class TestStages:
    def test_offline_estimates_once_over_all_epochs_and_begins_again(self):
        method, run = GBlending(held_out=0.25), built(GBlending())
        run.epochs = 7
        estimate = {"part": (0.0, 0.75), "auxiliary": True, "new_optimizer": True, "schedule_from": 0}
        assert [method.stage(run, k) for k in range(4)] == [
            Stage(7, frozenset({"encoder", "head"}), **estimate),
            Stage(7, **estimate),
            Stage(7, new_optimizer=True, schedule_from=0),
            None,
        ]

    def test_online_estimates_before_every_super_epoch_and_the_last_may_be_shorter(self):
        method, run = GBlending(strategy="online", super_epoch=3), built(GBlending())
        run.epochs = 7
        stages = [method.stage(run, k) for k in range(9)]
        assert method.stage(run, 9) is None
        assert [s.epochs for s in stages] == [3, 3, 3, 3, 3, 3, 1, 1, 1]
        assert [s.schedule_from for s in stages] == [0, 0, 0, 3, 3, 3, 6, 6, 6]
        assert [s.auxiliary for s in stages] == [True, True, False] * 3
        assert {s.part for s in stages} == {(0.0, 0.9)}
        assert [s.new_optimizer for s in stages] == [True, True, True, True, True, False, True, True, False]

    @every_fusion
    def test_estimates_train_one_kind_of_head_at_a_time(self, fusion):
        method = GBlending()
        run = built(method, fusion)
        method.gradients(run, batch())
        made = {key.split(".")[0] for key, grad in gradients(run).items() if grad is not None}
        assert made == {"encoders", "heads"}
        assert run.notes == {}
        method.stage_end(run)
        enter(method, run, 1)
        run.begin_step(2)
        run.network.zero_grad()
        method.gradients(run, batch())
        made = {key.split(".")[0] for key, grad in gradients(run).items() if grad is not None}
        assert made == {"encoders", "fusion"}
        assert run.notes == {}

    def test_the_epochs_of_estimates_are_auxiliary_and_see_the_schedule_of_the_blend(self, tmp_path):
        schedule = {"name": "step", "at": 0.5, "gamma": 0.1}
        more = {"epochs": 4, "schedule": schedule, "optimizer": {"lr": 0.2}}
        record = trained(tmp_path / "offline", method="gblending", **more)
        assert [line.get("auxiliary", False) for line in record.epochs] == [True] * 8 + [False] * 4
        assert [line["lr"] for line in record.epochs] == pytest.approx([0.2, 0.2, 0.02, 0.02] * 3)
        online = {"name": "gblending", "strategy": "online", "super_epoch": 2}
        record = trained(tmp_path / "online", method=online, **more)
        assert [line.get("auxiliary", False) for line in record.epochs] == ([True] * 4 + [False] * 2) * 2
        assert [line["lr"] for line in record.epochs] == pytest.approx([0.2] * 6 + [0.02] * 6)
        noted = [line["method"] for line in record.steps if "method" in line]
        auxiliary = {line["epoch"] for line in record.epochs if "auxiliary" in line}
        assert all(("method" in line) != (line["epoch"] in auxiliary) for line in record.steps)
        for found in noted:
            assert sum(found["coefficients"]) + found["fused"] == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize("fusion", [{"name": "late"}, MAXOUT])
    def test_every_estimate_and_the_offline_blend_begin_with_the_initial_weights_bit_for_bit(
        self, fusion, tmp_path, monkeypatch
    ):
        begun = []
        plain = GBlending.stage_begin

        def listening(self, run):
            plain(self, run)
            begun.append(copy.deepcopy(run.network.state_dict()))

        monkeypatch.setattr(GBlending, "stage_begin", listening)
        trained(tmp_path, method="gblending", fusion=fusion)
        assert len(begun) == 3
        for key, value in begun[0].items():
            assert torch.equal(value, begun[1][key])
            assert torch.equal(value, begun[2][key])


def full_batch_run(folder: Path, strategy: str, fusion: dict, optimizer: dict) -> tuple[dict, list[list[float]]]:
    """Return weights of the model and of the losses after a run of seven epochs in double precision, one step an epoch."""
    record = trained(
        folder,
        method={"name": "gblending", "strategy": strategy, "super_epoch": 3, "held_out": 0.3},
        fusion=fusion,
        optimizer={"lr": 0.05, **optimizer},
        schedule={"name": "step", "at": 0.5, "gamma": 0.5},
        epochs=7,
        batch_size=64,
        precision="64-true",
    )
    noted = [[*s["method"]["coefficients"], s["method"]["fused"]] for s in record.steps if "method" in s]
    return load_model(folder).state_dict(), noted


class TestDefinition:
    @pytest.mark.parametrize("optimizer", [{"name": "sgd"}, {"name": "adam"}])
    @pytest.mark.parametrize("fusion", [{"name": "late"}, {"name": "concat"}, {"name": "early", "hidden": [8]}])
    @pytest.mark.parametrize("strategy", ["offline", "online"])
    def test_a_whole_run_is_the_slow_edition_in_every_weight(self, strategy, fusion, optimizer, tmp_path):
        found, noted = full_batch_run(tmp_path, strategy, fusion, optimizer)
        chosen = settings(method="gblending", fusion=fusion)
        torch.manual_seed(chosen.seed)
        network, split = parts.model(chosen, world()).double(), world().train
        cut = {"seen": (0.0, 0.7), "held_out": (0.7, 1.0), "final": (0.0, 1.0 if strategy == "offline" else 0.7)}
        samples = {name: split[part_of(64, *part, seed=0)] for name, part in cut.items()}
        doubled = {name: b._replace(inputs={n: v.double() for n, v in b.inputs.items()}) for name, b in samples.items()}
        sgd = {"momentum": 0.9, "weight_decay": 1e-4}
        kind = torch.optim.SGD if optimizer["name"] == "sgd" else torch.optim.Adam
        network, wanted = slow.blended(
            network,
            **doubled,
            make_optimizer=lambda p: kind(p, lr=0.05, **(sgd if kind is torch.optim.SGD else {})),
            schedule=step_schedule(epochs=7, at=0.5, gamma=0.5),
            lr=0.05,
            lengths=[7] if strategy == "offline" else [3, 3, 1],
        )
        each = [
            w for w, length in zip(wanted, [7] if len(wanted) == 1 else [3, 3, 1], strict=True) for _ in range(length)
        ]
        assert len(noted) == 7
        for mine, other in zip(noted, each, strict=True):
            assert mine == pytest.approx(other, abs=2e-6)
        for key, value in network.state_dict().items():
            close(found[key], value, 1e-10)
        assert any(0 < w < 1 for w in wanted[0])


class TestMeasuring:
    @pytest.mark.parametrize("fusion", ["late", "maxout"])
    def test_it_leaves_modes_statistics_gradients_and_random_numbers_as_they_were(self, fusion):
        run = run_of(GBlending().build(model(fusion), CLASSES).double())
        run.network.fusion.eval()
        modes = {module: module.training for module in run.network.modules()}
        assert len(set(modes.values())) == 2
        before, random = copy.deepcopy(run.network.state_dict()), torch.get_rng_state()
        found = GBlending()._losses(run)
        assert found.shape == (2, 4)
        assert torch.equal(found, GBlending()._losses(run))
        assert all(module.training == flag for module, flag in modes.items())
        assert all(torch.equal(value, before[key]) for key, value in run.network.state_dict().items())
        assert torch.equal(torch.get_rng_state(), random)
        assert all(grad is None for grad in gradients(run).values())

    @pytest.mark.parametrize("strategy", ["offline", "online"])
    def test_what_is_held_out_trains_in_no_estimate_and_in_no_online_blend(self, strategy, tmp_path, monkeypatch):
        seen: dict[bool, set] = {True: set(), False: set()}
        plain = GBlending.loss

        def listening(self, run, output, batch):
            seen[self.stage(run, run.stage).auxiliary] |= set(batch.inputs["audio"][:, 0].tolist())
            return plain(self, run, output, batch)

        monkeypatch.setattr(GBlending, "loss", listening)
        trained(tmp_path, method={"name": "gblending", "strategy": strategy, "held_out": 0.25, "super_epoch": 1})
        everything = world().train.inputs["audio"][:, 0].tolist()
        kept = {everything[i] for i in part_of(64, 0.0, 0.75, seed=0)}
        assert seen[True] == kept
        assert seen[False] == (set(everything) if strategy == "offline" else kept)


@pytest.mark.parametrize("optimizer", [{"name": "adam", "lr": 0.01}, {"name": "sgd"}])
@pytest.mark.parametrize("fusion", [{"name": "late"}, MAXOUT])
def test_an_online_run_stopped_anywhere_goes_on_bit_for_bit(optimizer, fusion, tmp_path):
    more = {
        "method": {"name": "gblending", "strategy": "online", "super_epoch": 2},
        "fusion": fusion,
        "sharpness": MSAM,
        "optimizer": optimizer,
        "schedule": {"name": "cosine"},
        "batch_size": 32,
        "epochs": 3,
    }
    expected = trained(tmp_path / "undisturbed", **more)
    assert expected.end["steps"] == 2 * 9
    wanted = settings(**more, checkpoint_every=1)
    for stop in range(2, 18, 2):
        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            train(wanted, folder, watcher=StopAt(stop + 1))
        torch.manual_seed(stop)  # another process would be anywhere
        resumed = train(wanted, folder, resume=True)
        assert resumed.end["weights"] == expected.end["weights"]
        for mine, other in zip(resumed.steps + resumed.epochs, expected.steps + expected.epochs, strict=True):
            assert without_volatile(mine) == without_volatile(other)


class TestErrors:
    @pytest.mark.parametrize("fixed", [(1.0,), (1.0,) * 3, (1.0,) * 5])
    def test_fixed_weights_are_one_for_each_modality_and_one_more(self, fixed):
        with pytest.raises(ValueError, match=rf"'text'\] and one for the fused loss, received {len(fixed)}: .*Give 4"):
            GBlending(fixed=fixed).build(model(), CLASSES)
        GBlending(fixed=(1.0,) * 4).build(model(), CLASSES)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"fixed": (1.0, -1.0)}, "`fixed` must be >= 0 and < inf, received -1.0"),
            ({"fixed": (1.0, math.inf)}, "`fixed` must be .*received inf"),
            ({"fixed": (0.0, 0.0, 0.0)}, r"`fixed` must hold a weight above 0, received \(0.0, 0.0, 0.0\)"),
            ({"strategy": "ofline"}, r"Unknown strategy 'ofline'\. Did you mean 'offline'\?"),
            ({"super_epoch": 0}, "`super_epoch` must be >= 1, received 0"),
            ({"held_out": 0.0}, "`held_out` must be > 0 and < 1, received 0.0"),
        ],
    )
    def test_wrong_settings_are_refused(self, wrong, said):
        with pytest.raises(ValueError, match=said):
            GBlending(**wrong)

    def test_fixed_weights_are_written_with_commas_on_the_command_line(self):
        assert config(method={"name": "gblending", "fixed": "1,2,1"}).method["fixed"] == [1.0, 2.0, 1.0]


def the_same_samples_give_the_same_losses_however_many_and_however_cut() -> None:
    run = built(GBlending())
    x = batch(size=11)

    def cut(start: float, stop: float):
        for rows in (slice(0, 8), slice(8, 11)) if start else [slice(0, 11)] * 9:
            yield x._replace(inputs={n: v[rows] for n, v in x.inputs.items()}, target=x.target[rows])

    run.train_batches = cut
    found = GBlending()._losses(run)
    close(found[0], found[1])
    close(found[0], torch.tensor([slow.loss_of(run.network, head, x) for head in (*NAMES, None)], dtype=torch.float64))


def test_losses_are_means_per_sample():
    the_same_samples_give_the_same_losses_however_many_and_however_cut()


@pytest.mark.parametrize("mean", [True, False])
def test_the_planted_fault_of_sums_over_splits_of_different_sizes_is_caught(mean, monkeypatch):
    """Once as sums of the batches' means, once as the mean of these: a smaller last batch then counts too much."""

    def summed(run, start, stop):
        losses = [
            torch.tensor([slow.loss_of(run.network, head, b) for head in (*NAMES, None)], dtype=torch.float64)
            for b in run.train_batches(start, stop)
        ]
        return torch.stack(losses).mean(0) if mean else torch.stack(losses).sum(0)

    monkeypatch.setattr(gblending, "_mean_losses", summed)
    with pytest.raises(AssertionError):
        the_same_samples_give_the_same_losses_however_many_and_however_cut()


def poisoned(dataset: Dataset, name: str) -> Dataset:
    split = getattr(dataset, name)
    spoilt = TensorSplit(split.inputs, (split.target + 1) % dataset.num_classes)
    return dataclasses.replace(dataset, **{name: spoilt})


def validation_and_test_change_nothing(folder: Path, strategy: str) -> None:
    ends = []
    for spoilt in ("", "valid", "test"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                parts, "dataset", lambda _config, spoilt=spoilt: poisoned(world(), spoilt) if spoilt else world()
            )
            method = {"name": "gblending", "strategy": strategy, "super_epoch": 2, "held_out": 0.3}
            ends.append(trained(folder / f"run-{spoilt}", method=method, epochs=4).end["weights"])
    assert len(set(ends)) == 1


both_strategies = pytest.mark.parametrize("strategy", ["offline", "online"])


@both_strategies
def test_validation_and_test_change_nothing(strategy, tmp_path):
    validation_and_test_change_nothing(tmp_path, strategy)


@both_strategies
@pytest.mark.parametrize("looked_at", ["valid", "test"])
def test_the_planted_fault_of_measuring_on_validation_or_test_is_caught(strategy, looked_at, tmp_path, monkeypatch):
    plain = Trainer._train_batches

    def elsewhere(self, start, stop):
        split = getattr(self.dataset, looked_at)
        return plain(self, start, stop) if start == 0 else iter([self.prepared(split[range(len(split))])])

    monkeypatch.setattr(Trainer, "_train_batches", elsewhere)
    with pytest.raises(AssertionError):
        validation_and_test_change_nothing(tmp_path, strategy)
