"""MSLR: factors on the learning rates of encoders and heads, and where they come from."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from torch import nn

from msam.data import TensorSplit
from msam.methods._gradients import parameters
from msam.methods.joint import Joint
from msam.methods.mslr import MSLR, ratio, smooth
from msam.record import without_volatile
from msam.train import config, metrics, train
from tests.methods._toys import CLASSES, EARLY, FOUR, LATE, NAMES, batch, built, close, gradients, model, steps
from tests.train._runs import MSAM, StopAt, settings, trained

every_fusion = pytest.mark.parametrize("fusion", [*LATE, *EARLY])
every_count = pytest.mark.parametrize("names", [FOUR[:2], FOUR[:3], FOUR])
RATES = (0.5, 2.0, 1.25, 0.75)
MAXOUT = {"name": "maxout", "hidden": [8]}
accuracy = st.floats(0.01, 1)


def with_factors(method: MSLR, run) -> None:
    """Set the rates of the toy's optimizer as the loop does at an epoch's begin."""
    for group in run.optimizer.param_groups:
        group["lr"] = 0.1 * method.rate(run, group)


class TestRatio:
    @how(deadline=None)
    @given(st.lists(accuracy, min_size=3, max_size=3), st.integers(1, 6), st.integers(0, 9))
    def test_constant_accuracy_gives_one(self, row, window, epochs):
        history = torch.tensor([row] * epochs, dtype=torch.float64).reshape(-1, 3)
        close(ratio(history, window), torch.ones(3, dtype=torch.float64))

    @how(deadline=None)
    @given(st.lists(st.lists(accuracy, min_size=2, max_size=2), max_size=5))
    def test_fewer_than_window_epochs_before_the_last_give_one(self, rows):
        history = torch.tensor(rows, dtype=torch.float64).reshape(-1, 2)
        assert torch.equal(ratio(history, 5), torch.ones(2, dtype=torch.float64))

    @how(deadline=None)
    @given(st.lists(st.lists(accuracy, min_size=2, max_size=2), min_size=2, max_size=9), st.data())
    def test_it_is_the_last_accuracy_over_the_mean_of_those_before_it(self, rows, data):
        window = data.draw(st.integers(1, len(rows) - 1))
        found = ratio(torch.tensor(rows, dtype=torch.float64), window)
        for m in range(2):
            before = [row[m] for row in rows[:-1]][-window:]
            assert len(before) == window
            close(float(found[m]), rows[-1][m] * window / math.fsum(before))

    @how(deadline=None)
    @given(st.lists(st.lists(accuracy, min_size=2, max_size=2), min_size=4, max_size=4), st.floats(0.1, 10))
    def test_modalities_do_not_meet_and_scales_do_not_matter(self, rows, scale):
        history = torch.tensor(rows, dtype=torch.float64)
        scaled = history * torch.tensor([scale, 1.0], dtype=torch.float64)
        close(ratio(scaled, 3), ratio(history, 3), 1e-9)

    def test_nothing_to_compare_with_gives_one(self):
        assert ratio(torch.tensor([[0.0, 0.5], [0.3, 1.0]]), 1).tolist() == [1.0, 2.0]


class TestSmooth:
    rates = st.lists(st.floats(0.05, 20), min_size=2, max_size=4)

    @how(deadline=None)
    @given(rates, st.floats(0, 1))
    def test_the_geometric_mean_stays_and_ratios_shrink_to_a_power(self, rates, s):
        c = torch.tensor(rates, dtype=torch.float64)
        found = smooth(c, s)
        close(found.log().mean(), c.log().mean(), 1e-10)
        close(found / found[0], (c / c[0]) ** (1 - s), 1e-8)

    @how(deadline=None)
    @given(rates)
    def test_at_zero_they_are_kept_and_at_one_all_are_the_mean(self, rates):
        c = torch.tensor(rates, dtype=torch.float64)
        close(smooth(c, 0.0), c, 1e-11)
        close(smooth(c, 1.0), torch.full_like(c, math.prod(rates) ** (1 / len(rates))), 1e-10)


def definition(network: nn.Module, factors: list[float], names: tuple[str, ...], count: int) -> nn.Module:
    """Return plain SGD steps by hand in which each modality's own parameters have a rate of their own."""
    for number in range(count):
        x = batch(number, names=names)
        loss = nn.functional.cross_entropy(network(x.inputs).logits, x.target)
        keys, tensors = zip(*network.named_parameters(), strict=True)
        with torch.no_grad():
            for key, p, g in zip(keys, tensors, torch.autograd.grad(loss, tensors), strict=True):
                owner = [m for m, name in enumerate(names) if f".{name}." in key]
                p -= 0.1 * (factors[owner[0]] if owner else 1.0) * g
    return network


