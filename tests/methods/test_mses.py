"""MSES: when a modality stops, where it goes back to, and what rests from then on."""

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from torch import nn

from msam.methods import Method, Stage
from msam.methods._gradients import parameters
from msam.methods.joint import Joint
from msam.methods.mses import MSES, smoothed, stops
from msam.methods.uniform import Uniform
from msam.models import encoders
from msam.models.encoders import Encoder
from msam.record import without_volatile
from msam.train import checkpoint, config, load_model, train, trainer
from tests.methods._toys import CLASSES, EARLY, FOUR, LATE, NAMES, batch, built, close, enter, gradients, model, steps
from tests.train._runs import MSAM, StopAt, settings, trained

every_fusion = pytest.mark.parametrize("fusion", [*LATE, *EARLY])
every_count = pytest.mark.parametrize("names", [FOUR[:2], FOUR[:3], FOUR])
FALLING = [9.0 - t for t in range(30)]
CODE = {"variant": "code", "patience": 1}
losses = st.lists(st.lists(st.floats(0, 10), min_size=3, max_size=3), min_size=1, max_size=12)


def rising_after(epoch: int) -> list[float]:
    """Return validation losses that are lowest at an epoch."""
    return [float(abs(t - epoch)) for t in range(1, 31)]


def measured(values: dict[str, float]) -> dict:
    return {"modalities": {name: {"head_nll": value} for name, value in values.items()}}


def live(
    method: Method, run, curves: dict[str, Sequence[float]], epochs: int, count: int = 2
) -> list[dict[str, torch.Tensor]]:
    """Train as the loop does, with validation losses from `curves`; return the weights after each epoch."""
    run.epochs, after = epochs, []
    while (stage := enter(method, run, len(after))) is not None:
        assert stage.epochs == 1
        run.epoch = len(after) + 1
        steps(method, run, count, run.modalities)
        method.epoch_end(run, measured({name: curves[name][run.epoch - 1] for name in run.modalities}))
        after.append(copy.deepcopy(run.network.state_dict()))
    return after


