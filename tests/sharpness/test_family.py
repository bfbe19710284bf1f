"""Every rule is what its equations say, and its neighbours at the ends of its options."""

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from msam import sharpness
from msam.sharpness._reuse import change, reused
from tests.definitions import asam, fisher_sam, fsam, gam, gnp, gsam, imbsam, looksam
from tests.sharpness._flat import (
    OPTIMIZERS,
    batch,
    close,
    flat,
    gradient_of,
    losses,
    mean_gradient,
    network,
    spent,
)

RHO, STEPS = 0.4, 5
TAIL = (0, 2)
RULES = [name for name in sharpness.names() if name != "msam"]


def rule_of(name: str, model: nn.Module, optimizer=None, rho: float = RHO, **options) -> sharpness.Sharpness:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    return sharpness.load(name)(optimizer, rho, model=model, **options)


def one_step(rule: sharpness.Sharpness, t: int) -> None:
    """Make the gradients of a step in the form that every rule has, and step."""
    x, y = batch(t)
    rule.backward(rule.model, x, lambda logits: losses(logits, y), target=y)
    rule.optimizer.step()


def literal(name: str, model: nn.Module):
    """Return the slow edition of a rule: (theta, t, lr / lr_0) -> gradient."""
    memory = {"fsam": torch.zeros(flat(model).shape, dtype=torch.float64)}

    def of(theta: torch.Tensor, t: int, rate: float) -> torch.Tensor:
        g = mean_gradient(model, t)
        x, y = batch(t)
        rare = torch.isin(y, torch.tensor(TAIL))

        def part(chosen):
            return gradient_of(model, lambda forward: losses(forward(x[chosen]), y[chosen]).sum() / len(y))

        def remembering(found):
            made, memory[name] = found
            return made

        return {
            "sam": lambda: gnp.spent(g, theta, RHO, 1.0),
            "gnp": lambda: gnp.spent(g, theta, RHO, 0.7),
            "asam": lambda: asam.spent(g, theta, RHO, 0.01),
            "gsam": lambda: gsam.spent(g, theta, gsam.radius(RHO, 0.1, rate, 1.0), 0.4),
            "fisher_sam": lambda: fisher_sam.spent(g, theta, RHO, 20.0),
            "fsam": lambda: remembering(fsam.spent(g, theta, memory["fsam"], RHO, 0.8, 0.6)),
            "looksam": lambda: remembering(looksam.spent(g, theta, memory.get("looksam"), t, RHO, 3, 0.7)),
            "gam": lambda: gam.spent(g, theta, RHO, 0.2, 0.4, 0.6, 0.5),
            "imbsam": lambda: imbsam.spent(part(~rare), part(rare), theta, RHO),
        }[name]()

    return of


OPTIONS = {
    "gsam": {"rho_min": 0.1},
    "fisher_sam": {"eta": 20.0},
    "fsam": {"sigma": 0.8, "lam": 0.6},
    "looksam": {"every": 3},
    "gam": {"rho_inner": 0.2, "beta0": 0.4, "gamma": 0.5},
    "imbsam": {"tail": TAIL},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", RULES)
def test_five_steps_equal_those_of_the_slow_edition(name, optimizer):
    model = network()
    rule = rule_of(name, model, OPTIMIZERS[optimizer](model.parameters()), **OPTIONS.get(name, {}))
    theta = nn.Parameter(flat(model))
    slow, definition = OPTIMIZERS[optimizer]([theta]), literal(name, network())
    first = rule.optimizer.param_groups[0]["lr"]
    for t in range(STEPS):
        for group in (*rule.optimizer.param_groups, *slow.param_groups):
            group["lr"] = first * 0.9**t
        theta.grad = definition(theta.detach(), t, 0.9**t)
        slow.step()
        one_step(rule, t)
        close(flat(model), theta.detach())


def trained(name: str | None, steps: int = 4, rho: float = RHO, **options) -> torch.Tensor:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rule = rule_of(name or "sam", model, optimizer, rho=rho if name else 0.0, **options)
    for t in range(steps):
        one_step(rule, t)
    return flat(model)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gsam", {"alpha": 0.0, "rho_schedule": "constant"}),
        ("fisher_sam", {"eta": 0.0}),
        ("fsam", {"sigma": 0.0}),
        ("looksam", {"every": 1}),
        ("gnp", {"alpha": 1.0}),
        ("imbsam", {"tail": (0, 1, 2)}),
    ],
)
def test_at_one_end_of_its_options_it_is_sam(name, options):
    close(trained(name, **options), trained("sam"))
    assert not torch.allclose(trained(name), trained("sam"), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gnp", {"alpha": 0.0}),
        ("imbsam", {"tail": ()}),
        ("gam", {"rho": 0.0}),
        ("gam", {"rho": 1e-12, "rho_inner": 1e-12, "beta0": 0.0, "gamma": 0.9}),
        ("looksam", {"rho": 1e-13, "alpha": 0.0}),
        *[(name, {"rho": 0.0}) for name in RULES],
    ],
)
def test_at_the_other_end_it_is_the_optimizer_itself(name, options):
    close(trained(name, **options), trained(None), atol=1e-10)