class TestSteps:
    @every_fusion
    @every_count
    @pytest.mark.parametrize("mode", ["lr", "grad"])
    def test_they_are_the_slow_edition_in_every_weight(self, fusion, names, mode):
        history = [[0.2, 0.5, 0.4, 0.1][: len(names)], [0.4, 0.5, 0.1, 0.3][: len(names)]]
        method = MSLR(rates=RATES[: len(names)], window=1, mode=mode)
        run, by_hand = (built(method, fusion, names=names) for _ in range(2))
        run.state["accuracies"] = history
        with_factors(method, run)
        torch.manual_seed(1)
        steps(method, run, 3, names)
        factors = [0.5 * 2, 2.0 * 1, 1.25 * 0.25, 0.75 * 3][: len(names)]
        torch.manual_seed(1)
        definition(by_hand.network, factors, names, 3)
        assert run.notes["coefficients"] == pytest.approx(factors)
        for key, value in by_hand.network.state_dict().items():
            close(run.network.state_dict()[key], value, 1e-10)

    @every_fusion
    def test_gradients_of_encoders_and_own_heads_are_touched_and_no_other(self, fusion):
        method = MSLR(strategy="keep", rates=RATES[:3], mode="grad")
        run, joint = built(method, fusion), built(Joint(), fusion)
        for m, r in ((method, run), (Joint(), joint)):
            torch.manual_seed(1)
            m.gradients(r, batch())
        touched = set()
        for key, grad in gradients(run).items():
            factor = next((c for name, c in zip(NAMES, RATES, strict=False) if f".{name}." in key), 1.0)
            close(grad, factor * gradients(joint)[key])
            touched |= {key.split(".")[0]} if factor != 1.0 else set()
        assert touched == ({"encoders", "fusion"} if fusion == "late" else {"encoders"})

    def test_in_mode_lr_gradients_are_those_of_joint_training(self):
        method = MSLR(strategy="keep", rates=RATES[:3])
        run, joint = built(method), built(Joint())
        for m, r in ((method, run), (Joint(), joint)):
            m.gradients(r, batch())
        for key, grad in gradients(run).items():
            assert torch.equal(grad, gradients(joint)[key])
        assert MSLR(strategy="keep", rates=RATES[:3], mode="grad").rate(run, run.optimizer.param_groups[0]) == 1.0

    def test_weight_decay_feels_a_rate_and_not_a_gradients_factor(self):
        moved = {}
        for mode in ("lr", "grad"):
            method = MSLR(strategy="keep", rates=(0.5, 1.0, 1.0), mode=mode)
            run = built(method)
            run.optimizer = torch.optim.SGD(run.network.parameter_groups(), lr=0.1, weight_decay=0.3)
            p = parameters(run.network, "audio")[0]
            before = p.detach().clone()
            with_factors(method, run)
            steps(method, run, 1)
            moved[mode] = (before - p.detach(), before)
            grad = p.grad if mode == "lr" else 2 * p.grad
            decay = 0.5 if mode == "lr" else 1.0
            close(moved[mode][0], 0.1 * (0.5 * grad + decay * 0.3 * before))

    def test_adam_divides_a_gradients_factor_away_and_keeps_a_rates(self):
        ends = {}
        for mode, rates in (("lr", ()), ("lr", (0.5, 1.0, 1.0)), ("grad", (0.5, 1.0, 1.0))):
            method = MSLR(strategy="keep", rates=rates, mode=mode)
            run = built(method)
            run.optimizer = torch.optim.Adam(run.network.parameter_groups(), lr=0.1, eps=1e-30)
            with_factors(method, run)
            steps(method, run, 1)
            ends[mode, rates] = parameters(run.network, "audio")[1].detach()
        start = parameters(built(Joint()).network, "audio")[1].detach()
        whole = ends["lr", ()] - start
        close(ends["lr", (0.5, 1.0, 1.0)] - start, 0.5 * whole)
        close(ends["grad", (0.5, 1.0, 1.0)] - start, whole, 1e-10)


