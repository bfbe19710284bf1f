"""Laws for every rule found in the folder: statistics, scalers, numbers that are none, what it reports and remembers."""

import copy
import inspect
import math

import pytest
import torch
from torch import nn

from msam import sharpness
from msam.sharpness import Sharpness
from tests.contract._methods import remembered
from tests.contract._rules import (
    RULES,
    SHARES,
    after_first_pass,
    data,
    gradients,
    loss_of,
    made,
    network,
    rule_for,
    same,
    weights,
)


@pytest.fixture(params=RULES)
def rule(request) -> Sharpness:
    return after_first_pass(request.param)


class TestNumbers:
    @pytest.mark.parametrize("momentum", [0.1, None])
    @pytest.mark.parametrize("name", RULES)
    def test_batch_norm_counts_a_step_once(self, name, momentum):
        model = network()
        model[1].momentum = momentum
        rule = rule_for(name, model)
        loss_of(model).backward()
        once = copy.deepcopy(model[1].state_dict())
        with rule.perturbed(SHARES):
            loss_of(model).backward()
        assert all(torch.equal(v, once[k]) for k, v in model[1].state_dict().items())
        assert model[1].num_batches_tracked == 1

    def test_the_second_pass_still_uses_batch_statistics(self, rule):
        rule.model[1].running_mean.fill_(100.0)
        with rule.perturbed(SHARES):
            again = loss_of(rule.model)
            again.backward()
        assert again < 5

    @pytest.mark.parametrize("name", RULES)
    def test_without_any_gradient_nothing_climbs_and_a_warning_says_why(self, name):
        model = network()
        rule = rule_for(name, model)
        theta = weights(model)
        with pytest.warns(UserWarning, match="without any gradient"), rule.perturbed(SHARES) as climbing:
            pass
        assert not climbing
        assert same(weights(model), theta)

    @pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
    def test_a_zero_or_non_finite_gradient_climbs_nowhere_and_stays_what_it_is(self, rule, value):
        for p in rule.model.parameters():
            p.grad.fill_(value)
        theta, first = weights(rule.model), gradients(rule.model)
        with rule.perturbed(SHARES) as climbing:
            loss_of(rule.model).backward()
        assert not climbing
        assert same(weights(rule.model), theta)
        assert all(a is b for a, b in zip(gradients(rule.model), first, strict=True))
        assert rule.last["radius"] == 0.0

    @pytest.mark.parametrize("overflow", [None, "first", "second"])
    @pytest.mark.parametrize("name", RULES)
    def test_a_grad_scaler_unscales_once_and_skips_overflows(self, name, overflow):
        results = []
        for scaled in (False, True):
            model = network().float()
            scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
            told = {"scaler": scaler} if "scaler" in inspect.signature(sharpness.load(name)).parameters else {}
            rule = made(name, torch.optim.SGD(model.parameters(), lr=0.1), 0.5, model=model, **told)

            def passed(model=model, scaler=scaler, bad=False):
                x, y = data()
                loss = scaler.scale(nn.functional.cross_entropy(model(x.float()), y))
                (loss * math.inf if bad else loss).backward()

            theta = weights(model)
            passed(bad=overflow == "first" and scaled)
            with rule.perturbed(SHARES) as climbing:
                if climbing:
                    passed(bad=overflow == "second" and scaled)
            scaler.step(rule.optimizer)
            scaler.update()
            if overflow and scaled:
                assert same(weights(model), theta)
            results.append(weights(model))
        if not overflow:
            for a, b in zip(*results, strict=True):
                torch.testing.assert_close(a, b)

    @pytest.mark.parametrize("name", RULES)
    def test_sparse_gradients_are_refused(self, name):
        table = nn.Embedding(4, 2, sparse=True)
        rule = sharpness.load(name)(torch.optim.SGD(table.parameters(), lr=0.1), 0.1)
        table(torch.tensor([1])).sum().backward()
        with pytest.raises(ValueError, match="sparse=False"), rule.perturbed(SHARES):
            pass

    def test_frozen_parameters_stay(self, rule):
        rule.model[0].weight.requires_grad_(False)
        rule.model.zero_grad()
        loss_of(rule.model).backward()
        frozen = rule.model[0].weight.clone()
        with rule.perturbed(SHARES):
            assert torch.equal(rule.model[0].weight, frozen)
            loss_of(rule.model).backward()
        assert rule.model[0].weight.grad is None

    @pytest.mark.parametrize("name", RULES)
    def test_the_monitor_reports_how_the_gradient_changed(self, name):
        model = network()
        rule = made(name, torch.optim.SGD(model.parameters(), lr=0.1), 0.5, model=model, monitor=1)
        loss_of(model).backward()
        a = torch.cat([g.clone().flatten() for g in gradients(model)])
        with rule.perturbed(SHARES):
            loss_of(model).backward()
            b = torch.cat([g.clone().flatten() for g in gradients(model)])
        assert rule.last["gradient_change"] == pytest.approx(float((b - a).norm() / a.norm()))
        assert rule.last["cosine"] == pytest.approx(float(a @ b / (a.norm() * b.norm())))

    @pytest.mark.parametrize("name", RULES)
    def test_what_a_rule_remembers_survives_a_round_trip(self, name):
        one, other = rule_for(name, network()), rule_for(name, network())
        loss_of(one.model).backward()
        with one.perturbed(SHARES):
            loss_of(one.model).backward()
        other.load_state_dict(one.state_dict())
        assert remembered(other.state_dict()) == remembered(one.state_dict())


class TestRunningStatistics:
    @pytest.mark.parametrize(
        "layer",
        [
            nn.BatchNorm1d(4),
            nn.BatchNorm2d(4, momentum=None),
            nn.BatchNorm1d(4, track_running_stats=False),
            nn.InstanceNorm1d(4, track_running_stats=True, affine=True),
            nn.InstanceNorm2d(4, track_running_stats=True, affine=True),
        ],
        ids=str,
    )
    def test_every_kind_is_updated_once_a_step_even_where_the_second_pass_breaks(self, rule, layer):
        model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(1))
        x = torch.randn(5, 4, 6, *[6] * ("2d" in type(layer).__name__), generator=torch.Generator().manual_seed(0))
        model(x)
        other = type(rule)(torch.optim.SGD(model.parameters(), lr=0.1), 0.5, model=model)
        model(x).sum().backward()
        once, flag = {k: v.clone() for k, v in layer.state_dict().items()}, layer.track_running_stats
        with other.perturbed(SHARES):
            model(x * math.inf)
            model(x).sum().backward()
        assert layer.track_running_stats is flag
        assert all(torch.equal(v, once[k]) for k, v in layer.state_dict().items())

    def test_frozen_statistics_stay_frozen_and_are_used(self, rule):
        layer = rule.model[1].eval()
        layer.running_mean.fill_(3.0)
        with rule.perturbed(SHARES):
            before = layer(torch.zeros(2, 8, dtype=torch.float64))
            loss_of(rule.model).backward()
        assert not layer.training
        assert (layer.running_mean == 3.0).all()
        assert (before.abs() > 1).any()