def test_where_all_weights_are_equally_large_asam_is_sam_at_a_radius_in_their_units():
    found = []
    for name, rho, options in (("asam", 0.2, {"eta": 0.5}), ("sam", 0.2 * 2.5, {})):
        model = network()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(2 * p.sign())
        one_step(rule_of(name, model, rho=rho, **options), 0)
        found.append(spent(model))
    close(*found)


@pytest.mark.parametrize(("name", "invariant"), [("asam", True), ("sam", False)])
def test_asam_climbs_as_high_when_one_layer_is_multiplied_and_the_next_divided(name, invariant):
    heights = []
    for factor in (1.0, 8.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)).double()
        with torch.no_grad():
            model[0].weight.mul_(factor)
            model[2].weight.div_(factor)
        rule = rule_of(name, model, **({"eta": 0.0} if invariant else {}))
        x, y = batch(0)
        losses(model(x), y).mean().backward()
        with rule.perturbed():
            high = losses(model(x), y).mean()
            high.backward()
        heights.append(high.item())
    assert (abs(heights[1] - heights[0]) < 1e-12) is invariant


def test_friendly_sam_at_sigma_one_climbs_along_the_gradient_less_a_mean_of_earlier_ones():
    model = network()
    rule = rule_of("fsam", model, sigma=1.0, lam=0.8)
    mean = torch.zeros_like(flat(model))
    for t in range(4):
        x, y = batch(t)
        rule.optimizer.zero_grad()
        losses(model(x), y).mean().backward()
        g, theta = spent(model), flat(model)
        with rule.perturbed():
            climbed = flat(model) - theta
            losses(model(x), y).mean().backward()
        close(climbed / RHO, (g - mean) / (g - mean).norm())
        mean = 0.8 * mean + 0.2 * g
        rule.optimizer.step()


def test_friendly_sam_remembers_the_gradients_of_the_plain_loss_whatever_a_scaler_multiplies_them_with():
    results = []
    for scales in ((64.0, 64.0, 64.0), (4.0, 1024.0, 2.0)):
        model = network()
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        rule = rule_of("fsam", model, scaler=scaler)
        for t, scale in enumerate(scales):
            x, y = batch(t)
            rule.optimizer.zero_grad()
            scaler.scale(losses(model(x), y).mean()).backward()
            with rule.perturbed():
                scaler.scale(losses(model(x), y).mean()).backward()
            scaler.step(rule.optimizer)
            scaler.update(scale)
        results.append(flat(model))
    close(*results)


@pytest.mark.parametrize("name", RULES)
def test_saved_and_loaded_anywhere_it_goes_on_bit_for_bit(name):
    options = OPTIONS.get(name, {}) | {"rho_schedule": "inverse_sqrt"}

    def begun() -> sharpness.Sharpness:
        model = network()
        return rule_of(name, model, torch.optim.AdamW(model.parameters(), lr=0.01), **options)

    undisturbed = begun()
    for t in range(7):
        one_step(undisturbed, t)
    for stop in range(1, 7):
        one, other, file = begun(), begun(), io.BytesIO()
        for t in range(stop):
            one_step(one, t)
        torch.save([one.model.state_dict(), one.optimizer.state_dict(), one.state_dict()], file)
        file.seek(0)
        for part, state in zip((other.model, other.optimizer, other), torch.load(file, weights_only=True), strict=True):
            part.load_state_dict(state)
        for t in range(stop, 7):
            one_step(other, t)
        assert torch.equal(flat(other.model), flat(undisturbed.model))


