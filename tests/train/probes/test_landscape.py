"""The loss on a plane through the weights: right on a parabola, blind to scales that cancel, None where not finite."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from msam.train.probes import Study
from msam.train.probes.landscape import directions_of, measure
from tests.train.probes._models import batch, flat, halves, linear, network


def test_on_a_parabola_it_is_the_closed_form():
    model, data = linear(), batch()
    target = torch.linspace(-1, 1, 12, dtype=torch.float64)
    found = measure(Study(model, halves(data._replace(target=target), 5), seed=3), points=7)
    samples = torch.cat(list(data.inputs.values()), 1)
    weight, bias = model.fusion.linear.weight.detach(), model.fusion.linear.bias.detach()
    ((first, second),) = directions_of([weight], 3)
    residual = samples @ weight[0] + bias - target
    slope, hessian = 2 * samples.T @ residual / 12, 2 * samples.T @ samples / 12
    for i, x in enumerate(found["axis"]):
        for j, y in enumerate(found["axis"]):
            step = x * first[0] + y * second[0]
            wanted = (residual**2).mean() + slope @ step + step @ hessian @ step / 2
            assert found["losses"][i][j] == pytest.approx(float(wanted), rel=1e-4)
    assert found["axis"] == pytest.approx([-1, -2 / 3, -1 / 3, 0, 1 / 3, 2 / 3, 1])


def test_by_default_it_has_21_points_from_minus_one_to_one_and_five_digits():
    found = measure(Study(network(), [batch()], seed=5))
    assert (found["axis"][0], found["axis"][10], found["axis"][-1]) == (-1.0, 0.0, 1.0)
    assert [len(row) for row in found["losses"]] == [21] * 21
    assert found["seed"] == 5
    assert found["losses"][10][10] == float(f"{found['loss']:.5g}")
    assert all(value == float(f"{value:.5g}") for row in found["losses"] for value in row)


def test_a_direction_has_the_rows_lengths_of_the_weights():
    torch.manual_seed(0)
    weights = [torch.randn(4, 3), torch.randn(5, 2, 3, 3), torch.zeros(2, 2)]
    for weight, pair in zip(weights, directions_of(weights, 0), strict=True):
        for direction in pair:
            assert direction.shape == weight.shape
            assert torch.allclose(direction.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1), rtol=1e-5)


def test_the_two_directions_are_as_orthogonal_as_chance_makes_them():
    ((first, second),) = directions_of([torch.ones(1, 10_000)], 0)
    angle = float((first * second).sum() / first.norm() / second.norm())
    assert 0 < abs(angle) < 0.05


def test_the_same_seed_gives_the_same_plane_and_weights_behind_the_others_do_not_change_it():
    weights = [torch.ones(3, 2), torch.ones(2, 4)]
    once, again, other = (directions_of(weights, seed) for seed in (1, 1, 2))
    more = directions_of([*weights, torch.ones(2, 2)], 1)
    for a, b, c, d in zip(once, again, other, more[:2], strict=True):
        assert torch.equal(flat(a), flat(b))
        assert torch.equal(flat(a), flat(d))
        assert not torch.equal(flat(a), flat(c))


def test_biases_and_batch_norm_stay():
    model = network("maxout", hidden=(3,))  # BatchNorm, biases, weights
    study = Study(model, [batch()])
    rows = [p for p in study.parameters if p.dim() >= 2]
    for p in rows:
        p.data.zero_()  # of length zero: nothing is left that moves
    found = measure(study, points=3)
    assert len(rows) < len(study.parameters)
    assert {value for row in found["losses"] for value in row} == {float(f"{found['loss']:.5g}")}


@settings(max_examples=20)
@given(st.floats(0.01, 100.0))
def test_scales_of_layers_that_cancel_change_nothing(scale):
    def scaled(by: float):
        model = network(width=5)
        for name in model.modalities:
            layer = next(m for m in model.encoders[name].modules() if isinstance(m, nn.Linear))
            layer.bias.data.zero_()
            layer.weight.data.mul_(by)
            model.fusion.linear[name].weight.data.div_(by)
        return measure(Study(model, [batch()]), points=3)

    a, b = scaled(1.0), scaled(scale)
    for row, other in zip(a["losses"], b["losses"], strict=True):
        assert row == pytest.approx(other, rel=1e-4)


def test_where_the_loss_overflows_there_is_none():
    model = network(dtype=torch.float32)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1e20)
    found = measure(Study(model, [batch(dtype=torch.float32)]), points=3)
    values = [value for row in found["losses"] for value in row]
    assert None in values
    assert all(value is None or math.isfinite(value) for value in values)


def test_the_weights_are_back_bit_for_bit():
    model = network("maxout", hidden=(3,), dtype=torch.float32)
    study = Study(model, [batch(dtype=torch.float32)])
    before = [p.clone() for p in study.parameters]
    measure(study, points=3)
    assert all(torch.equal(a, b) for a, b in zip(before, study.parameters, strict=True))
