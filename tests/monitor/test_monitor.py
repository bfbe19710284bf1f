"""A monitor tells what `shapley.contributions` tells, at every n-th step, and leaves no trace in what it looks at."""

import copy

import pytest
import torch
from torch import nn

import msam
from msam import loggers, shapley
from msam.models import adapt
from msam.monitor import lightning_hook
from tests.examples._by_hand import THIRD_PARTY


class Fused(nn.Module):
    """A model of another make: two inputs, dropout and statistics inside."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(2, 6)
        self.head = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 4))
        self.calls = 0

    def forward(self, sound, picture):
        self.calls += 1
        return self.head(torch.relu(self.a(sound) + self.b(picture)))


def multimodal():
    torch.manual_seed(0)
    encoders = {
        "sound": nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)),
        "picture": nn.Linear(2, 6),
    }
    return msam.MultimodalModel(encoders, msam.SumFusion({"sound": 6, "picture": 6}, 4))


def adapted():
    torch.manual_seed(0)
    return adapt(Fused(), {"sound": "sound", "picture": "picture"})


def batch(size=16, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = {"sound": torch.randn(size, 3, generator=g), "picture": torch.randn(size, 2, generator=g)}
    return x, torch.randint(4, (size,), generator=g)


def expected(model, x, y, value="probability"):
    model = copy.deepcopy(model).eval()
    if isinstance(model, msam.MultimodalModel):
        logits = shapley.coalition_logits(model, model.encode(x))
    else:
        logits = shapley.coalition_logits(model, x, absent="input")
    return shapley.contributions(logits, y, value=value).tolist()


@pytest.mark.parametrize("value", shapley.VALUES)
@pytest.mark.parametrize("make", [multimodal, adapted])
def test_it_sees_the_contributions_of_the_batch(make, value):
    model, (x, y) = make(), batch()
    seen = msam.Monitor(model, value=value, samples=16)(x, y)
    assert seen.contributions == pytest.approx(expected(model, x, y, value))
    assert (seen.step, seen.samples) == (1, 16)


def test_features_of_the_step_save_the_pass():
    model, (x, y) = multimodal(), batch()
    output = model(x)
    model.encoders["sound"].register_forward_hook(lambda *_: pytest.fail("an encoder ran"))
    seen = msam.Monitor(model)(None, y, features=output.features)
    logits = shapley.coalition_logits(model, output.features)
    assert seen.contributions == pytest.approx(shapley.contributions(logits, y).tolist())


@pytest.mark.parametrize("samples", [1, 3, 8])
def test_of_samples_with_segments_it_takes_whole_samples(samples):
    torch.manual_seed(0)
    encoders = {
        "a": nn.Sequential(nn.Linear(3, 4), nn.Flatten(0, 1)),
        "b": nn.Sequential(nn.Linear(2, 4), nn.Flatten(0, 1)),
    }
    model = msam.MultimodalModel(encoders, msam.SumFusion({"a": 4, "b": 4}, 5))
    x, y = {"a": torch.randn(8, 10, 3), "b": torch.randn(8, 10, 2)}, torch.randint(5, (80,))
    seen = msam.Monitor(model, samples=samples)(x, y)
    assert seen.samples == 10 * samples
    part = {name: value[:samples] for name, value in x.items()}
    assert seen.contributions == pytest.approx(expected(model, part, y[: 10 * samples]))


def test_it_looks_at_the_first_step_and_at_every_nth_after_it():
    monitor, (x, y) = msam.Monitor(multimodal(), every=3), batch()
    due = []
    for _ in range(8):
        due.append(monitor.due)
        assert (monitor(x, y) is not None) == due[-1]
    assert [seen.step for seen in monitor.history] == [1, 4, 7]
    assert monitor.step == 8


@pytest.mark.parametrize("make", [multimodal, adapted])
def test_a_look_leaves_no_trace(make):
    model, (x, y) = make().train(), batch()
    model(x).logits.sum().backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    state = torch.get_rng_state()
    msam.Monitor(model)(x, y)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))


@pytest.mark.parametrize("every", [10, 50, 200])
@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_passes_over_samples_stay_below_one_percent_of_a_loop_of_three_passes_a_step(every, modalities):
    names = [f"m{i}" for i in range(modalities)]
    seen_samples = []

    def model(inputs):
        seen_samples.append(len(inputs["m0"]))
        return sum(x[:, :4] for x in inputs.values())

    x = {name: torch.randn(256, 5) for name in names}
    monitor, steps = msam.Monitor(model, every=every), 3 * every
    for _ in range(steps):
        monitor(x, torch.zeros(256, dtype=torch.long))
    assert len(monitor.history) == 3
    assert 0 < sum(seen_samples) <= 0.01 * 3 * 256 * steps


def test_of_a_bare_callable_names_are_those_of_the_inputs():
    monitor = msam.Monitor(lambda inputs: inputs["a"][:, :4] * 3 + inputs["b"][:, :4])
    monitor({"a": torch.randn(8, 5), "b": torch.randn(8, 5)}, torch.zeros(8, dtype=torch.long))
    assert monitor.modalities == ("a", "b")
    restored = msam.Monitor(monitor.model)
    restored.load_state_dict(monitor.state_dict())
    assert restored.mean() == monitor.mean()
    assert str(restored) == str(monitor)


def test_means_and_dominance_are_those_of_the_looks():
    monitor = msam.Monitor(multimodal())
    assert str(monitor) == "no look yet"
    monitor.load_state_dict(
        {"step": 150, "history": [[1, [0.2, 0.8], 16], [51, [0.6, 0.4], 16], [101, [0.7, 0.3], 16]]}
    )
    assert monitor.mean() == pytest.approx({"sound": 0.5, "picture": 0.5})
    assert monitor.mean(last=2) == pytest.approx({"sound": 0.65, "picture": 0.35})
    assert monitor.dominance() == pytest.approx({"sound": 2 / 3, "picture": 1 / 3})
    assert str(monitor) == "sound 50% (dominates in 67%), picture 50% (dominates in 33%); 3 looks"


def test_a_resumed_monitor_goes_on_where_it_stopped():
    x, y = batch()
    monitor = msam.Monitor(multimodal(), every=4)
    for _ in range(6):
        monitor(x, y)
    other = msam.Monitor(multimodal(), every=4)
    other.load_state_dict(monitor.state_dict())
    assert [m(x, y) is not None for m in (monitor, other) for _ in range(3)] == [False, False, True] * 2
    assert monitor.history == other.history


class TestLabelsAndNumbers:
    """What the contributions of the task tell, whatever type its targets come in."""

    @pytest.mark.parametrize(
        ("target", "name"),
        [
            (torch.randn(16, 4), "regression"),
            (torch.randn(16, 4) > 0, "multi-label"),
            (torch.arange(16) % 4, "single-label"),
        ],
        ids=["numbers", "labels", "classes"],
    )
    def test_the_type_tells_the_task(self, target, name):
        x, _ = batch()
        model = multimodal().eval()
        seen = msam.Monitor(model)(x, target)
        logits = shapley.coalition_logits(model, model.encode(x))
        assert seen.contributions == pytest.approx(shapley.contributions(logits, target, task=name).tolist())

    @pytest.mark.parametrize("kind", [torch.bool, torch.long, torch.float32])
    def test_labels_may_be_bool_integers_or_floats_that_are_named(self, kind):
        x, _ = batch()
        labels = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)) > 0
        named = msam.Monitor(multimodal(), task="multi-label")(x, labels.to(kind))
        assert named == msam.Monitor(multimodal())(x, labels)

    def test_columns_of_classes_are_classes(self):
        x, y = batch()
        assert msam.Monitor(multimodal())(x, y.unsqueeze(1)) == msam.Monitor(multimodal())(x, y)

    def test_one_number_may_come_without_a_second_size(self):
        y = torch.randn(16)
        x = {"a": y.unsqueeze(1).clone(), "b": torch.randn(16, 1)}
        monitor = msam.Monitor(lambda inputs: 0.8 * inputs["a"] + 0.1 * inputs["b"])
        seen = monitor(x, y)
        assert seen == msam.Monitor(monitor.model)(x, y.unsqueeze(1))
        assert seen.contributions[0] > 0.9

    def test_the_whole_batch_tells_the_task_though_few_are_looked_at(self):
        x, _ = batch()
        numbers = torch.randn(16, 4)
        numbers[0] = torch.tensor([0.0, 1.0, 1.0, 0.0])
        assert msam.Monitor(multimodal(), samples=1)(x, numbers).samples == 1

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            (
                torch.tensor([[0.0, 1.0, 0.0, 1.0]] * 16),
                "nothing but 0 and 1. If they are labels, say task='multi-label'",
            ),
            (torch.full((16, 4), 2), r"must be 0 or 1, received \(16, 4\)"),
            (torch.full((16, 4), torch.nan), "must be finite; 16 of 16 rows"),
            (torch.randn(16, 3), r"of the shape of the logits for a regression, received \(16, 3\)"),
            (torch.full((16,), 4), "must lie in 0 to 3, as the model has 4 logits; found 4 to 4"),
            ([0] * 16, "must be a tensor, found list"),
        ],
        ids=["ambiguous", "labels", "NaN", "shape", "class", "list"],
    )
    def test_targets_that_do_not_fit_are_refused(self, target, said):
        with pytest.raises(ValueError, match=said):
            msam.Monitor(multimodal())(batch()[0], target)

    def test_an_unknown_task_is_refused(self):
        with pytest.raises(ValueError, match="Did you mean 'multi-label'"):
            msam.Monitor(multimodal(), task="multilabel")


class TestWhereItWrites:
    def test_a_function_gets_names_and_step(self):
        told = []
        monitor = msam.Monitor(multimodal(), log=lambda values, step: told.append((step, values)))
        seen = monitor(*batch())
        assert told == [
            (1, {"contribution/sound": seen.contributions[0], "contribution/picture": seen.contributions[1]})
        ]

    def test_tensorboard_by_name(self, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        x, y = batch()
        with loggers.Scalars("tensorboard", "mine", folder=tmp_path, config={"lr": 0.1}) as scalars:
            monitor = msam.Monitor(multimodal(), every=2, log=scalars)
            for _ in range(4):
                monitor(x, y)
        found = EventAccumulator(str(tmp_path / "tensorboard" / "mine")).Reload().Scalars("contribution/sound")
        assert [event.step for event in found] == [1, 3]
        assert [event.value for event in found] == pytest.approx([seen.contributions[0] for seen in monitor.history])

    def test_an_unknown_logger_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="tensorboard"):
            loggers.Scalars("tensorbord", "mine", folder=tmp_path)

    @pytest.mark.filterwarnings(*THIRD_PARTY)
    def test_lightnings_loggers(self):
        import pytorch_lightning as pl
        from pytorch_lightning.loggers import Logger

        class Lines(Logger):
            name, version = "lines", 0

            def __init__(self):
                super().__init__()
                self.told = []

            def log_metrics(self, metrics, step=None):
                self.told.append((step, metrics))

            def log_hyperparams(self, *_, **__):
                pass

        class Module(pl.LightningModule):
            def __init__(self):
                super().__init__()
                self.model = multimodal()

            def training_step(self, batch, _):
                return nn.functional.cross_entropy(self.model(batch[0]).logits, batch[1])

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)

        module, lines = Module(), Lines()
        monitor = msam.Monitor(module.model, every=2)
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=lines,
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            callbacks=[pl.callbacks.LambdaCallback(on_train_batch_end=lightning_hook(monitor))],
        )
        trainer.fit(
            module, torch.utils.data.DataLoader([batch(seed=i) for i in range(5)], batch_size=None, num_workers=0)
        )
        told = [(step, metrics) for step, metrics in lines.told if "contribution/sound" in metrics]
        assert [step for step, _ in told] == [1, 3, 5]
        assert told[0][1] == monitor.scalars(monitor.history[0])

    @pytest.mark.filterwarnings(*THIRD_PARTY)
    def test_the_trainer_of_transformers(self, tmp_path):
        from transformers import Trainer, TrainingArguments

        from msam.monitor.huggingface import MonitorCallback

        class WithLoss(Fused):
            def forward(self, sound, picture, labels=None):
                logits = super().forward(sound, picture)
                loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
                return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}

        model = WithLoss()
        x, y = batch(64)
        rows = [{"sound": x["sound"][i], "picture": x["picture"][i], "labels": y[i]} for i in range(64)]
        arguments = TrainingArguments(
            str(tmp_path), max_steps=8, per_device_train_batch_size=16, use_cpu=True, report_to="none",
            save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=rows)
        monitor = msam.Monitor(adapt(model, {"sound": "sound", "picture": "picture"}), every=3, samples=16)
        trainer.add_callback(MonitorCallback(trainer, monitor))
        trainer.train()
        told = [line for line in trainer.state.log_history if "contribution/sound" in line]
        assert [line["step"] for line in told] == [seen.step for seen in monitor.history] == [1, 4, 7]
        assert told[-1]["contribution/sound"] == pytest.approx(monitor.history[-1].contributions[0])


class TestRefusals:
    def test_numbers_and_words(self):
        with pytest.raises(ValueError, match="every"):
            msam.Monitor(multimodal(), every=0)
        with pytest.raises(ValueError, match="samples"):
            msam.Monitor(multimodal(), samples=0)
        with pytest.raises(ValueError, match="probability"):
            msam.Monitor(multimodal(), value="probabilty")
        with pytest.raises(ValueError, match="absent"):
            msam.Monitor(multimodal(), absent="inputs")

    def test_neither_inputs_nor_features(self):
        with pytest.raises(ValueError, match="neither"):
            msam.Monitor(multimodal())(None, batch()[1])

    def test_features_where_inputs_are_absent(self):
        with pytest.raises(ValueError, match="leaves out inputs"):
            msam.Monitor(adapted())(None, batch()[1], features={})

    def test_a_missing_modality(self):
        x, y = batch()
        with pytest.raises(ValueError, match="picture"):
            msam.Monitor(adapted())({"sound": x["sound"]}, y)

    def test_a_batch_of_a_trainer_whose_target_is_not_said(self):
        hook = lightning_hook(msam.Monitor(multimodal()))
        with pytest.raises(ValueError, match=r"received a mapping with \['picture', 'sound', 'y'\].*unpack="):
            hook(None, None, None, {**batch()[0], "y": batch()[1]}, 0)
