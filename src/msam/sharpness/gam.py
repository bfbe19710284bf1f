"""GAM: gradient norm aware minimization, first-order flatness (Zhang, Xu, Yu, Zou, Cui, CVPR 2023)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, NoReturn, Unpack

import torch
from torch import nn

from msam._modules import held
from msam.checks import Range, Search, in_range
from msam.sharpness._common import SHORTEST, Common, Contributions, Direction
from msam.sharpness._perturb import Sharpness
from msam.sharpness._radius import factors, radii
from msam.sharpness._tensors import Gradients, displaced, inner, kept, norm, steps


class GAM(Sharpness):
    r"""Make the gradient small around theta, not only the loss: three more gradients a step, as the official code has them.

    With `u(g) = g / ||g||` and `g0 = grad L(theta)`:

        g1 = grad L(theta + rho_inner u(g0))        theta' = theta + rho u(g1 - g0)
        g2 = grad L(theta')                         g3 = grad L(theta' + rho_inner u(g2))
        h = beta1 g1 + (1 - beta1) g3               m = g0 + (1 - beta0) g2
        .grad = h - gamma (m - its part along h)

    `g1 - g0` is `rho_inner` times the gradient of `||grad L||` to first order, so `theta'` is where the gradient grows
    fastest. The paper states the penalty `rho max ||grad L||`; the decomposition of the last line and the weights are
    those of the official code, which leaves the four weights free; here each pair sums to 1.

    It climbs three times a step, so it has no `perturbed()` block: call `complete(again)` after the first backward, or use
    `backward()` or the closure form.

    Arguments:
        optimizer: any torch optimizer.
        rho: radius of the outer climb, >= 0; at 0 nothing climbs.
        rho_inner: radius of the inner climbs, >= 0; scheduled as `rho` is, the same for all groups that climb.
        beta0: weight of the plain gradient, in [0, 1].
        beta1: weight of the inner climb at theta, in [0, 1].
        gamma: how much is taken away across, >= 0.
        model: with it, BatchNorm running statistics are held in all passes but the first.
        common: see `Common`.

    Raises:
        ValueError: if a radius or `gamma` is negative, a weight outside [0, 1], or the optimizer maximizes.

    For `L(w) = w^2 / 2` at `w = 1` all gradients lie on a line: `g1 = 1.1`, `g3 = 1.3`, and nothing is left across:

    >>> w = nn.Parameter(torch.tensor(1.0))
    >>> rule = GAM(torch.optim.SGD([w], lr=0.1), rho=0.2, rho_inner=0.1, beta1=0.6)
    >>> (w**2 / 2).backward()
    >>> rule.complete(lambda: (w**2 / 2).backward())
    >>> w.grad
    tensor(1.1800)
    """

    by_block: ClassVar[bool] = False

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rho: Annotated[float, Range(ge=0), Search(0.02, 1.0, log=True)] = 0.2,
        *,
        rho_inner: Annotated[float, Range(ge=0), Search(0.005, 0.1, log=True)] = 0.03,
        beta0: Annotated[float, Range(ge=0, le=1)] = 0.5,
        beta1: Annotated[float, Range(ge=0, le=1)] = 0.6,
        gamma: Annotated[float, Range(ge=0), Search(0.01, 0.3, log=True)] = 0.03,
        model: nn.Module | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.rho_inner = in_range("rho_inner", rho_inner, Range(ge=0))
        self.beta0 = in_range("beta0", beta0, Range(ge=0, le=1))
        self.beta1 = in_range("beta1", beta1, Range(ge=0, le=1))
        self.gamma = in_range("gamma", gamma, Range(ge=0))
        super().__init__(optimizer, rho, model=model, **common)

    def direction(self, first: Gradients) -> Direction:
        """Return the gradient itself, the direction of the inner climbs."""
        return Direction(first, norm(first.values()))

    def perturbed(self, contributions: Contributions | None = None) -> NoReturn:
        """Refuse: one block is not enough.

        Raises:
            RuntimeError: always, with the way out.
        """
        raise RuntimeError(
            "GAM climbs three times a step, which one perturbed() block cannot do. After the first backward call "
            "`sharpness.complete(again)` with a function that runs forward and backward; or use backward() or "
            "as_optimizer()."
        )

    def complete(
        self, again: Callable[[], Any], contributions: Contributions | None = None, *, model: nn.Module | None = None
    ) -> None:
        """Make the three other gradients with `again()` and leave what is spent in `.grad`."""
        rhos = self._rhos()
        with self.slots.stashed() as g0:
            self.last = {"share": 1.0, "radius": 0.0}
            radius = max((rhos[p] for p in g0), default=0.0)
            if not radius or not _sound(g0, radius):
                self.slots.put(g0)
            else:
                self.last["radius"] = radius
                self._climb_thrice(again, g0, rhos, model or self.model)
        self._completed()

    def _climb_thrice(
        self, again: Callable[[], Any], g0: Gradients, rhos: dict[nn.Parameter, float], model: nn.Module | None
    ) -> None:
        inner_rhos = self._inner_rhos(rhos)
        g1 = self._made_at(again, g0, inner_rhos, model)
        with self._at(_difference(g1, g0), rhos):
            g2 = self._made_at(again, {}, {}, model)
            g3 = self._made_at(again, g2, inner_rhos, model)
        self._spend(g0, g1, lambda: self._decomposed(g0, g1, g2, g3))

    def _inner_rhos(self, rhos: dict[nn.Parameter, float]) -> dict[nn.Parameter, float]:
        found = factors(self.rho_schedule, self.optimizer, self._initial_rates, self.blocks + 1)
        inner_rhos = radii(self.optimizer, self.rho, lambda _, k: self.rho_inner * found[k])
        return {p: rho if rhos[p] else 0.0 for p, rho in inner_rhos.items()}

    def _made_at(
        self, again: Callable[[], Any], along: Gradients, rhos: dict[nn.Parameter, float], model: nn.Module | None
    ) -> Gradients:
        self.slots.put({})
        with self._at(along, rhos), self.replay.again(), held(model):
            again()
        made = {p: g.detach() for p, g in kept(self.slots.made()).items()}
        if not made:
            raise RuntimeError("No gradient was made by `again()`. It must run forward and backward.")
        return made

    @contextmanager
    def _at(self, along: Gradients, rhos: dict[nn.Parameter, float]) -> Iterator[None]:
        radius = max((rhos[p] for p in along), default=0.0)
        vectors = along if radius and _sound(along, radius) else {}
        length = float(norm(vectors.values())) if vectors else 1.0
        with displaced(steps(vectors, rhos), length, exact=self.exact):
            yield

    @torch.no_grad()
    def _decomposed(self, g0: Gradients, g1: Gradients, g2: Gradients, g3: Gradients) -> Gradients:
        h = _sum((self.beta1, g1), (1 - self.beta1, g3))
        m = _sum((1.0, g0), (1 - self.beta0, g2))
        squared = inner(h, h)
        along = float(inner(m, h) / squared) if squared > 0 else 0.0
        return _sum((1 + self.gamma * along, h), (-self.gamma, m))


def _sound(gradients: Gradients, radius: float) -> bool:
    length = float(norm(gradients.values())) if gradients else 0.0
    return bool(torch.isfinite(torch.tensor(length))) and length > radius * SHORTEST


def _difference(a: Gradients, b: Gradients) -> Gradients:
    return _sum((1.0, a), (-1.0, b))


def _sum(*terms: tuple[float, Gradients]) -> Gradients:
    total: Gradients = {}
    for factor, gradients in terms:
        for p, g in gradients.items():
            total[p] = total[p].add_(g, alpha=factor) if p in total else g * factor
    return total
