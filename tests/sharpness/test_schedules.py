"""How a radius goes on, and that a group may have its own: for every rule of the folder."""

import inspect
import math

import pytest
import torch

from msam import sharpness
from tests.sharpness._flat import batch, close, flat, losses, network, spent

RULES = sharpness.names()
RHO = 0.4


def made(name: str, model=None, optimizer=None, rho: float = RHO, **options) -> sharpness.Sharpness:
    model = model or network()
    kind = sharpness.load(name)
    more = {"every": 1} if "every" in inspect.signature(kind).parameters else {}
    more |= {"tail": (0, 1)} if name == "imbsam" else {}
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    return kind(optimizer, rho, model=model, **more, **options)


def step(rule: sharpness.Sharpness, t: int = 0) -> float:
    """Do a step and return the radius it climbed by."""
    x, y = batch(t)
    rule.backward(rule.model, x, lambda logits: losses(logits, y), [0.25, 0.75], target=y)
    rule.optimizer.step()
    return rule.last["radius"]


every_rule = pytest.mark.parametrize("name", RULES)


@every_rule
class TestSchedules:
    def test_constant_is_the_default_but_for_gsam_whose_radius_follows_the_learning_rate(self, name):
        rule = made(name)
        assert rule.rho_schedule == ("learning_rate" if name == "gsam" else "constant")
        radii = []
        for t in range(3):
            radii.append(step(rule, t))
            rule.optimizer.param_groups[0]["lr"] /= 2
        assert radii == pytest.approx([RHO, RHO / 2, RHO / 4] if name == "gsam" else [RHO] * 3)

    def test_inverse_sqrt_divides_by_the_root_of_the_number_of_the_step(self, name):
        rule = made(name, rho_schedule="inverse_sqrt")
        assert [step(rule, t) for t in range(4)] == pytest.approx([RHO / math.sqrt(t) for t in (1, 2, 3, 4)])

    def test_a_function_is_asked_for_the_factor_of_each_step_counted_from_one(self, name):
        asked = []
        rule = made(name, rho_schedule=lambda t: asked.append(t) or 1 / t)
        assert [step(rule, t) for t in range(3)] == pytest.approx([RHO, RHO / 2, RHO / 3])
        assert sorted(set(asked)) == [1, 2, 3]

    def test_a_factor_of_zero_climbs_nowhere_and_the_count_goes_on(self, name):
        rule = made(name, rho_schedule=lambda t: float(t > 2))
        assert [step(rule, t) for t in range(3)] == [0.0, 0.0, RHO]

    def test_learning_rate_follows_each_groups_own(self, name):
        model = network()
        groups = [
            {"params": model[0].parameters(), "lr": 0.1},
            {"params": model[2].parameters(), "lr": 0.2, "rho": 0.3},
        ]
        rule = made(name, model, torch.optim.SGD(groups), rho_schedule="learning_rate")
        rule.optimizer.param_groups[0]["lr"] = 0.025
        rule.optimizer.param_groups[1]["lr"] = 0.1
        found = rule._rhos()
        assert [found[p] for p in model.parameters()] == pytest.approx([0.1, 0.1, 0.15, 0.15])

    def test_what_a_scheduler_lowered_before_the_rule_was_made_or_loaded_counts_from_the_initial_rate(self, name):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=10)
        assert step(made(name, model, optimizer, rho_schedule="learning_rate")) == pytest.approx(RHO / 2)
        one = made(name, rho_schedule="learning_rate")
        later = network()
        other = made(name, later, torch.optim.SGD(later.parameters(), lr=0.02), rho_schedule="learning_rate")
        other.load_state_dict(one.state_dict())
        assert step(other) == pytest.approx(RHO / 5)

    def test_a_group_that_is_added_later_begins_at_its_own_rate(self, name):
        model = network()
        rule = made(name, model, torch.optim.SGD(model[0].parameters(), lr=0.1), rho_schedule="learning_rate")
        rule.optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.3, "rho": 0.6})
        found = rule._rhos()
        assert [found[p] for p in model.parameters()] == pytest.approx([RHO, RHO, 0.6, 0.6])

    def test_a_resumed_rule_counts_on(self, name):
        one, other = made(name, rho_schedule="inverse_sqrt"), made(name, rho_schedule="inverse_sqrt")
        for t in range(3):
            step(one, t)
        other.load_state_dict(one.state_dict())
        assert step(other) == pytest.approx(RHO / 2)

    def test_a_word_that_is_none_is_refused_with_the_nearest(self, name):
        with pytest.raises(ValueError, match=r"Unknown rho_schedule 'inverse_sqr'\. Did you mean 'inverse_sqrt'"):
            made(name, rho_schedule="inverse_sqr")

    @pytest.mark.parametrize("factor", [-1.0, math.nan, math.inf, None, "1", True], ids=str)
    def test_a_factor_that_is_none_is_refused_when_the_rule_is_made(self, name, factor):
        with pytest.raises(ValueError, match=r"`rho_schedule\(t\)` must be >= 0"):
            made(name, rho_schedule=lambda t: factor)

    def test_a_factor_that_goes_bad_later_is_refused_before_anything_moves(self, name):
        rule = made(name, rho_schedule=lambda t: 1.0 if t < 2 else math.nan)
        step(rule)
        theta = flat(rule.model)
        with pytest.raises(ValueError, match="rho_schedule"):
            step(rule)
        torch.testing.assert_close(flat(rule.model), theta, rtol=0, atol=0)