def of(name: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what a modality alone owns: encoder, head, and its layer of a sum."""
    own = (f"encoders.{name}.", f"heads.{name}.", f"fusion.linear.{name}.")
    return {key: value for key, value in state.items() if key.startswith(own)}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class TestArithmetic:
    @how(deadline=None)
    @given(losses, st.integers(1, 5))
    def test_a_modality_stops_after_the_first_epoch_that_is_patience_epochs_past_the_lowest(self, history, patience):
        best, stopped = stops(torch.tensor(history, dtype=torch.float64), patience)
        for m, column in enumerate(zip(*history, strict=True)):
            lowest_so_far = [column.index(min(column[:t])) + 1 for t in range(1, len(column) + 1)]
            over = [t for t in range(1, len(column) + 1) if t >= lowest_so_far[t - 1] + patience]
            end = over[0] if over else 0
            assert stopped[m] == end
            assert best[m] == lowest_so_far[(end or len(column)) - 1]

    @how(deadline=None)
    @given(losses, losses, st.integers(1, 5))
    def test_what_comes_after_a_stop_changes_nothing(self, history, later, patience):
        best, stopped = stops(torch.tensor(history), patience)
        best_then, stopped_then = stops(torch.tensor(history + later), patience)
        for m in range(3):
            assert not stopped[m] or (best[m], stopped[m]) == (best_then[m], stopped_then[m])
            assert not stopped[m] or stopped[m] == best[m] + patience

    @how(deadline=None)
    @given(losses, st.floats(0, 0.9))
    def test_smoothing_takes_the_raw_value_of_the_epoch_before_and_no_other(self, history, s):
        v = torch.tensor(history, dtype=torch.float64)
        found = smoothed(v, s)
        close(found[0], v[0])
        for t in range(1, len(v)):
            close(found[t], s * v[t - 1] + (1 - s) * v[t])

    def test_without_smoothing_losses_are_what_they_are(self):
        v = torch.rand(5, 3)
        assert torch.equal(smoothed(v, 0.0), v)

    def test_a_loss_that_is_not_finite_is_never_the_lowest(self):
        assert stops(torch.tensor([[math.nan], [math.inf]]), 2) == ([0], [2])


class TestLoss:
    @every_fusion
    @every_count
    def test_while_nobody_stops_the_paper_is_uniform_and_the_code_joint_training(self, fusion, names):
        pairs = [(MSES(), Uniform())]
        pairs += [(MSES(variant="code"), Joint())] if fusion in LATE else []
        for mses, plain in pairs:
            runs = [built(method, fusion, names=names) for method in (mses, plain)]
            for method, run in zip((mses, plain), runs, strict=True):
                torch.manual_seed(1)
                steps(method, run, 4, names)
            mine, other = (run.network.state_dict() for run in runs)
            assert mine.keys() == other.keys()
            for key in mine:
                close(mine[key], other[key])

    def test_the_codes_form_has_no_heads_but_those_of_the_fusion_unless_it_is_given_losses(self):
        assert not built(MSES(variant="code")).network.heads
        assert set(built(MSES(variant="code", unimodal_loss=True), "early").network.heads) == set(NAMES)
        assert not built(MSES(unimodal_loss=False)).network.heads

    @pytest.mark.parametrize("fusion", EARLY)
    def test_without_heads_an_early_fusion_is_refused_and_the_way_out_named(self, fusion):
        with pytest.raises(ValueError, match=r"found MaxoutFusion.* `method.unimodal_loss true`"):
            MSES(variant="code").build(model(fusion), CLASSES)
        MSES(variant="code", unimodal_loss=True).build(model(fusion), CLASSES)


def definition(network: nn.Module, curves: dict[str, Sequence[float]], patience: int, epochs: int) -> nn.Module:
    """Return the paper's training by hand: SGD, own losses, each modality back to its best epoch and still."""
    active, best = set(network.modalities), {}
    for epoch in range(1, epochs + 1):
        for number in range(2):
            x, entropy = batch(number, names=network.modalities), nn.functional.cross_entropy
            h = {name: network.encoders[name](x.inputs[name]) for name in network.modalities}
            loss = entropy(network.fusion(h), x.target)
            for name in network.modalities:
                loss = loss + entropy(network.heads[name](h[name]), x.target)
            names, tensors = zip(*network.named_parameters(), strict=True)
            with torch.no_grad():
                for key, p, g in zip(names, tensors, torch.autograd.grad(loss, tensors), strict=True):
                    owner = next((m for m in network.modalities if f".{m}." in key), None)
                    p -= 0.1 * g if owner is None or owner in active else 0.0
        for name in network.modalities:
            curve = curves[name][:epoch]
            if name not in active:
                continue
            if curve[-1] < min(curve[:-1], default=math.inf):
                best[name] = epoch, copy.deepcopy(of(name, network.state_dict()))
            elif epoch >= best[name][0] + patience:
                active.remove(name)
                network.load_state_dict(best[name][1], strict=False)
        if not active:
            break
    return network


class TestPaper:
    @every_fusion
    @every_count
    def test_it_is_the_slow_edition_in_every_weight(self, fusion, names):
        method = MSES(patience=2)
        run = built(method, fusion, names=names)
        curves = dict(zip(names, (rising_after(1), rising_after(3), FALLING, rising_after(2)), strict=False))
        mine = live(method, run, curves, epochs=7)
        start = built(method, fusion, names=names).network
        by_hand = definition(start, curves, 2, 7).state_dict()
        assert len(mine) == (5 if len(names) == 2 else 7)
        for key, value in by_hand.items():
            close(mine[-1][key], value, 1e-10)

    @every_fusion
    def test_what_stops_goes_back_to_its_best_epoch_and_stays_there_while_the_rest_trains_on(self, fusion):
        method = MSES(patience=2)
        run = built(method, fusion)
        after = live(method, run, {"audio": FALLING, "image": rising_after(2), "text": FALLING}, epochs=6)
        for epoch in (4, 5, 6):
            assert equal(of("image", after[epoch - 1]), of("image", after[1]))
        assert not equal(of("image", after[2]), of("image", after[1]))
        for epoch in range(1, 6):
            for name in ("audio", "text"):
                assert not equal(of(name, after[epoch]), of(name, after[epoch - 1]))
        shared = [key for key in after[0] if key.startswith("fusion.") and ".image." not in key]
        assert all(not torch.equal(after[5][key], after[4][key]) for key in shared)
        assert all(p.grad is None for p in parameters(run.network, "image"))
        assert run.notes["coefficients"] == [1.0, 0.0, 1.0]

    def test_the_first_epoch_can_be_the_best(self):
        method = MSES(patience=1)
        run = built(method)
        after = live(method, run, {"audio": FALLING, "image": rising_after(0), "text": FALLING}, epochs=4)
        assert run.state["stopped"] == {"image": 2}
        assert equal(of("image", after[3]), of("image", after[0]))

    def test_restore_none_leaves_it_where_it_stopped(self):
        method = MSES(patience=2, restore="none")
        run = built(method)
        after = live(method, run, {"audio": FALLING, "image": rising_after(1), "text": FALLING}, epochs=5)
        assert run.state["kept"] == {}
        assert equal(of("image", after[4]), of("image", after[2]))
        assert not equal(of("image", after[2]), of("image", after[0]))

    def test_training_ends_when_all_have_stopped(self):
        method = MSES(patience=2)
        run = built(method)
        after = live(
            method, run, {"audio": rising_after(1), "image": rising_after(4), "text": rising_after(2)}, epochs=9
        )
        assert len(after) == 6
        assert run.state["stopped"] == {"audio": 3, "image": 6, "text": 4}
        assert method.stage(run, 6) is None

    def test_a_loss_that_is_never_finite_stops_its_modality_with_nothing_to_go_back_to(self):
        method = MSES(patience=2)
        run = built(method)
        after = live(method, run, {"audio": FALLING, "image": [math.nan] * 9, "text": FALLING}, epochs=4)
        assert equal(of("image", after[3]), of("image", after[1]))

    def test_stages_are_pure_and_tell_past_and_future_from_what_is_known(self):
        method = MSES()
        run = built(method)
        run.epochs = 4
        for _ in range(2):
            run.state["stopped"] = {"image": 2}
            found = [method.stage(run, k) for k in range(5)]
            some = frozenset({"audio", "text"})
            assert found == [*[Stage(1, modalities=frozenset(NAMES))] * 2, *[Stage(1, modalities=some)] * 2, None]

    def test_the_optimizer_is_kept_from_stage_to_stage(self):
        method = MSES(patience=1)
        run = built(method)
        optimizer = run.optimizer
        live(method, run, {"audio": FALLING, "image": rising_after(1), "text": FALLING}, epochs=4)
        assert run.optimizer is optimizer


class TestCode:
    def test_it_stops_one_epoch_later_and_on_the_two_tap_mean(self):
        method = MSES(**CODE, restore="none")
        run = built(method)
        # u of the image is 5, .6 5 + .4 1 = 3.4, .6 1 + .4 2 = 1.4, then .6 2 + .4 9 = 4.8, .6 9 + .4 9 = 9
        image = [5.0, 1.0, 2.0, 9.0, 9.0, 9.0]
        live(method, run, {"audio": FALLING, "image": image, "text": FALLING}, epochs=6)
        assert run.state["stopped"] == {"image": 5}
        raw = MSES(**CODE, restore="none", smoothing=0.0)
        run = built(raw)
        live(raw, run, {"audio": FALLING, "image": image, "text": FALLING}, epochs=6)
        assert run.state["stopped"] == {"image": 4}

    @pytest.mark.parametrize("fusion", LATE)
    def test_a_stop_takes_the_whole_model_and_the_optimizer_back(self, fusion):
        method = MSES(**CODE, smoothing=0.0)
        run = built(method, fusion)
        run.optimizer = torch.optim.Adam(run.network.parameter_groups(), lr=0.01)
        seen = []
        plain = MSES.epoch_end

        def listening(self, run, metrics):
            plain(self, run, metrics)
            seen.append(copy.deepcopy(run.optimizer.state_dict()["state"]))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MSES, "epoch_end", listening)
            after = live(method, run, {"audio": FALLING, "image": rising_after(2), "text": FALLING}, epochs=4)
        assert run.state["stopped"] == {"image": 4}
        assert equal(after[3], after[1])
        assert not equal(after[2], after[1])
        assert seen[3].keys() == seen[1].keys()
        for key, moments in seen[1].items():
            assert equal(seen[3][key], moments)
        assert not equal(seen[2][0], seen[1][0])

    def test_two_modalities_that_stop_together_go_back_to_the_same_epoch(self):
        method = MSES(**CODE, smoothing=0.0)
        run = built(method)
        after = live(method, run, {"audio": rising_after(2), "image": rising_after(2), "text": FALLING}, epochs=4)
        assert run.state["stopped"] == {"audio": 4, "image": 4}
        assert equal(after[3], after[1])

    def test_a_gradient_times_zero_does_not_hold_still_what_has_momentum_or_decay(self):
        for settings_, still in (({}, True), ({"momentum": 0.9}, False), ({"weight_decay": 0.1}, False)):
            method = MSES(patience=1, restore="none", mode="grad")
            run = built(method)
            run.optimizer = torch.optim.SGD(run.network.parameter_groups(), lr=0.1, **settings_)
            after = live(method, run, {"audio": FALLING, "image": rising_after(1), "text": FALLING}, epochs=4)
            assert equal(of("image", after[3]), of("image", after[1])) == still
            assert all(not p.grad.any() for p in parameters(run.network, "image"))
            assert all(p.grad.any() for p in parameters(run.network, "audio", ("head",)))

    def test_gradients_of_shared_layers_are_left_alone(self):
        for fusion in ("concat", "early"):
            method = MSES(patience=1, restore="none", mode="grad")
            run, plain = built(method, fusion), built(Uniform(), fusion)
            run.state["stopped"] = {"image": 1}
            method.gradients(run, batch())
            Uniform().gradients(plain, batch())
            for name, grad in gradients(run).items():
                if ".image." in name:
                    assert not grad.any()
                else:
                    close(grad, gradients(plain)[name])

    def test_parts_of_the_form_can_be_chosen_one_by_one(self):
        with_code = MSES(variant="code", restore="modality", mode="lr", smoothing=0.2, unimodal_loss=True)
        assert with_code._form() == (True, 0.2, "modality", "lr")
        assert MSES()._form() == (True, 0.0, "modality", "lr")
        assert MSES(variant="code")._form() == (False, 0.6, "model", "grad")
        found = config(method={"name": "mses", "restore": "none", "unimodal_loss": "false"}).method
        assert found["restore"] == "none"
        assert found["unimodal_loss"] is False
        assert found["mode"] is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"variant": "papre"}, r"Unknown variant 'papre'\. Did you mean 'paper'\?"),
        ({"restore": "modalty"}, r"Unknown restore 'modalty'\. Did you mean 'modality'\?"),
        ({"mode": "rate"}, "Unknown mode 'rate'"),
        ({"patience": 0}, "`patience` must be >= 1, received 0"),
        ({"smoothing": 1.0}, "`smoothing` must be >= 0 and < 1, received 1.0"),
    ],
)
def test_wrong_settings_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        MSES(**wrong)


