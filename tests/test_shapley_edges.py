"""The laws of Shapley contributions at the edges: other people's models, lost precision, nothing to share."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from msam import models, shapley
from msam.shapley import _values
from msam.types import Output
from tests.definitions import shapley as definition


def game(num_modalities: int, *shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2**num_modalities - 1, *shape, generator=generator, dtype=torch.float64)


class Mixed(nn.Module):
    """A stand-in for any model: two encoders with BatchNorm, a fusion that is not linear."""

    modalities = ("a", "v")

    def __init__(self, returns_output: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoders = nn.ModuleDict({n: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for n in self.modalities})
        self.fusion = Fused()
        self.returns_output = returns_output

    def forward(self, inputs):
        features = {n: self.encoders[n](inputs[n]) for n in self.modalities}
        logits = self.fusion(features)
        return Output(logits, features) if self.returns_output else logits


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 5))
        self.calls = 0

    def forward(self, features):
        self.calls += 1
        return self.layers(torch.cat([features["a"], features["v"]], -1))


def inputs(size: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {n: torch.randn(size, 3, generator=generator) for n in ("a", "v")}


def state(model: nn.Module):
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    return [m.training for m in model.modules()], buffers


def unchanged(model: nn.Module, before) -> bool:
    flags, buffers = before
    return [m.training for m in model.modules()] == flags and all(
        torch.equal(b, buffers[n]) for n, b in model.named_buffers()
    )


class TestValues:
    def test_autocast_does_not_round_them(self):
        values = game(3, 4, 2).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = shapley.shapley_values(values)
        assert torch.equal(inside, shapley.shapley_values(values))

    def test_they_can_be_trained_through_even_after_inference_mode_came_first(self):
        _values._weights.cache_clear()
        with torch.inference_mode():
            shapley.shapley_values(torch.ones(7))
        values = torch.ones(7, requires_grad=True)
        shapley.shapley_values(values).sum().backward()
        torch.testing.assert_close(values.grad, torch.tensor([0.0] * 6 + [1.0]), atol=1e-6, rtol=0)

    @settings(deadline=None, max_examples=30)
    @given(st.integers(2, 4), st.integers(0, 1000))
    def test_a_worth_of_nothing_at_all_is_shared_equally_and_only_shifts_them(self, num_modalities, seed):
        values, nothing = game(num_modalities, seed=seed), 0.7
        worth = {frozenset(): torch.tensor(nothing), **definition.by_set(values)}
        relative = {s: w - nothing for s, w in worth.items()}
        standard = definition.values(relative, num_modalities)  # v(empty) counted as it is
        torch.testing.assert_close(shapley.shapley_values(values), standard + nothing / num_modalities)

    @settings(deadline=None, max_examples=30)
    @given(st.permutations([0, 1, 2]), st.integers(0, 1000))
    def test_renaming_the_modalities_renames_the_values(self, order, seed):
        values = game(3, seed=seed)
        row = {s: i for i, s in enumerate(shapley.coalitions(3))}
        renamed = torch.stack([values[row[tuple(sorted(order[m] for m in s))]] for s in row])
        torch.testing.assert_close(shapley.shapley_values(renamed), shapley.shapley_values(values)[list(order)])

    def test_whole_numbers_and_truth_values_are_taken(self):
        assert shapley.shapley_values(torch.tensor([1, 0, 2])).tolist() == [1.5, 0.5]
        assert shapley.shapley_values(torch.tensor([True, False, True])).tolist() == [1.0, 0.0]


class TestCoalitionLogits:
    @pytest.mark.parametrize("returns_output", [False, True])
    def test_each_row_is_the_model_in_evaluation_with_the_inputs_of_others_zeroed(self, returns_output):
        model, x = Mixed(returns_output).train(), inputs()
        logits = shapley.coalition_logits(model, x, absent="input")
        model.eval()
        for row, members in zip(logits, [("a",), ("v",), ("a", "v")], strict=True):
            given = {n: t if n in members else torch.zeros_like(t) for n, t in x.items()}
            expected = model(given)
            torch.testing.assert_close(row, expected.logits if returns_output else expected)

    @pytest.mark.parametrize("absent", ["feature", "input"])
    @pytest.mark.parametrize("fails", [False, True])
    def test_flags_buffers_and_counts_are_left_alone_even_by_an_exception(self, absent, fails):
        model = Mixed().train()
        model.encoders["a"].eval()
        model.fusion.layers[2].eval()
        x = inputs()
        model(x)
        given = {n: model.encoders[n](t).detach() for n, t in x.items()} if absent == "feature" else x
        before = state(model)
        if fails:
            with pytest.raises(RuntimeError):
                shapley.coalition_logits(model, {n: t[:, :2] for n, t in given.items()}, absent=absent)
        else:
            shapley.coalition_logits(model, given, absent=absent)
        assert unchanged(model, before)

    def test_the_feature_form_is_one_call_whatever_the_number_of_coalitions(self):
        model = Mixed()
        shapley.coalition_logits(model, {n: torch.randn(6, 4) for n in "av"})
        assert model.fusion.calls == 1

    def test_what_is_absent_is_zero_even_where_it_was_not_finite(self):
        features = {"a": torch.ones(2, 4), "v": torch.full((2, 4), math.nan)}
        logits = shapley.coalition_logits(Mixed(), features)
        assert logits[0].isfinite().all()
        assert logits[1:].isnan().all()

    def test_the_order_is_that_of_the_model_not_of_the_mapping(self):
        model, features = Mixed(), {n: torch.randn(2, 4) for n in "av"}
        turned = dict(reversed(features.items()))
        assert torch.equal(shapley.coalition_logits(model, turned), shapley.coalition_logits(model, features))

    def test_gradients_neither_flow_nor_appear(self):
        model, x = Mixed(), inputs()
        features = {n: model.encoders[n](t) for n, t in x.items()}
        logits = shapley.coalition_logits(model, features)
        assert not logits.requires_grad
        assert all(p.grad is None for p in model.parameters())

    def test_only_may_hold_the_empty_coalition(self):
        model = Mixed().eval()
        nothing = shapley.coalition_logits(model, inputs(), absent="input", only=[()])
        torch.testing.assert_close(nothing[0], model({n: torch.zeros_like(t) for n, t in inputs().items()}))

    @pytest.mark.parametrize("only", [[], [(2,)], [(0, -1)]], ids=str)
    @pytest.mark.parametrize("absent", ["feature", "input"])
    def test_only_must_hold_positions_that_exist(self, only, absent):
        with pytest.raises(ValueError, match="`only` must hold coalitions of positions 0 to 1"):
            shapley.coalition_logits(Mixed(), {n: torch.zeros(2, 4) for n in "av"}, absent=absent, only=only)

    def test_more_than_twelve_modalities_want_only(self):
        many = {f"m{i}": torch.full((1, 1), float(2**i)) for i in range(13)}

        def total(x):
            return torch.stack(list(x.values())).sum(0)

        with pytest.raises(ValueError, match="sampled_shapley_values"):
            shapley.coalition_logits(total, many, absent="input")
        assert shapley.coalition_logits(total, many, absent="input", only=[(0, 12)]).item() == 1 + 2**12

    def test_an_unknown_way_of_being_absent_is_named(self):
        with pytest.raises(ValueError, match=r"Unknown absent 'inputs'. Did you mean 'input'\?"):
            shapley.coalition_logits(Mixed(), inputs(), absent="inputs")

    def test_a_model_without_a_fusion_is_told_to_leave_out_inputs(self):
        adapted = models.adapt(Fused(), {"a": "a", "v": "v"}, call="mapping")
        with pytest.raises(ValueError, match=r"Adapted has no `fusion`.*absent='input'"):
            shapley.coalition_logits(adapted, inputs())


class TestContributions:
    @pytest.mark.parametrize("value", shapley.VALUES)
    @pytest.mark.parametrize("modalities", [2, 3])
    def test_for_each_sample_they_are_those_of_a_batch_of_that_sample(self, value, modalities):
        logits, target = game(modalities, 4, 3, scale=2), torch.tensor([0, 2, 1, 1])
        alone = [definition.contributions(logits[:, b : b + 1], target[b : b + 1], value) for b in range(4)]
        torch.testing.assert_close(shapley.contributions(logits, target, value, "none"), torch.stack(alone, 1))

    @pytest.mark.parametrize("value", ["probability", "accuracy", "response", "likelihood", "logit"])
    def test_labels_are_averaged_each_as_the_probability_of_what_holds(self, value):
        logits = game(2, 5, 3, scale=2)
        labels = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 0], [1, 0, 0]])
        signed = torch.where(labels.bool(), logits, -logits)
        phi = definition.values(definition.by_set(signed), 2)
        game_of = {"probability": torch.sigmoid(signed), "accuracy": (signed > 0).double()}
        worth = {
            "response": torch.sigmoid(phi).mean((1, 2)),
            "likelihood": torch.sigmoid(phi).log().mean((1, 2)).exp(),
            "logit": phi.mean((1, 2)),
        }
        if value in game_of:
            expected = definition.values(definition.by_set(game_of[value].mean((1, 2))), 2)
        else:
            expected = worth[value]
        expected = expected.clamp_min(0)
        torch.testing.assert_close(shapley.contributions(logits, labels, value), expected / expected.sum())
        assert torch.equal(
            shapley.contributions(logits, labels.bool(), value), shapley.contributions(logits, labels, value)
        )

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("value", shapley.VALUES)
    @pytest.mark.parametrize(
        "target", [torch.tensor([0, 1]), torch.tensor([[1, 0, 0], [0, 1, 1]])], ids=["class", "label"]
    )
    def test_one_bad_number_never_makes_nan_and_leaves_other_samples_alone(self, value, bad, target):
        logits = game(2, 2, 3)
        sound = shapley.contributions(logits, target, value, "none")
        logits[0, 0, 1] = bad
        for reduction in ("batch", "none"):
            shares = shapley.contributions(logits, target, value, reduction)
            assert (shares >= 0).all()
            torch.testing.assert_close(shares.sum(0), torch.ones_like(shares[0]))
        assert torch.equal(shares[:, 1], sound[:, 1])

    def test_very_unlikely_answers_still_have_a_ratio(self):
        logits = torch.tensor([[[-300.0, 0.0]], [[-299.0, 0.0]], [[-599.0, 0.0]]])
        shares = shapley.contributions(logits, torch.tensor([0]), "likelihood")
        torch.testing.assert_close(shares, torch.softmax(torch.tensor([0.0, 1.0]), 0))

    def test_a_label_that_is_sure_and_wrong_does_not_hide_the_others(self):
        right = torch.cat([torch.tensor([[-150.0]]), torch.full((1, 99), 20.0)], 1)
        logits = torch.stack([right, 0.5 * right, 1.5 * right])
        shares = shapley.contributions(logits, torch.ones(1, 100, dtype=torch.long), "likelihood")
        torch.testing.assert_close(shares[0] / shares[1], torch.tensor(math.exp(-1.5 + 0.75)), rtol=1e-2, atol=0)

    def test_autocast_does_not_unbalance_them(self):
        logits = game(3, 5, 4).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            shares = shapley.contributions(logits, torch.tensor([0, 1, 2, 3, 0]))
        torch.testing.assert_close(shares.sum(), torch.tensor(1.0))
        assert torch.equal(shares, shapley.contributions(logits, torch.tensor([0, 1, 2, 3, 0])))

    def test_they_carry_no_graph(self):
        logits = game(2, 3, 4).requires_grad_()
        assert not shapley.contributions(logits, torch.tensor([0, 1, 2])).requires_grad

    def test_an_empty_batch_is_shared_equally(self):
        shares = shapley.contributions(torch.zeros(3, 0, 4), torch.zeros(0, dtype=torch.long))
        assert shares.tolist() == [0.5, 0.5]

    @pytest.mark.parametrize(
        ("logits", "target"),
        [((3, 2), (2,)), ((3, 2, 4), (2, 3)), ((3, 2, 4), (2, 4, 1)), ((3, 2, 4), ())],
        ids=str,
    )
    def test_shapes_that_do_not_fit_are_refused(self, logits, target):
        with pytest.raises(ValueError, match=r"`(logits|target)` must be"):
            shapley.contributions(torch.zeros(logits), torch.zeros(target, dtype=torch.long))

    def test_rows_that_are_no_game_are_refused(self):
        with pytest.raises(ValueError, match=r"2\*\*M - 1 rows"):
            shapley.contributions(torch.zeros(4, 2, 3), torch.tensor([0, 1]))

    def test_an_unknown_reduction_is_named(self):
        with pytest.raises(ValueError, match=r"Unknown reduction 'nones'. Did you mean 'none'\?"):
            shapley.contributions(torch.zeros(3, 2, 4), torch.tensor([0, 1]), reduction="nones")


class TestNormalised:
    @pytest.mark.parametrize("largest", [3e38, 1e-45])
    def test_the_largest_and_the_smallest_numbers_keep_their_ratio(self, largest):
        assert shapley.normalised(torch.tensor([largest, largest, 0.0])).tolist() == [0.5, 0.5, 0.0]

    def test_what_is_not_finite_counts_as_nothing(self):
        assert shapley.normalised(torch.tensor([math.nan, 2.0, math.inf, 2.0, -math.inf])).tolist() == [
            0,
            0.5,
            0,
            0.5,
            0,
        ]
