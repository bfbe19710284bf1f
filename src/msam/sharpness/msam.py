"""M-SAM: modality-aware sharpness-aware minimization (Rajoli, Ji, Ma, Afghah, NeurIPS 2025)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from msam.checks import Range, Search, in_range, one_of
from msam.sharpness import _chosen
from msam.sharpness._common import Common, Contributions, Direction
from msam.sharpness._features import backward_reusing_features
from msam.sharpness._modality_losses import Kind, modality_parts
from msam.sharpness._perturb import Sharpness
from msam.sharpness._reuse import Change, change, reused
from msam.sharpness._roles import roles
from msam.sharpness._split import backward_of_parts
from msam.sharpness._tensors import Gradients, norm


class MSAM(Sharpness):
    r"""Algorithm 1 of the paper in two passes: `.grad = s * grad L(theta + eps) + (1 - s) * grad L(theta)`.

    With `nu` the contributions of the batch, `d = argmax nu` and `s = nu_d`, the paper ascends the dominant modality's
    loss `L_d = nu_d L`, and spends `grad L_d(theta + eps) + grad L_s(theta)`, `L_s = (1 - nu_d) L` (Eq. 4 to 12). Both
    are multiples of the one loss `L`, so `eps = rho * g / ||g||` with `g = grad L(theta)` is SAM's own, and the third
    backward of Algorithm 1, line 7, gives nothing new.

    What follows, said plainly: as printed, *which* modality dominates never enters, only *how much* (`s` in `[1/M, 1]`).
    The rule is a blend of SAM and the base optimizer (the gradient-norm penalty of Zhao, Zhang, Hu, ICML 2022) whose weight
    Shapley contributions set anew in every step; to first order it is SAM with radius `s * rho`. Tune `rho` for it
    anew: it stays stable at radii where SAM does not.

    The paper leaves `rho` unsaid, 0.05 is SAM's; it prints the sum over the other modalities so that the dominant one
    counts twice (Eq. 12), which is read as `L_s`, as in Algorithm 1; `nu` is detached and kept from theta.

    What the words of the paper promise beyond that are named options, off by default, that compose:

    `scope="dominant"` climbs in the encoder of the dominant modality alone, "dominant+fusion" in its encoder, its head and
    the fusion, the radius an L2 norm over that scope (Sec. 3.2 speaks of the modality's own parameters). Now it matters
    who dominates. Encoders that do not climb run once a step in `backward()`, which is cheaper than SAM; not so where the
    next two options split the loss, or with `every`.

    `modality` names who is taken for the dominant one instead: "weakest", "random", or a modality by its name; s is then
    its contribution. These are controls: what awareness is worth is the distance to them.

    `weighting="sample"` takes the contributions of every sample, `L_d = mean_b nu_d,b L_b`: the losses are no multiples of
    one another, and the direction is not SAM's. `loss="response"` and `"masked"` give every modality a loss of its own,
    `L_m = nu_m CE(Phi_m, y)` of its Shapley logits (Sec. 3.6 writes L as such a sum), or `nu_m CE(f(x_m alone), y)` with
    the others absent, the other reading of Algorithm 1, line 4; both as coalitions are measured, the fusion in evaluation
    mode. These need `backward()`.

    Arguments:
        optimizer: any torch optimizer.
        rho: radius, >= 0.
        scope: where to climb: all, dominant, dominant+fusion; the last two need `model` or groups with roles.
        modality: whose part climbs: dominant, weakest, random (anew in every step), or a name, which needs roles too.
        weighting: contributions of the batch, or of every sample.
        loss: weighted (the fused loss by contributions), response, or masked.
        share: contribution (that modality's), one, or a number in [0, 1]: the weight of the second gradient.
        compensate: climb by `rho / s`, so that the first-order effect is SAM's at `rho`.
        contributions_every: steps for which contributions are kept, >= 1.
        every: steps from climb to climb, >= 1; in between the change that climbing made is reused, scaled by `||g||`.
        model: with it, BatchNorm running statistics are held during the second pass, and roles are known.
        common: see `Common`.

    Raises:
        ValueError: if a number is out of its range, a word unknown, roles are needed and not known, options exclude one
            another, or the optimizer maximizes.

    For `L(w) = w^2 / 2` at `w = 1`, rho = 0.5 and a dominant share of 0.8: `0.8 * 1.5 + 0.2 * 1.0`:

    >>> w = nn.Parameter(torch.tensor(1.0))
    >>> rule = MSAM(torch.optim.SGD([w], lr=0.1), rho=0.5)
    >>> (w**2 / 2).backward()
    >>> with rule.perturbed([0.2, 0.8]):
    ...     (w**2 / 2).backward()
    >>> w.grad
    tensor(1.4000)
    """

    uses_contributions: ClassVar[bool] = True
    stackable: ClassVar[frozenset[str] | None] = frozenset({"rho", "rho_schedule", "share", "compensate"})

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        # twice SAM's: half the second gradient is half the radius, to first order
        rho: Annotated[float, Range(ge=0), Search(0.02, 1.0, log=True)] = 0.05,
        *,
        scope: Literal["all", "dominant", "dominant+fusion"] = "all",
        modality: str = "dominant",
        weighting: Literal["batch", "sample"] = "batch",
        loss: Kind = "weighted",
        share: Literal["contribution", "one"] | float = "contribution",
        compensate: bool = False,
        contributions_every: Annotated[int, Range(ge=1)] = 1,
        every: Annotated[int, Range(ge=1)] = 1,
        model: nn.Module | None = None,
        **common: Unpack[Common],
    ) -> None:
        self.climbs_in = one_of("scope", scope, ("all", "dominant", "dominant+fusion"))
        self.by_sample = one_of("weighting", weighting, ("batch", "sample")) == "sample"
        self.loss = one_of("loss", loss, ("weighted", "response", "masked"))
        self.fixed_share = _fixed(share)
        self.compensate = compensate
        self.contributions_every = int(in_range("contributions_every", contributions_every, Range(ge=1)))
        self.every = int(in_range("every", every, Range(ge=1)))
        self.kept: list[float] | None = None
        self._along = 0.0
        self._roles = roles(optimizer, model)
        self.modality = _chosen.known(modality, self._roles and self._roles.modalities)
        if self.climbs_in != "all" and (self._roles is None or not self._roles.encoders):
            raise ValueError(
                f"scope={scope!r} must know whose each parameter is: give `model` (a MultimodalModel, or one of "
                "`msam.adapt(..., encoders={...})`), or an optimizer made of `model.parameter_groups()`."
            )
        if self.needs_samples and (self.fixed_share is not None or compensate or every > 1):
            raise ValueError(
                'weighting="sample" and loss="response" or "masked" split the loss itself: `share`, `compensate` and '
                "`every` do not go with them."
            )
        if self.by_sample and contributions_every > 1:
            raise ValueError(
                'weighting="sample" needs the contributions of every batch: `contributions_every` must be 1.'
            )
        super().__init__(optimizer, rho, model=model, **common)

    @property
    def needs_samples(self) -> bool:
        """Whether the loss is split by samples or modalities, so that only `backward()` serves."""
        return self.by_sample or self.loss != "weighted"

    @property
    def prefers_backward(self) -> bool:
        """Whether `backward()` is needed, or cheaper: where not all encoders climb."""
        return self.needs_samples or (self.climbs_in != "all" and self.every == 1)

    @property
    def wants_contributions(self) -> bool:
        """Whether contributions are needed in the next step."""
        return self.kept is None or self.blocks % self.contributions_every == 0

    def direction(self, first: Gradients) -> Direction:
        """Return the gradient itself: the direction of the dominant modality's loss is the direction of the loss."""
        return Direction(first, norm(first.values()))

    def agreed(self, contributions: Contributions | None) -> Contributions | None:
        """Return the mean over ranks, kept for the steps that bring none."""
        if contributions is None and not self.wants_contributions:
            return self.kept
        self.kept = sound(super().agreed(contributions))
        return self.kept

    def share(self, contributions: Contributions | None) -> float:
        """Return the contribution of the modality that climbs, or what was fixed instead.

        Raises:
            ValueError: if there are none, or they are not finite, `>= 0` and of sum 1.
        """
        values = sound(contributions)
        own = min(max(values[self.chosen(values)], 0.0), 1.0)
        return own if self.fixed_share is None else self.fixed_share

    def chosen(self, contributions: Sequence[float], step: int | None = None) -> int:
        """Return the place of the modality that climbs: of the largest contribution, unless `modality` says otherwise.

        Arguments:
            contributions: of the modalities.
            step: blocks that were completed before the one that is asked of, this one's if None.

        Raises:
            ValueError: if the contributions are not one for each modality, where these are known.
        """
        names = self._roles and self._roles.modalities
        if names is not None and len(contributions) != len(names):
            raise ValueError(f"`contributions` must be of {list(names)}, received {len(contributions)} of them.")
        return _chosen.place(self.modality, contributions, names, self.blocks if step is None else step)

    def scope(self, first: Gradients, contributions: Contributions | None) -> Gradients:
        """Return the gradients of what climbs: all, or those of one modality."""
        if self.climbs_in == "all" or self._roles is None:
            return first
        members = self._roles.members(self._climbing(contributions), fusion=self.climbs_in == "dominant+fusion")
        return {p: g for p, g in first.items() if p in members}

    def stretch(self, share: float) -> float:
        """Return `1 / s` where the radius is to compensate for the share."""
        return 1 / share if self.compensate and share > 0 else 1.0

    def combined(self, first: Gradients, second: Gradients, share: float) -> Gradients:
        """Return the blend; where steps in between reuse it, the change is kept."""
        if self.every > 1:
            self._along, self.remembered = change(first, second)
        return super().combined(first, second, share)

    def instead(self, first: Gradients, share: float) -> Gradients | None:
        """Return the gradient with the kept change, in the steps between climbs."""
        if self.blocks % self.every == 0 or not self.remembered:
            return None
        return reused(first, Change(self._along, self.remembered), share)

    def backward(
        self,
        model: Callable[..., Any],
        inputs: Any,
        losses: Callable[[Any], Tensor],
        contributions: Contributions | Callable[[Any], Contributions] | None = None,
        *,
        present: Tensor | None = None,
        target: Tensor | None = None,
        backward: Callable[..., None] = Tensor.backward,
    ) -> Any:
        """Run both passes in one call, see `Sharpness.backward`; encoders that do not climb run once.

        With `weighting="sample"` contributions are `(M, N)`. The responses of modalities come from `model.fusion`.
        """
        if self.needs_samples:
            step = self.blocks
            parts = modality_parts(self, model, losses, contributions, self.loss)
            output = backward_of_parts(
                self, model, inputs, parts, present=present, backward=backward, contributions=lambda: self.kept
            )
            self.last["share"] = self.kept[self.chosen(self.kept, step)] if self.kept else 0.0
            return output
        if self.climbs_in != "all" and self.every == 1 and hasattr(model, "encode") and hasattr(model, "fuse"):
            return backward_reusing_features(
                self, model, inputs, losses, contributions, self._climbing, present=present, backward=backward
            )
        return super().backward(model, inputs, losses, contributions, present=present, backward=backward)

    def state_dict(self) -> dict[str, Any]:
        """Return what the rule remembers: the kept contributions and change among it."""
        return {**super().state_dict(), "kept": self.kept, "along": self._along}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        super().load_state_dict(state)
        self.kept, self._along = state["kept"], float(state["along"])

    def _climbing(self, contributions: Contributions | None) -> str:
        assert self._roles is not None
        return self._roles.modalities[self.chosen(sound(contributions))]


def sound(contributions: Contributions | None) -> list[float]:
    """Return contributions as floats.

    Raises:
        ValueError: if there are none, or they are not `(M,)`, finite, `>= 0` and of sum 1.
    """
    if contributions is None:
        raise ValueError(
            "MSAM needs the contributions of the modalities, received None. Compute them from the first pass: "
            "shapley.contributions(shapley.coalition_logits(model, output.features), target)."
        )
    try:
        given: Any = contributions.tolist() if isinstance(contributions, Tensor) else contributions
        values = [float(value) for value in given]
        sound = bool(values) and all(math.isfinite(v) and v >= -1e-6 for v in values) and abs(sum(values) - 1) <= 1e-3
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise ValueError(f"`contributions` must be (M,), finite, >= 0 and sum to 1, received {contributions}.")
    return values


def _fixed(share: str | float) -> float | None:
    """Return the share that does not depend on contributions, None where it does."""
    if isinstance(share, str):
        return {"contribution": None, "one": 1.0}[one_of("share", share, ("contribution", "one"))]
    return in_range("share", share, Range(ge=0, le=1))
