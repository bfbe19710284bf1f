"""The measures of labels and of numbers against counts made by hand and definitions spelled out."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msam import data, models, tasks
from msam.data import TensorSplit
from msam.train import config, evaluate, train
from msam.train._measures import average_precision, exact_match, label_f1, mae, measured, r2, rmse


def labelled(seed: int, rows: int = 12, labels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-3, 4, (rows, labels), generator=generator).double() + 0.5  # with ties
    return logits, torch.rand(rows, labels, generator=generator) < 0.4


def test_a_table_of_labels_one_can_check_with_a_pencil():
    logits = torch.tensor([[2.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    target = torch.tensor([[True, False], [False, True], [True, False]])
    found = measured(tasks.load("multi-label"), logits, target)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert found["macro_f1"] == pytest.approx((2 * 1 / (2 + 1 + 1) + 1) / 2)
    assert found["average_precision"] == pytest.approx(((1 / 1 + 2 / 3) / 2 + 1) / 2)
    assert found["nll"] == pytest.approx(
        sum(math.log(1 + math.exp(-s)) for s in (2, 1, -1, 1, -1, 1)) / 6,
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_average_precision_is_the_precision_where_recall_grows(seed):
    logits, target = labelled(seed)
    found = []
    for z, y in zip(logits.T, target.T, strict=True):
        recall, area = 0.0, 0.0
        for threshold in sorted(set(z.tolist()), reverse=True):
            chosen = z >= threshold
            precision, now = float(y[chosen].double().mean()), float((chosen & y).sum() / max(y.sum(), 1))
            area, recall = area + (now - recall) * precision, now
        found += [area] if y.any() else []
    mine = average_precision(logits, target)
    assert mine == pytest.approx(sum(found) / len(found)) if found else math.isnan(mine)


def test_labels_that_are_nowhere_are_left_out_of_means():
    logits, target = torch.tensor([[1.0, -1.0], [-1.0, -1.0]]), torch.tensor([[True, False], [False, False]])
    assert label_f1(logits, target) == 1
    assert average_precision(logits, target) == 1
    assert exact_match(logits, target) == 1


def test_a_table_of_numbers_one_can_check_with_a_pencil():
    y, z = torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([[2.0], [2.0], [4.0]])
    assert r2(z, y) == pytest.approx(1 - 5 / 14)
    assert rmse(z, y) == pytest.approx(math.sqrt(5 / 3))
    assert mae(z, y) == pytest.approx(1)
    assert measured(tasks.load("regression"), z, y)["nll"] == pytest.approx(5 / 6)


def test_the_mean_as_answer_has_an_r2_of_0_and_what_does_not_vary_has_none():
    y = torch.randn(20, 2)
    assert r2(y.mean(0).expand(20, 2), y) == pytest.approx(0, abs=1e-6)
    assert math.isnan(r2(torch.zeros(3, 1), torch.ones(3, 1)))


@torch.no_grad()
@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_modalities_are_measured_in_the_tasks_own_measure(task):
    torch.manual_seed(0)
    x, y = {"a": torch.randn(30, 2), "b": torch.randn(30, 2)}, torch.randn(30, 2)
    target = y if task == "regression" else y > 0
    net = models.MultimodalModel(dict.fromkeys(x, torch.nn.Identity()), models.SumFusion({"a": 2, "b": 2}, 2))
    found = evaluate(net, TensorSplit(x, target))
    kind = tasks.load(task)
    for name in x:
        alone = net.fuse({n: v if n == name else torch.zeros_like(v) for n, v in x.items()})
        assert found["modalities"][name]["zeroed"] == pytest.approx(
            measured(kind, alone, target)[kind.measure], abs=1e-6
        )
        own = net.head_logits(x)[name]
        assert found["modalities"][name]["head_nll"] == pytest.approx(measured(kind, own, target)["nll"], abs=1e-6)
    assert found[kind.measure] == pytest.approx(measured(kind, net(x).logits, target)[kind.measure], abs=1e-6)


def test_labels_as_floats_are_asked_about_and_taken_where_the_task_is_said():
    net = models.MultimodalModel({"a": torch.nn.Identity()}, models.SumFusion({"a": 2}, 2))
    split = TensorSplit({"a": torch.randn(6, 2)}, torch.tensor([[1.0, 0.0]]).repeat(6, 1))
    with pytest.raises(ValueError, match="task='multi-label'"):
        evaluate(net, split)
    assert 0 <= evaluate(net, split, task="multi-label")["exact_match"] <= 1


def with_a_gap(where: str):
    """Return the dial's numbers, of which one is not known."""
    world = data.load("dial")(train_size=64, valid_size=32, test_size=32, bayes_samples=50, task="regression")
    part = getattr(world, where)
    target = part.target.clone()
    target[5] = math.nan
    return replace(world, **{where: replace(part, target=target)})


@pytest.mark.parametrize("where", ["train", "valid"])
def test_numbers_that_are_not_known_are_blamed_on_the_data(where, tmp_path, monkeypatch):
    monkeypatch.setattr("msam.train.parts.dataset", lambda _: with_a_gap(where))
    with pytest.raises(ValueError, match="The target holds 1 values that are NaN or infinite"):
        train(config(data="dial", epochs=1), tmp_path)