vectors = st.lists(st.floats(-10, 10), min_size=4, max_size=4).map(lambda v: torch.tensor(v, dtype=torch.float64))
long_enough = vectors.filter(lambda v: float(v.norm()) > 1e-3)
A, B = (nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in "ab")


def split(vector: torch.Tensor) -> dict[nn.Parameter, torch.Tensor]:
    return {A: vector[:2].clone(), B: vector[2:].clone()}


def joined(parts: dict[nn.Parameter, torch.Tensor]) -> torch.Tensor:
    return torch.cat([parts[A], parts[B]])


@given(first=vectors, second=long_enough, alpha=st.floats(0, 3))
@settings(deadline=None)
def test_what_gsam_takes_away_leaves_the_perturbed_loss_as_it_is(first, second, alpha):
    rule = sharpness.GSAM(torch.optim.SGD([A, B], lr=1.0), 0.1, alpha=alpha)
    made = joined(rule.combined(split(first), split(second), 1.0))
    close((made - second) @ second, torch.zeros((), dtype=torch.float64), atol=1e-9)
    wanted = alpha * math.sqrt(max(float(first @ first - (first @ second) ** 2 / (second @ second)), 0))
    assert float((made - second).norm()) == pytest.approx(wanted, abs=1e-5)


@given(first=long_enough, second=vectors, share=st.floats(0, 1), stretch=st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_a_change_that_is_reused_on_its_own_gradient_is_the_blend_and_grows_with_the_gradient(
    first, second, share, stretch
):
    kept = change(split(first), split(second))
    made = joined(reused(split(first), kept, share))
    close(made, torch.lerp(first, second, share), atol=1e-9)
    longer = joined(reused(split(first * stretch), kept, share))
    torch.testing.assert_close(longer, made * stretch, rtol=1e-9, atol=1e-9)
    close(joined(kept.across) @ first, torch.zeros((), dtype=torch.float64), atol=1e-8)


@given(first=long_enough, later=long_enough, second=long_enough, alpha=st.floats(0, 3))
@settings(deadline=None)
def test_what_looksam_adds_between_climbs_is_as_long_as_alpha_gradients(first, later, second, alpha):
    rule = sharpness.LookSAM(torch.optim.SGD([A, B], lr=1.0), 0.1, every=2, alpha=alpha)
    rule.combined(split(first), split(second), 1.0)
    rule.blocks = 1
    if float(joined(rule.remembered).norm()) < 1e-6:  # both in line: what is left over is rounding
        return
    added = joined(rule.instead(split(later), 1.0)) - later
    assert float(added.norm()) == pytest.approx(alpha * float(later.norm()), abs=1e-9)
    close(added @ first, torch.zeros((), dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize(("name", "options"), [("looksam", {}), ("msam", {"share": "one"})])
class TestWhatIsReused:
    def rule(self, name: str, options: dict):
        w = nn.Parameter(torch.ones(3, dtype=torch.float64))
        return w, sharpness.load(name)(torch.optim.SGD([w], lr=0.1), 0.5, every=4, **options)

    def step(self, w, rule, first: list[float], second: list[float]) -> bool:
        w.grad = torch.tensor(first, dtype=w.dtype)
        with rule.perturbed([0.5, 0.5]) as climbing:
            if climbing:
                w.grad = torch.tensor(second, dtype=w.dtype)
        return climbing

    @pytest.mark.parametrize("bad", [math.inf, math.nan])
    def test_a_second_gradient_that_is_not_finite_spoils_no_later_step(self, name, options, bad):
        w, rule = self.rule(name, options)
        self.step(w, rule, [1.0, 0.0, 0.0], [bad, 1.0, 0.0])
        assert not w.grad.isfinite().all()
        assert self.step(w, rule, [1.0, 0.0, 0.0], [1.0, 1.0, 0.0])
        assert not self.step(w, rule, [1.0, 0.0, 0.0], [])
        assert w.grad.isfinite().all()
        assert w.grad[1] > 0.5
