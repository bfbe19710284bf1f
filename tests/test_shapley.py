"""The laws of Shapley contributions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import msam
from msam import shapley
from msam.types import Output
from tests.definitions import shapley as definition

sizes = st.integers(1, 6)
seeds = st.integers(0, 2**31)


def game(num_modalities: int, seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2**num_modalities - 1, *shape, generator=generator, dtype=torch.float64)


def model(kind: type[msam.Fusion] = msam.ConcatFusion, modalities: int = 2) -> msam.MultimodalModel:
    torch.manual_seed(0)
    names = [f"m{i}" for i in range(modalities)]
    encoders = {n: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU()) for n in names}
    return msam.MultimodalModel(encoders, kind(dict.fromkeys(names, 6), 5)).double()


def inputs(modalities: int = 2, size: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {f"m{i}": torch.randn(size, 4, generator=generator, dtype=torch.float64) for i in range(modalities)}


class TestValues:
    def test_coalitions_come_in_bitmask_order(self):
        assert shapley.coalitions(3) == ((0,), (1,), (0, 1), (2,), (0, 2), (1, 2), (0, 1, 2))

    @settings(deadline=None)
    @given(sizes, seeds)
    def test_efficiency_they_sum_to_the_value_of_all(self, num_modalities, seed):
        values = game(num_modalities, seed, 3)
        torch.testing.assert_close(shapley.shapley_values(values).sum(0), values[-1])

    @settings(deadline=None)
    @given(st.integers(1, 5), seeds)
    def test_they_are_the_mean_over_all_orders_of_joining(self, num_modalities, seed):
        values = game(num_modalities, seed, 2)
        slow = definition.values(definition.by_set(values), num_modalities)
        torch.testing.assert_close(shapley.shapley_values(values), slow)

    @settings(deadline=None)
    @given(st.integers(2, 6), seeds)
    def test_symmetry_modalities_that_do_the_same_get_the_same(self, num_modalities, seed):
        by_size = game(num_modalities, seed)
        values = torch.stack([by_size[len(s)] for s in shapley.coalitions(num_modalities)])
        phi = shapley.shapley_values(values)
        torch.testing.assert_close(phi, phi[0].expand(num_modalities))

    @settings(deadline=None)
    @given(st.integers(2, 6), seeds)
    def test_null_player_a_modality_that_changes_nothing_gets_nothing(self, num_modalities, seed):
        smaller = game(num_modalities - 1, seed)
        worth = {s: smaller[i] for i, s in enumerate(shapley.coalitions(num_modalities - 1))} | {(): torch.tensor(0.0)}
        last = num_modalities - 1
        values = torch.stack([worth[tuple(m for m in s if m != last)].double() for s in shapley.coalitions(last + 1)])
        phi = shapley.shapley_values(values)
        assert phi[last].abs() < 1e-12
        torch.testing.assert_close(phi[:last], shapley.shapley_values(smaller))

    @settings(deadline=None)
    @given(sizes, seeds, st.floats(-3, 3))
    def test_linearity(self, num_modalities, seed, factor):
        a, b = game(num_modalities, seed), game(num_modalities, seed + 1)
        together = shapley.shapley_values(a + factor * b)
        torch.testing.assert_close(together, shapley.shapley_values(a) + factor * shapley.shapley_values(b))

    def test_twelve_modalities_are_exact_and_thirteen_are_refused(self):
        values = game(12, 0)
        torch.testing.assert_close(shapley.shapley_values(values).sum(), values[-1])
        with pytest.raises(ValueError, match="sampled_shapley_values"):
            shapley.coalitions(13)

    def test_the_sum_printed_in_eq_17_lacks_the_empty_set_and_so_misses_the_mean_of_the_singles(self):
        values = game(3, 0)
        worth = definition.by_set(values)
        full = frozenset(range(3))
        printed = sum(
            (worth[s | {m}] - worth[s]) / (3 * math.comb(2, len(s))) for m in full for s in worth if m not in s
        )
        singles = sum(worth[frozenset({m})] for m in full) / 3
        torch.testing.assert_close(printed, worth[full] - singles)

    @pytest.mark.parametrize("rows", [0, 2, 4, 6])
    def test_a_number_of_rows_that_is_no_game_is_refused(self, rows):
        with pytest.raises(ValueError, match=r"2\*\*M - 1 rows"):
            shapley.shapley_values(torch.zeros(rows))


class TestCoalitionLogits:
    @pytest.mark.parametrize("kind", [msam.SumFusion, msam.ConcatFusion, msam.MaxoutFusion])
    @pytest.mark.parametrize("modalities", [2, 3, 4])
    def test_shapley_logits_sum_to_the_full_logits(self, kind, modalities):
        net = model(kind, modalities).eval()
        output = net(inputs(modalities))
        logits = shapley.coalition_logits(net, output.features)
        torch.testing.assert_close(logits[-1], output.logits)
        torch.testing.assert_close(shapley.shapley_values(logits).sum(0), output.logits)

    def test_linear_late_fusion_with_zeroed_features_gives_the_split_logits(self):
        net = model(msam.ConcatFusion, 3).eval()
        output = net(inputs(3))
        phi = shapley.shapley_values(shapley.coalition_logits(net, output.features))
        closed = torch.stack(list(net.fusion.modality_logits(output.features).values()))
        torch.testing.assert_close(phi, closed)

    def test_linear_late_fusion_with_zeroed_inputs_has_the_closed_form_of_agm(self):
        net = model(msam.ConcatFusion).eval()
        x = inputs()
        phi = shapley.shapley_values(shapley.coalition_logits(net, x, absent="input"))
        h, h0 = net.encode(x), net.encode({n: torch.zeros_like(v) for n, v in x.items()})
        w0, w1 = net.fusion.linear.weight.split(6, 1)
        b = net.fusion.linear.bias
        torch.testing.assert_close(phi[0], h["m0"] @ w0.T + 0.5 * (b + h0["m1"] @ w1.T - h0["m0"] @ w0.T))

    def test_the_feature_form_calls_the_fusion_once_without_a_graph(self):
        net = model(msam.MaxoutFusion, 3).train()
        output = net(inputs(3))
        calls = []
        handle = net.fusion.register_forward_hook(lambda *_: calls.append(1))
        logits = shapley.coalition_logits(net, output.features)
        handle.remove()
        assert (len(calls), logits.shape, logits.requires_grad) == (1, (7, 8, 5), False)

    @pytest.mark.parametrize("absent", ["feature", "input"])
    def test_buffers_and_mixed_training_flags_are_left_as_they_were(self, absent):
        net = model(msam.MaxoutFusion).train()
        net.encoders["m0"].eval()
        x = inputs()
        given = net(x).features if absent == "feature" else x
        flags = [m.training for m in net.modules()]
        buffers = {n: b.clone() for n, b in net.named_buffers()}
        shapley.coalition_logits(net, given, absent=absent)
        assert [m.training for m in net.modules()] == flags
        assert all(torch.equal(b, buffers[n]) for n, b in net.named_buffers())

    def test_flags_come_back_after_an_exception(self):
        net = model().train()
        with pytest.raises(RuntimeError):
            shapley.coalition_logits(net, {n: x[:, :2] for n, x in inputs().items()}, absent="input")
        assert all(m.training for m in net.modules())

    def test_the_input_form_serves_any_callable(self):
        logits = shapley.coalition_logits(
            lambda x: x["a"] + 10 * x["b"], {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}, absent="input"
        )
        assert logits[:, 0, 0].tolist() == [1, 10, 11]

    def test_segments_may_be_folded_into_the_samples(self):
        class Segments(nn.Module):
            modalities = ("a", "b")

            def fusion(self, features):
                return (features["a"] + features["b"]).flatten(0, 1)

        features = {"a": torch.randn(2, 10, 4), "b": torch.randn(2, 10, 4)}
        logits = shapley.coalition_logits(Segments(), features)
        assert logits.shape == (3, 20, 4)
        assert torch.equal(logits[0], features["a"].flatten(0, 1))

    def test_only_some_coalitions_can_be_asked_for(self):
        net = model(modalities=3).eval()
        features = net(inputs(3)).features
        everything = shapley.coalition_logits(net, features)
        assert torch.equal(shapley.coalition_logits(net, features, only=[(0, 2)])[0], everything[4])

    def test_a_missing_modality_is_named(self):
        with pytest.raises(ValueError, match="'m1' is missing"):
            shapley.coalition_logits(model(), {"m0": torch.zeros(2, 6)})


class TestContributions:
    @pytest.mark.parametrize("value", shapley.VALUES)
    @pytest.mark.parametrize("modalities", [2, 3])
    def test_each_value_function_is_its_definition(self, value, modalities):
        logits = 2 * game(modalities, 7, 6, 4)
        target = torch.tensor([0, 1, 2, 3, 0, 1])
        slow = definition.contributions(logits, target, value)
        torch.testing.assert_close(shapley.contributions(logits, target, value), slow)

    @settings(deadline=None)
    @given(st.integers(1, 4), seeds, st.sampled_from(shapley.VALUES), st.sampled_from(["batch", "none"]))
    def test_they_are_shares(self, modalities, seed, value, reduction):
        logits = 5 * game(modalities, seed, 3, 4)
        shares = shapley.contributions(logits, torch.tensor([0, 1, 3]), value, reduction)
        assert shares.shape == ((modalities, 3) if reduction == "none" else (modalities,))
        assert (shares >= 0).all()
        torch.testing.assert_close(shares.sum(0), torch.ones_like(shares[0]))

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("value", shapley.VALUES)
    def test_never_nan_whatever_the_logits(self, value, bad):
        shares = shapley.contributions(torch.full((3, 2, 4), bad), torch.tensor([0, 1]), value)
        torch.testing.assert_close(shares.sum(), torch.tensor(1.0))

    def test_uniform_when_nothing_is_right(self):
        logits = torch.zeros(3, 2, 4)
        logits[..., 0] = 9.0
        assert shapley.contributions(logits, torch.tensor([1, 2]), "accuracy").tolist() == [0.5, 0.5]

    def test_labels_are_read_as_probabilities_of_what_holds(self):
        logits = torch.tensor([[[20.0, -20.0]], [[0.0, 0.0]], [[20.0, -20.0]]])
        shares = shapley.contributions(logits, torch.tensor([[1, 0]]))
        torch.testing.assert_close(shares, torch.tensor([0.75, 0.25]))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("value", shapley.VALUES)
    def test_half_precision_logits_are_measured_in_float(self, value, dtype):
        low, target = game(3, 0, 4, 3).to(dtype), torch.tensor([0, 1, 2, 0])
        assert torch.equal(shapley.contributions(low, target, value), shapley.contributions(low.float(), target, value))

    def test_errors_say_what_was_expected(self):
        logits = torch.zeros(3, 2, 4)
        with pytest.raises(ValueError, match="Did you mean 'probability'"):
            shapley.contributions(logits, torch.tensor([0, 1]), "probabilty")
        with pytest.raises(ValueError, match="regression"):
            shapley.contributions(logits, torch.tensor([0.5, 1]))
        with pytest.raises(ValueError, match=r"received \(3,\) of torch.int64 for logits \(2, 4\)"):
            shapley.contributions(logits, torch.tensor([0, 1, 2]))


def test_outputs_and_tensors_are_both_taken():
    def returns_output(x):
        return Output(x["a"], {})

    assert shapley.coalition_logits(returns_output, {"a": torch.ones(1, 2)}, absent="input").shape == (1, 1, 2)
