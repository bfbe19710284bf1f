"""The loop: it learns, writes down what happened, and does what one would write by hand."""

import math

import pytest
import torch
from torch import nn

from msam import MSAM, data, models, shapley
from msam.data._loaders import shuffled
from msam.train import config, load_model, train
from msam.train.header import weights_digest
from tests.train._runs import MSAM as MSAM_RULE
from tests.train._runs import WORLD, Ear, settings, trained

RULES = [None, {"name": "sam", "rho": 0.2}, MSAM_RULE]
DIAL = {"name": "dial", "train_size": 300, "valid_size": 60, "test_size": 60, "bayes_samples": 10}


def by_hand(network, optimizer, rule, world, epochs: int, seed: int = 0) -> tuple[list[float], list[list[float]]]:
    """Train as the README shows it, and return losses and contributions."""
    losses, shares = [], []

    def criterion(logits, target):
        return nn.functional.cross_entropy(logits, target, reduction="none").mean()

    for epoch in range(epochs):
        network.train()
        for index in shuffled(world.train, 16, seed=seed, epoch=epoch):
            x = world.train[index]
            optimizer.zero_grad()
            output = network(x.inputs)
            loss = criterion(output.logits, x.target)
            loss.backward()
            losses.append(float(loss.detach()))
            logits = shapley.coalition_logits(network, output.features)
            contributions = shapley.contributions(logits, x.target)
            shares.append([round(share, 6) for share in contributions.tolist()])
            if rule is not None:
                with rule.perturbed(contributions):
                    criterion(network(x.inputs).logits, x.target).backward()
            optimizer.step()
    return losses, shares


@pytest.mark.parametrize("rule", RULES, ids=["none", "sam", "msam"])
def test_the_loss_falls_and_the_model_learns(tmp_path, rule):
    record = train(config(data=DIAL, epochs=4, batch_size=16, threads=1, sharpness=rule), tmp_path)
    losses = [line["loss"] for line in record.epochs]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2
    assert record.epochs[-1]["valid"]["accuracy"] > 0.5