def normalised_mlp(shape: Sequence[int]) -> Encoder:
    return Encoder([nn.Linear(shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8)], 8)


@pytest.fixture
def image_stops(monkeypatch):
    """The image's validation loss never falls again after epoch 1; its encoder normalises."""
    monkeypatch.setitem(encoders.ENCODERS, "mlp", normalised_mlp)
    evaluate = trainer.evaluate

    def with_level_image(*given, **more):
        found = evaluate(*given, **more)
        found["modalities"]["image"]["head_nll"] = 1.0
        return found

    monkeypatch.setattr(trainer, "evaluate", with_level_image)


def moved_since_epoch_one(folder, **method) -> set[str]:
    """Return which parts of a modality's encoder are others after four epochs than after one."""
    more = {"method": {"name": "mses", **method}, "schedule": "constant", "sharpness": MSAM}
    for name, epochs in (("first", 1), ("all", 4)):
        trained(folder / name, **more, epochs=epochs)
    first, last = (load_model(folder / name).state_dict() for name in ("first", "all"))
    moved = {key for key in of("image", first) if not torch.equal(first[key], last[key])}
    assert {key for key in of("audio", first) if not torch.equal(first[key], last[key])} == set(of("audio", first))
    return {key.rsplit(".", 1)[-1] for key in moved}


