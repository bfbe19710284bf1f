"""The laws of Shapley values that are sampled, for more than twelve modalities."""

import math

import pytest
import torch

from msam import shapley


def game(num_modalities: int, seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2**num_modalities - 1, *shape, generator=generator, dtype=torch.float64)


class TestSampled:
    def test_they_are_unbiased_and_efficient_and_know_their_error(self):
        values = game(6, 3)
        exact = shapley.shapley_values(values)
        worth = {s: values[i] for i, s in enumerate(shapley.coalitions(6))}
        inside = []
        for seed in range(40):
            drawn = shapley.sampled_shapley_values(worth.__getitem__, 6, permutations=40, seed=seed)
            torch.testing.assert_close(drawn.values.sum(), values[-1])
            inside.append(((drawn.values - exact).abs() < 2 * drawn.standard_error).double())
        assert 0.85 < torch.stack(inside).mean() < 0.99

    def test_the_same_seed_gives_the_same_result_for_twenty_modalities(self):
        def value(members):
            return torch.tensor(float(len(members) ** 2))

        a, b = (shapley.sampled_shapley_values(value, 20, permutations=8, seed=5) for _ in range(2))
        assert torch.equal(a.values, b.values)
        torch.testing.assert_close(a.values.sum(), torch.tensor(400.0))

    @pytest.mark.parametrize("permutations", [2, 5])
    def test_an_odd_or_tiny_number_of_orders_is_refused(self, permutations):
        with pytest.raises(ValueError, match="permutations"):
            shapley.sampled_shapley_values(lambda s: torch.tensor(1.0), 3, permutations=permutations)

    def test_their_mean_over_seeds_is_the_exact_value(self):
        values = game(5, 3, 2)
        worth = dict(zip(shapley.coalitions(5), values, strict=True))
        drawn = torch.stack(
            [shapley.sampled_shapley_values(worth.__getitem__, 5, permutations=4, seed=s).values for s in range(300)]
        )
        error = drawn.std(0) / math.sqrt(len(drawn))
        assert ((drawn.mean(0) - shapley.shapley_values(values)).abs() < 4 * error).all()

    def test_a_coalition_is_asked_for_once_as_sorted_positions_and_never_the_empty_one(self):
        asked = []

        def value(members):
            asked.append(members)
            return torch.tensor(float(sum(members)))

        result = shapley.sampled_shapley_values(value, 4, permutations=40)
        assert len(asked) == len(set(asked)) <= 15
        assert all(members and list(members) == sorted(members) for members in asked)
        torch.testing.assert_close(result.values, torch.arange(4.0))
        torch.testing.assert_close(result.standard_error, torch.zeros(4), atol=1e-6, rtol=0)

    def test_other_seeds_give_other_orders(self):
        worth = dict(zip(shapley.coalitions(6), game(6, 0), strict=True))
        one, other = (shapley.sampled_shapley_values(worth.__getitem__, 6, permutations=4, seed=s) for s in (0, 1))
        assert not torch.equal(one.values, other.values)

    def test_no_modalities_are_refused(self):
        with pytest.raises(ValueError, match="num_modalities"):
            shapley.sampled_shapley_values(lambda s: torch.tensor(1.0), 0)