class TestStrategies:
    def test_keep_is_the_factors_as_given(self):
        run = built(MSLR(strategy="keep", rates=RATES[:3]))
        run.state["accuracies"] = [[0.1, 0.1, 0.1]] * 5 + [[0.5, 0.5, 0.5]]
        assert list(MSLR(strategy="keep", rates=RATES[:3])._factors(run).values()) == list(RATES[:3])

    def test_smooth_is_half_way_to_their_geometric_mean(self):
        method = MSLR(strategy="smooth", rates=(1.0, 16.0, 4.0))
        assert list(method._factors(built(method)).values()) == pytest.approx([2.0, 8.0, 4.0])

    @pytest.mark.parametrize("strategy", ["keep", "smooth"])
    def test_keep_and_smooth_without_rates_are_joint_training(self, strategy):
        run, joint = built(MSLR(strategy=strategy)), built(Joint())
        for method, r in ((MSLR(strategy=strategy), run), (Joint(), joint)):
            if r is run:
                with_factors(method, r)
            steps(method, r)
        for key, value in joint.network.state_dict().items():
            assert torch.equal(run.network.state_dict()[key], value)

    def test_dynamic_ratios_do_not_pile_up_and_forget_what_is_older_than_the_window(self):
        method = MSLR(window=2)
        run = built(method)
        heard = []
        for accuracies in ([0.9, 0.1], [0.2, 0.2], [0.4, 0.2], [0.6, 0.2], [0.5, 0.4]):
            row = [*accuracies, 0.5]
            found = {n: {"head": a, "shapley": 0.0} for n, a in zip(NAMES, row, strict=True)}
            method.epoch_end(run, {"modalities": found})
            heard.append(list(method._factors(run).values()))
        assert heard[0] == heard[1] == [1.0, 1.0, 1.0]
        assert heard[2] == pytest.approx([0.4 / 0.55, 0.2 / 0.15, 1.0])
        assert heard[3] == pytest.approx([0.6 / 0.3, 1.0, 1.0])
        assert heard[4] == pytest.approx([0.5 / 0.5, 0.4 / 0.2, 1.0])
        assert len(run.state["accuracies"]) == 3

    @pytest.mark.parametrize("mode", ["lr", "grad"])
    @pytest.mark.parametrize(("epoch", "inside"), [(1, False), (2, True), (3, True), (4, False)])
    def test_outside_its_window_of_epochs_it_is_joint_training(self, mode, epoch, inside):
        method = MSLR(rates=RATES[:3], window=1, mode=mode, first_epoch=2, last_epoch=3)
        run, joint = built(method), built(Joint())
        run.state["accuracies"] = [[0.2, 0.5, 0.4], [0.4, 0.5, 0.1]]
        run.epoch = epoch
        with_factors(method, run)
        steps(method, run)
        steps(Joint(), joint)
        for name in NAMES:
            mine, plain = (parameters(r.network, name) for r in (run, joint))
            assert all(torch.equal(a, b) for a, b in zip(mine, plain, strict=True)) != inside
        assert (run.notes["coefficients"] == [1.0, 1.0, 1.0]) != inside

    def test_the_last_epoch_is_open_by_default(self):
        method = MSLR(strategy="keep", rates=RATES[:3])
        run = built(method)
        run.epoch = 1000
        assert list(method._factors(run).values()) == list(RATES[:3])


class TestRuns:
    @pytest.mark.parametrize(
        ("fusion", "kind"), [({"name": "late"}, "head"), ({"name": "concat"}, "head"), (MAXOUT, "shapley")]
    )
    def test_factors_follow_the_recorded_validation_accuracies_of_the_epochs_before(self, fusion, kind, tmp_path):
        record = trained(
            tmp_path, method={"name": "mslr", "window": 2}, fusion=fusion, epochs=6, optimizer={"lr": 0.01}
        )
        history = [[m[kind] for m in line["valid"]["modalities"].values()] for line in record.epochs]
        for epoch in range(1, 7):
            noted = {tuple(s["method"]["coefficients"]) for s in record.steps if s["epoch"] == epoch}
            wanted = ratio(torch.tensor(history[: epoch - 1], dtype=torch.float64).reshape(-1, 2), 2)
            assert noted == {tuple(round(v, 6) for v in wanted.tolist())}
        assert len({tuple(s["method"]["coefficients"]) for s in record.steps}) > 2

    def test_the_rates_are_those_of_the_schedule_times_the_factors(self, tmp_path, monkeypatch):
        heard = []
        plain = MSLR.modulate

        def listening(self, run, output, batch):
            heard.append({(g["role"], g["modality"]): g["lr"] for g in run.optimizer.param_groups})
            plain(self, run, output, batch)

        monkeypatch.setattr(MSLR, "modulate", listening)
        trained(
            tmp_path,
            method={"name": "mslr", "strategy": "keep", "rates": [0.5, 2.0]},
            fusion={"name": "concat"},
            optimizer={"lr": 0.2},
            schedule={"name": "step", "at": 0.5, "gamma": 0.1},
        )
        first = {("encoder", "audio"): 0.1, ("encoder", "image"): 0.4, ("fusion", None): 0.2}
        assert heard[0] == pytest.approx(first)
        assert heard[-1] == pytest.approx({key: value / 10 for key, value in first.items()})

    @pytest.mark.parametrize("mode", ["lr", "grad"])
    @pytest.mark.parametrize("fusion", [{"name": "late"}, MAXOUT])
    def test_stopped_anywhere_it_goes_on_bit_for_bit_also_while_ratios_act(self, mode, fusion, tmp_path):
        more = {
            "method": {"name": "mslr", "window": 1, "mode": mode},
            "fusion": fusion,
            "sharpness": MSAM,
            "schedule": {"name": "cosine"},
            "epochs": 5,
        }
        expected = trained(tmp_path / "undisturbed", **more)
        assert len({tuple(s["method"]["coefficients"]) for s in expected.steps}) > 1
        wanted = settings(**more, checkpoint_every=3)
        for step in (5, 9, 12, 13, 18):
            folder = tmp_path / str(step)
            with pytest.raises(KeyboardInterrupt):
                train(wanted, folder, watcher=StopAt(step))
            resumed = train(wanted, folder, resume=True)
            assert resumed.end["weights"] == expected.end["weights"]
            for mine, other in zip(resumed.steps + resumed.epochs, expected.steps + expected.epochs, strict=True):
                assert without_volatile(mine) == without_volatile(other)