class TestRuns:
    def test_weights_and_statistics_of_a_stopped_encoder_are_those_of_its_best_epoch(self, tmp_path, image_stops):
        assert moved_since_epoch_one(tmp_path, patience=1) == set()

    def test_with_its_gradients_at_zero_they_go_on(self, tmp_path, image_stops):
        moved = moved_since_epoch_one(tmp_path, patience=1, mode="grad")
        assert moved == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}

    def test_the_record_says_who_has_stopped(self, tmp_path, image_stops):
        record = trained(tmp_path, method={"name": "mses", "patience": 1}, epochs=4)
        assert [line["method"]["coefficients"] for line in record.steps[::4]] == [[1, 1], [1, 1], [1, 0], [1, 0]]
        assert record.end["passes_per_step"] == pytest.approx(1 - 0.5 * 0.5 * 2 / 3, abs=1e-5)

    @pytest.mark.parametrize("method", [{"patience": 1}, CODE, {**CODE, "mode": "lr"}, {"patience": 1, "mode": "grad"}])
    def test_stopped_anywhere_it_goes_on_bit_for_bit_also_after_a_modality_has_stopped(
        self, method, tmp_path, image_stops
    ):
        more = {
            "method": {"name": "mses", **method},
            "sharpness": MSAM,
            "optimizer": {"name": "adam", "lr": 0.01},
            "schedule": {"name": "cosine"},
            "epochs": 5,
        }
        expected = trained(tmp_path / "undisturbed", **more)
        saved = checkpoint.load(tmp_path / "undisturbed" / "checkpoint.pt")
        assert saved["state"]["stopped"]["image"] == (3 if method.get("variant") else 2)
        wanted = settings(**more, checkpoint_every=3)
        for step in (3, 8, 9, 12, 13, 19):
            folder = tmp_path / str(step)
            with pytest.raises(KeyboardInterrupt):
                train(wanted, folder, watcher=StopAt(step))
            torch.manual_seed(step)  # another process would be anywhere
            resumed = train(wanted, folder, resume=True)
            assert resumed.end["weights"] == expected.end["weights"]
            for mine, other in zip(resumed.steps + resumed.epochs, expected.steps + expected.epochs, strict=True):
                assert without_volatile(mine) == without_volatile(other)