@every_rule
class TestGroups:
    def test_the_rules_own_radius_as_every_groups_radius_changes_nothing(self, name):
        found = []
        for own in (False, True):
            model = network()
            groups = [{"params": layer.parameters(), **({"rho": RHO} if own else {})} for layer in (model[0], model[2])]
            step(made(name, model, torch.optim.SGD(groups, lr=0.1), rho=0.0 if own else RHO))
            found.append(spent(model))
        close(*found)

    def test_a_group_of_radius_zero_stands_still_wherever_the_others_go(self, name):
        model, still, moved = network(), [], []
        groups = [{"params": model[0].parameters(), "rho": 0.0}, {"params": model[2].parameters()}]
        theta = flat(model)

        def losses_seen(logits):
            still.append(torch.equal(flat(model)[:30], theta[:30]))
            moved.append(not torch.equal(flat(model)[30:], theta[30:]))
            return losses(logits, batch(0)[1])

        rule = made(name, model, torch.optim.SGD(groups, lr=0.1))
        rule.backward(model, batch(0)[0], losses_seen, [0.25, 0.75], target=batch(0)[1])
        assert all(still)
        assert any(moved)

    def test_the_state_of_another_number_of_parameters_is_refused(self, name):
        rule = made(name)
        state = rule.state_dict() | {"memory": [None]}
        with pytest.raises(ValueError, match="The state is of 1 parameters, the optimizer has 4"):
            rule.load_state_dict(state)


@every_rule
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"memory": "lo"}, r"Unknown memory 'lo'\. Did you mean 'low'"),
        ({"rng": "repaly"}, r"Unknown rng 'repaly'\. Did you mean 'replay'"),
        ({"monitor": -1}, "`monitor` must be >= 0"),
    ],
)
def test_words_and_numbers_of_the_common_options_are_checked(name, options, match):
    with pytest.raises(ValueError, match=match):
        made(name, **options)


@every_rule
def test_an_option_that_does_not_exist_is_refused_with_the_nearest(name):
    with pytest.raises(TypeError, match=r"has no option 'memroy'\. Did you mean 'memory'"):
        made(name, memroy="low")


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("asam", {"eta": -0.1}, "`eta` must be >= 0"),
        ("gsam", {"alpha": -0.1}, "`alpha` must be >= 0"),
        ("gsam", {"rho_min": -0.1}, "`rho_min` must be >= 0"),
        ("gsam", {"rho_min": 0.5}, r"`rho_min` must be <= rho, received 0\.5"),
        ("fisher_sam", {"eta": math.nan}, "`eta` must be >= 0"),
        ("fsam", {"sigma": -1}, "`sigma` must be >= 0"),
        ("fsam", {"lam": 1.0}, "`lam` must be >= 0 and < 1"),
        ("gam", {"rho_inner": -1}, "`rho_inner` must be >= 0"),
        ("gam", {"beta0": 1.1}, "`beta0` must be >= 0 and <= 1"),
        ("gam", {"beta1": -0.1}, "`beta1` must be >= 0 and <= 1"),
        ("gam", {"gamma": -0.1}, "`gamma` must be >= 0"),
        ("looksam", {"every": 0}, "`every` must be >= 1"),
        ("looksam", {"alpha": -0.1}, "`alpha` must be >= 0"),
        ("gnp", {"alpha": 1.1}, "`alpha` must be >= 0 and <= 1"),
        ("imbsam", {"tail": (-1,)}, "`tail` must hold classes"),
    ],
)
def test_a_value_out_of_its_range_is_refused(name, options, match):
    model = network()
    with pytest.raises(ValueError, match=match):
        sharpness.load(name)(torch.optim.SGD(model.parameters(), lr=0.1), RHO, **options)


def test_gsams_radius_goes_from_the_largest_to_the_smallest_with_the_learning_rate():
    rule = made("gsam", rho_min=0.1)
    radii = []
    for lr in (0.1, 0.05, 0.0):
        rule.optimizer.param_groups[0]["lr"] = lr
        radii.append(step(rule))
    assert radii == pytest.approx([0.4, 0.25, 0.1])


def test_a_decay_that_an_optimizer_calls_rho_is_no_radius():
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    rule = sharpness.load("sam")(torch.optim.Adadelta([weight], rho=0.9), rho=0.1)
    (weight**2).sum().backward()
    with rule.perturbed():
        assert weight.item() == pytest.approx(1.1)
        (weight**2).sum().backward()
    assert rule.last["radius"] == 0.1