class TestErrors:
    @pytest.mark.parametrize("rates", [(1.0,), (1.0, 1.0), RATES])
    def test_rates_are_one_for_each_modality(self, rates):
        with pytest.raises(ValueError, match=rf"\['audio', 'image', 'text'\], received {len(rates)}: .*`method.rates`"):
            MSLR(rates=rates).build(model(), CLASSES)
        MSLR(rates=RATES[:3]).build(model(), CLASSES)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"rates": (1.0, 0.0)}, "`rates` must be > 0.*, received 0.0"),
            ({"rates": (1.0, math.inf)}, "`rates` must be .*received inf"),
            ({"strategy": "dinamic"}, r"Unknown strategy 'dinamic'\. Did you mean 'dynamic'\?"),
            ({"mode": "gard"}, r"Unknown mode 'gard'\. Did you mean 'grad'\?"),
            ({"window": 0}, "`window` must be >= 1, received 0"),
            ({"smoothing": 1.5}, "`smoothing` must be >= 0 and <= 1, received 1.5"),
        ],
    )
    def test_wrong_settings_are_refused(self, wrong, said):
        with pytest.raises(ValueError, match=said):
            MSLR(**wrong)

    def test_rates_are_written_with_commas_on_the_command_line(self):
        assert config(method={"name": "mslr", "rates": "0.9,1.1"}).method["rates"] == [0.9, 1.1]


class Reading(nn.Module):
    """An encoder whose feature is the class that its input says."""

    def forward(self, x):
        return nn.functional.one_hot(x, CLASSES).double()


def measured(audio_right: int, image_right: int) -> dict:
    """Return the measures of a model that reads two modalities, which are right on the first and the last of 12 samples."""
    network = model(names=("audio", "image"))
    for name in network.modalities:
        network.encoders[name] = Reading()
        layer = network.fusion.linear[name] = nn.Linear(CLASSES, CLASSES, bias=False).double()
        nn.init.eye_(layer.weight)
    target = torch.arange(12) % CLASSES
    right = {"audio": torch.arange(12) < audio_right, "image": torch.arange(12) >= 12 - image_right}
    inputs = {name: torch.where(where, target, (target + 1) % CLASSES) for name, where in right.items()}
    return metrics.evaluate(network, TensorSplit(inputs, target))


def each_modality_follows_its_own_accuracy() -> None:
    method = MSLR(window=1)
    run = built(method, names=("audio", "image"))
    for counts in ((3, 8), (9, 4)):
        method.epoch_end(run, measured(*counts))
    assert list(method._factors(run).values()) == pytest.approx([9 / 3, 4 / 8])


def test_each_modality_follows_its_own_accuracy():
    each_modality_follows_its_own_accuracy()


def test_the_planted_fault_of_audio_counted_where_the_picture_is_correct_is_caught(monkeypatch):
    evaluate = metrics.evaluate

    def in_the_wrong_branch(network, split):
        found = evaluate(network, split)
        batch = split[range(len(split))]
        heads = network.head_logits(network.encode(batch.inputs))
        correct = {"audio": 0, "image": 0}
        for b, y in enumerate(batch.target):
            if heads["image"][b].argmax() == y:
                correct["image"] += 1
                correct["audio"] += 1
        for name, count in correct.items():
            found["modalities"][name]["head"] = count / len(split)
        return found

    monkeypatch.setattr(metrics, "evaluate", in_the_wrong_branch)
    with pytest.raises(AssertionError):
        each_modality_follows_its_own_accuracy()