def a_stop_after_epoch_twenty_lasts(mode: str) -> None:
    method = MSES(patience=2, mode=mode)
    run = built(method)
    after = live(method, run, {"audio": FALLING, "image": rising_after(20), "text": FALLING}, epochs=25, count=1)
    assert run.state["stopped"] == {"image": 22}
    for epoch in (22, 23, 24, 25):
        assert equal(of("image", after[epoch - 1]), of("image", after[19])), f"epoch {epoch} moves it again"


both_modes = pytest.mark.parametrize("mode", ["lr", "grad"])


@both_modes
def test_a_stop_after_epoch_twenty_lasts(mode):
    a_stop_after_epoch_twenty_lasts(mode)


@both_modes
def test_the_planted_fault_of_a_stop_that_ends_with_a_window_of_twenty_epochs_is_caught(mode, monkeypatch):
    stage, modulate = MSES.stage, MSES.modulate

    def windowed_stage(self, run, k):
        found = stage(self, run, k)
        return found if found is None or k < 20 else Stage(found.epochs)

    def windowed_modulate(self, run, output, batch):
        if run.epoch <= 20:
            modulate(self, run, output, batch)

    monkeypatch.setattr(MSES, "stage", windowed_stage)
    monkeypatch.setattr(MSES, "modulate", windowed_modulate)
    with pytest.raises(AssertionError, match="epoch 23 moves it again"):
        a_stop_after_epoch_twenty_lasts(mode)