@pytest.mark.parametrize("fusion", ["late", "maxout"])
@pytest.mark.parametrize("rule", [None, MSAM_RULE], ids=["none", "msam"])
def test_the_loop_equals_a_plain_loop_bit_for_bit(tmp_path, fusion, rule):
    options = {"hidden": [8]} if fusion == "maxout" else {}
    record = trained(tmp_path, fusion={"name": fusion, **options}, sharpness=rule)
    world = data.load(WORLD["name"])()
    torch.manual_seed(0)
    network = models.build(world.encoders, world.shapes, 3, fusion, **options)
    optimizer = torch.optim.SGD(network.parameter_groups(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    made = MSAM(optimizer, rho=0.2, model=network) if rule else None
    losses, shares = by_hand(network, optimizer, made, world, epochs=2)
    assert [line["loss"] for line in record.steps] == losses
    assert [line["contributions"] for line in record.steps] == shares
    assert record.end["weights"] == weights_digest(network)


@pytest.mark.parametrize("rule", RULES, ids=["none", "sam", "msam"])
@pytest.mark.parametrize("every", [1, 3])
def test_step_lines_say_what_happened(tmp_path, rule, every):
    record = trained(tmp_path, sharpness=rule, record_every=every)
    assert [line["step"] for line in record.steps] == list(range(1, 9, every))
    for line in record.steps:
        shares = line["contributions"]
        assert line["epoch"] == 1 + (line["step"] - 1) // 4
        assert all(share >= 0 for share in shares)
        assert math.isclose(sum(shares), 1, abs_tol=2e-6)
        assert line["dominant"] == ("audio", "image")[shares.index(max(shares))]
        if rule is None:
            assert line["share"] is None
            assert line["radius"] is None
        else:
            assert line["radius"] == 0.2
            assert math.isclose(line["share"], max(shares) if rule["name"] == "msam" else 1, abs_tol=1e-6)


def test_what_is_recorded_does_not_depend_on_how_often(tmp_path):
    often, seldom = (trained(tmp_path / str(n), sharpness=MSAM_RULE, record_every=n) for n in (1, 3))
    assert often.steps[::3] == seldom.steps
    assert often.end["weights"] == seldom.end["weights"]


def test_header_epochs_and_end(tmp_path):
    record = trained(tmp_path)
    header = record.header
    assert header["config"] == settings().model_dump()
    assert header["run"] == settings().run_name()
    assert header["modalities"] == ["audio", "image"]
    assert header["data"]["sizes"] == {"train": 64, "valid": 21, "test": 31}
    assert header["parameters"] == sum(p.numel() for p in load_model(tmp_path).parameters())
    assert [(line["epoch"], line["step"]) for line in record.epochs] == [(1, 4), (2, 8)]
    for number, line in enumerate(record.epochs):
        of_epoch = [step["loss"] for step in record.steps if step["epoch"] == number + 1]
        assert math.isclose(line["loss"], sum(of_epoch) / 4)
        assert {"train", "valid", "test"} <= set(line)
    assert record.epochs[0]["seconds"] < record.epochs[1]["seconds"] <= record.end["seconds"]
    assert (record.end["status"], record.end["epochs"], record.end["steps"]) == ("finished", 2, 8)


@pytest.mark.parametrize("rule", RULES, ids=["none", "sam", "msam"])
@pytest.mark.parametrize("fusion", [{"name": "late"}, {"name": "maxout", "hidden": [8]}], ids=["late", "maxout"])
def test_a_step_costs_one_pass_or_two(tmp_path, rule, fusion):
    record = trained(tmp_path, sharpness=rule, fusion=fusion)
    assert record.end["passes_per_step"] == (1 if rule is None else 2)


@pytest.mark.parametrize("rule", RULES, ids=["none", "sam", "msam"])
def test_batch_statistics_are_counted_once_a_step(tmp_path, rule):
    trained(tmp_path, sharpness=rule, fusion={"name": "maxout", "hidden": [8]})
    counted = [m.num_batches_tracked.item() for m in load_model(tmp_path).modules() if isinstance(m, nn.BatchNorm1d)]
    assert counted == [8, 8]


def test_a_rule_of_radius_zero_trains_as_the_plain_optimizer_in_one_pass(tmp_path):
    plain, still = (trained(tmp_path / n, sharpness=r) for n, r in (("a", None), ("b", MSAM_RULE | {"rho": 0})))
    assert plain.end["weights"] == still.end["weights"]
    assert still.end["passes_per_step"] == 1


def test_learning_rates_follow_the_schedule(tmp_path):
    record = trained(tmp_path, epochs=4, schedule={"name": "step", "at": 0.5}, optimizer={"lr": 0.04})
    assert [line["lr"] for line in record.epochs] == pytest.approx([0.04, 0.04, 0.004, 0.004])


def test_same_configuration_same_run_another_seed_another_run(tmp_path):
    first, second, other = (
        trained(tmp_path / str(n), seed=seed, fusion={"name": "maxout", "hidden": [8]})
        for n, seed in enumerate((0, 0, 1))
    )
    assert first.end["weights"] == second.end["weights"] != other.end["weights"]
    assert first.steps == second.steps


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
@pytest.mark.parametrize("method", ["joint", "uniform"])
def test_every_precision_trains(tmp_path, precision, method):
    record = trained(tmp_path, precision=precision, method=method, sharpness=MSAM_RULE)
    assert record.epochs[1]["loss"] < record.epochs[0]["loss"]
    network = load_model(tmp_path)
    wanted = torch.float64 if precision == "64-true" else torch.float32
    assert {p.dtype for p in network.parameters()} == {wanted}
    assert weights_digest(network) == record.end["weights"]


def test_a_watcher_hears_everything(tmp_path):
    ear = Ear()
    record = train(settings(sharpness=MSAM_RULE), tmp_path, watcher=ear)
    kinds = [kind for kind, _ in ear.heard]
    epoch = ["stepped"] * 4 + ["measured"]
    assert kinds == ["started", *epoch, *epoch, "finished"]
    assert ear.heard[0][1] == (settings(sharpness=MSAM_RULE).run_name(), 8, 0)
    heard = [what for kind, what in ear.heard if kind == "stepped"]
    assert heard == [(line["loss"], pytest.approx(line["share"])) for line in record.steps]
    assert [what for kind, what in ear.heard if kind == "measured"] == [1, 2]


def test_a_watcher_is_told_of_the_end_of_a_failed_run_too(tmp_path):
    ear = Ear()
    with pytest.raises(ValueError, match="NaN"):
        train(settings(data=WORLD | {"flaw": "nan"}), tmp_path, watcher=ear)
    assert ear.heard[-1] == ("finished", None)


def test_samples_that_lack_a_modality_train_and_the_model_of_one_finds_its_column(tmp_path):
    flawed = WORLD | {"flaw": "present"}
    both = trained(tmp_path / "both", data=flawed)
    assert both.epochs[-1]["valid"]["accuracy"] > 0.5
    alone = trained(tmp_path / "image", data=flawed, method={"name": "unimodal", "modality": "image"})
    assert alone.header["modalities"] == ["image"]
    assert alone.steps[0]["loss"] < 10  # what stands in place of absent images is large and was left out
    assert alone.steps[0]["contributions"] == [1.0]


def test_a_network_of_a_run_can_be_loaded_and_needs_one(tmp_path):
    trained(tmp_path / "run", method={"name": "unimodal", "modality": "image"})
    network = load_model(tmp_path / "run")
    assert network.modalities == ("image",)
    assert not network.training
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "nowhere")
