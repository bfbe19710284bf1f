"""M-SAM that climbs in the dominant modality alone: now it matters who dominates, and the others run once."""

import copy
import math

import pytest
import torch
from torch import nn

import msam
from msam.sharpness import _perturb
from tests.definitions import msam_options
from tests.sharpness._flat import close, flat, gradient_of, spent
from tests.sharpness._modal import (
    NAMES,
    SHARES,
    batch,
    by_block,
    in_one_call,
    losses,
    members,
    model_of,
    rule_of,
)

RHO = 0.4
SCOPES = ("dominant", "dominant+fusion")
scopes = pytest.mark.parametrize("scope", SCOPES)
fusions = pytest.mark.parametrize("fusion", ["sum", "concat", "maxout"])


@pytest.mark.parametrize("modalities", [2, 3])
@fusions
@pytest.mark.parametrize("scope", ["all", *SCOPES])
def test_a_block_equals_the_slow_edition(scope, fusion, modalities):
    model = model_of(fusion, modalities)
    rule, slow = rule_of(model, scope=scope), model_of(fusion, modalities)
    theta = nn.Parameter(flat(slow))
    optimizer = torch.optim.SGD([theta], lr=0.1, momentum=0.9, weight_decay=1e-2)
    for t in range(3):
        shares = SHARES[modalities][t:] + SHARES[modalities][:t]
        dominant = shares.index(max(shares))
        x, y = batch(t)
        by_block(rule, shares, t)
        rule.optimizer.step()
        theta.grad = msam_options.scoped(
            gradient_of(slow, lambda forward, x=x, y=y: losses(forward(x), y).mean()),
            theta.detach(),
            members(slow, fusion, scope, NAMES[dominant]),
            RHO,
            max(shares),
        )
        optimizer.step()
        close(flat(model), theta.detach())


@fusions
@scopes
def test_it_matters_who_dominates(scope, fusion):
    found = []
    for shares in ([0.7, 0.3], [0.3, 0.7]):
        rule = rule_of(model_of(fusion), scope=scope)
        by_block(rule, shares)
        found.append(spent(rule.model))
    assert float((found[0] - found[1]).norm()) > 1e-3


@scopes
def test_a_tie_goes_to_the_first_modality(scope):
    found = []
    for shares in ([0.5, 0.5], [0.5 + 1e-9, 0.5 - 1e-9]):
        rule = rule_of(model_of("sum"), scope=scope)
        in_one_call(rule, shares)
        found.append(spent(rule.model))
    close(*found, atol=1e-8)


class TestOneCall:
    """`backward()`, where encoders that do not climb run once."""

    @pytest.mark.parametrize("modalities", [2, 3])
    @pytest.mark.parametrize("fusion", ["sum", "concat", "maxout", "normalised maxout"])
    @pytest.mark.parametrize(
        "options", [{}, {"share": "one"}, {"share": 0.25, "compensate": True}, {"contributions_every": 2}], ids=str
    )
    @scopes
    def test_it_equals_the_block_step_after_step_statistics_included(self, scope, options, fusion, modalities):
        rules = [rule_of(model_of(fusion, modalities), scope=scope, **options) for _ in range(2)]
        for t in range(3):
            shares = None if options.get("contributions_every") and t % 2 else SHARES[modalities]
            for rule, form in zip(rules, (by_block, in_one_call), strict=True):
                form(rule, shares, t)
                rule.optimizer.step()
            close(*[spent(rule.model) for rule in rules])
        for mine, other in zip(*[rule.model.buffers() for rule in rules], strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
        assert rules[0].last == pytest.approx(rules[1].last)

    @fusions
    @scopes
    def test_encoders_that_do_not_climb_go_forward_and_back_once(self, scope, fusion):
        rule = rule_of(model_of(fusion, 3), scope=scope)
        forth, back = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0)

        def count(name, feature):
            forth[name] += 1
            feature.register_hook(lambda _: back.update({name: back[name] + 1}))

        for name, encoder in rule.model.encoders.items():
            encoder.register_forward_hook(lambda _m, _x, feature, name=name: count(name, feature))
        in_one_call(rule, [0.2, 0.5, 0.3])
        assert forth == back == {"audio": 1, "image": 2, "text": 1}

    @scopes
    def test_samples_that_lack_a_modality_are_given_zeros_in_both_passes(self, scope):
        present = torch.ones(10, 3, dtype=torch.bool)
        present[::2, 1] = present[::3, 0] = False
        found = []
        for form in (by_block, in_one_call):
            rule = rule_of(model_of("maxout", 3), scope=scope)
            form(rule, SHARES[3], present=present)
            found.append(spent(rule.model))
        close(*found)
        rule = rule_of(model_of("maxout", 3), scope=scope)
        in_one_call(rule, SHARES[3])
        assert not torch.allclose(spent(rule.model), found[0])

    @pytest.mark.parametrize("frozen", ["encoders.image", "encoders.audio", "fusion"])
    @scopes
    def test_frozen_parts_stay_without_gradient(self, scope, frozen):
        found = []
        for form in (by_block, in_one_call):
            rule = rule_of(model_of("concat", 3), scope=scope)
            rule.model.get_submodule(frozen).requires_grad_(False)
            form(rule, SHARES[3])
            assert all(p.grad is None for p in rule.model.get_submodule(frozen).parameters())
            found.append(spent(rule.model))
            climbs = frozen != "encoders.image" or scope == "dominant+fusion"
            assert rule.last["radius"] == (RHO if climbs else 0.0)
        close(*found)

    @pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt()], ids=repr)
    @scopes
    def test_after_an_exception_weights_are_back_and_every_gradient_is_the_plain_one(self, scope, error):
        rule = rule_of(model_of("maxout", 3), scope=scope)
        theta, twin, calls = flat(rule.model), copy.deepcopy(rule.model), []
        x, y = batch()
        losses(twin(x), y).mean().backward()

        def failing(output, target):
            calls.append(1)
            if len(calls) == 2:
                raise error
            return losses(output, target)

        with pytest.raises(type(error)):
            in_one_call(rule, SHARES[3], loss=failing)
        assert torch.equal(flat(rule.model), theta)
        close(spent(rule.model), spent(twin))
        assert all(m.track_running_stats for m in rule.model.modules() if isinstance(m, nn.BatchNorm1d))
        in_one_call(rule, SHARES[3])
        assert not torch.allclose(spent(rule.model), spent(twin))

    @pytest.mark.parametrize("when", [1, 2])
    @scopes
    def test_a_gradient_that_is_not_finite_reaches_the_scaler_but_not_the_weights(self, scope, when):
        rule, calls = rule_of(model_of("maxout"), scope=scope), []
        theta = flat(rule.model)

        def bad(output, target):
            calls.append(1)
            return losses(output, target) * (math.nan if len(calls) == when else 1.0)

        in_one_call(rule, SHARES[2], loss=bad)
        assert torch.equal(flat(rule.model), theta)
        assert len(calls) == when
        for encoder in rule.model.encoders.values():
            assert not encoder[0].weight.grad.isfinite().any()

    @scopes
    def test_rho_zero_is_one_pass_and_the_plain_gradient(self, scope):
        rule, passes = rule_of(model_of("maxout"), rho=0.0, scope=scope), []
        twin = copy.deepcopy(rule.model)
        x, y = batch()
        losses(twin(x), y).mean().backward()
        for encoder in rule.model.encoders.values():
            encoder.register_forward_hook(lambda *_: passes.append(1))
        in_one_call(rule, SHARES[2])
        close(spent(rule.model), spent(twin))
        assert len(passes) == 2

    @scopes
    def test_a_loss_may_look_at_the_features_too(self, scope):
        def with_features(output, y):
            return losses(output, y) + sum((f**2).mean(1) for f in output.features.values())

        found = []
        for form in (by_block, in_one_call):
            rule = rule_of(model_of("maxout", 3), scope=scope)
            form(rule, SHARES[3], loss=with_features)
            found.append(spent(rule.model))
        close(*found)

    @scopes
    def test_the_output_of_theta_comes_back_and_contributions_may_be_a_function_of_it(self, scope):
        rule, heard = rule_of(model_of("sum"), scope=scope), []
        x, _ = batch()
        expected = copy.deepcopy(rule.model)(x)
        output = in_one_call(rule, lambda made: heard.append(made) or SHARES[2])
        for made in (output, *heard):
            torch.testing.assert_close(made.logits, expected.logits)
            torch.testing.assert_close(made.features, expected.features)
        assert len(heard) == 1

    @scopes
    def test_without_contributions_it_is_refused(self, scope):
        with pytest.raises(ValueError, match="needs the contributions"):
            in_one_call(rule_of(model_of("sum"), scope=scope), None)

    @scopes
    def test_replay_drops_in_each_part_what_its_first_pass_dropped(self, scope):
        found, states = [], []
        for form in (by_block, in_one_call):
            rule = rule_of(model_of("dropping maxout", 3, dropout=0.5), scope=scope, rng="replay")
            torch.manual_seed(7)
            form(rule, SHARES[3])
            found.append(spent(rule.model))
            states.append(torch.get_rng_state())
        close(*found)
        assert torch.equal(*states)
        torch.manual_seed(7)
        rule.model(batch()[0])
        assert torch.equal(torch.get_rng_state(), states[0])

    @scopes
    def test_all_ranks_climb_in_the_modality_that_dominates_on_the_mean(self, scope, monkeypatch):
        monkeypatch.setattr(_perturb, "mean_over_ranks", lambda shares, _: [0.35, 0.65] if shares else None)
        rule, twin = rule_of(model_of("sum"), scope=scope), rule_of(model_of("sum"), scope=scope, sync=False)
        in_one_call(rule, [0.6, 0.4])
        in_one_call(twin, [0.35, 0.65])
        close(spent(rule.model), spent(twin.model))


class TestRoles:
    @scopes
    def test_they_may_come_from_the_groups_of_the_optimizer_and_statistics_are_held_all_the_same(self, scope):
        model = model_of("sum")
        rule = msam.MSAM(torch.optim.SGD(model.parameter_groups(), lr=0.1), RHO, scope=scope)
        twin = rule_of(model_of("sum"), scope=scope)
        x, y = batch()
        rule.backward(model, x, lambda output: losses(output, y), SHARES[2])
        in_one_call(twin, SHARES[2])
        close(spent(model), spent(twin.model))
        assert all(m.num_batches_tracked == 1 for m in model.modules() if isinstance(m, nn.BatchNorm1d))

    @scopes
    def test_without_them_it_is_refused_with_the_way_out(self, scope):
        model = model_of("sum")
        with pytest.raises(ValueError, match=r"give `model`.*parameter_groups"):
            msam.MSAM(torch.optim.SGD(model.parameters(), lr=0.1), scope=scope)

    @pytest.mark.parametrize("form", [by_block, in_one_call])
    @scopes
    def test_contributions_of_another_number_of_modalities_are_refused(self, scope, form):
        rule = rule_of(model_of("sum"), scope=scope)
        theta = flat(rule.model)
        with pytest.raises(ValueError, match=r"must be of \['audio', 'image'\], received 3"):
            form(rule, [0.2, 0.3, 0.5])
        assert torch.equal(flat(rule.model), theta)

    def test_a_word_that_is_none_is_refused(self):
        with pytest.raises(ValueError, match=r"Unknown scope 'dominnat'\. Did you mean 'dominant'"):
            rule_of(model_of("sum"), scope="dominnat")
