"""Who is timed: plain SGD, the floor of any two-pass rule, a peer, the paper's algorithm by the letter, and ours.

All are given the same model, batch and optimizer flags, and make one training step each time they are called.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from pytorch_optimizer import SAM as PeerSAM
from torch import Tensor
from torch.nn.functional import cross_entropy

import msam
from msam import shapley
from msam.models import MultimodalModel
from msam.types import Output

RHO = 0.05


class Contender:
    """Plain training: one pass, one step of SGD with momentum.

    Arguments:
        model: trained in place.
        inputs: modality -> `(B, ...)`.
        target: `(B,)` classes.
        flags: of the optimizer (`fused`, `foreach`).
        autocast: makes the context of a forward pass.

    Attributes:
        period: steps after which its work repeats; a measurement holds whole periods.
    """

    period = 1

    def __init__(
        self,
        model: MultimodalModel,
        inputs: dict[str, Tensor],
        target: Tensor,
        flags: Mapping[str, bool],
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.model, self.inputs, self.target, self.flags, self.autocast = model, inputs, target, dict(flags), autocast
        self.settings: dict[str, Any] = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 1e-4, **flags}
        self.optimizer = self.made()

    def made(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.model.parameters(), **self.settings)

    def forward(self) -> Output:
        """Return the model's output."""
        with self.autocast():
            return self.model(self.inputs)

    def loss(self, output: Output) -> Tensor:
        """Return the mean loss."""
        return cross_entropy(output.logits.float(), self.target)

    def shares(self, output: Output) -> Tensor:
        """Return the contributions of the batch."""
        return shapley.contributions(shapley.coalition_logits(self.model, output.features), self.target)

    def step(self) -> None:
        """Make one training step."""
        self.optimizer.zero_grad()
        self.loss(self.forward()).backward()
        self.optimizer.step()


class Floor(Contender):
    """Two forward and backward passes and one step, nothing else: no rule that climbs can cost less."""

    def step(self) -> None:
        """Make two passes and one step."""
        self.optimizer.zero_grad()
        self.loss(self.forward()).backward()
        self.optimizer.zero_grad()
        self.loss(self.forward()).backward()
        self.optimizer.step()


class Peer(Contender):
    """SAM of pytorch_optimizer, as its own documentation uses it."""

    def made(self) -> torch.optim.Optimizer:
        """Return the peer's wrapper of SGD."""
        return PeerSAM(self.model.parameters(), torch.optim.SGD, rho=RHO, **self.settings)

    def closure(self) -> Tensor:
        """Clear the gradients and make them anew."""
        self.optimizer.zero_grad()
        loss = self.loss(self.forward())
        loss.backward()
        return loss

    def step(self) -> None:
        """Make a first pass, then the peer's step."""
        self.closure()
        self.optimizer.step(self.closure)


class Letter(Contender):
    """Algorithm 1 as printed: coalitions by whole passes, three backwards, a loop over parameters."""

    def step(self) -> None:
        """Make one step by the letter."""
        parameters = list(self.model.parameters())
        logits = shapley.coalition_logits(self.model, self.inputs, absent="input")
        nu = shapley.contributions(logits, self.target)
        dominant = nu.max()
        loss = self.loss(self.forward())
        climbing = torch.autograd.grad(dominant * loss, parameters, retain_graph=True)
        staying = torch.autograd.grad((1 - dominant) * loss, parameters)
        length = torch.stack([g.norm() for g in climbing]).norm()
        steps = [RHO * g / length for g in climbing]
        with torch.no_grad():
            for p, e in zip(parameters, steps, strict=True):
                p.add_(e)
        robust = torch.autograd.grad(dominant * self.loss(self.forward()), parameters)
        with torch.no_grad():
            for p, e in zip(parameters, steps, strict=True):
                p.sub_(e)
        for p, a, b in zip(parameters, robust, staying, strict=True):
            p.grad = a + b
        self.optimizer.step()


class Ours(Contender):
    """A rule of ours beside the optimizer, contributions included where it wants them."""

    options: ClassVar[Mapping[str, Any]] = {}
    kind: ClassVar[Callable[..., Any]] = msam.MSAM

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rule = self.kind(self.optimizer, rho=RHO, model=self.model, **self.options)
        self.period = max(self.options.get("every", 1), self.options.get("contributions_every", 1))

    def step(self) -> None:
        """Make one step: the three lines of the README."""
        self.optimizer.zero_grad()
        output = self.forward()
        self.loss(output).backward()
        shares = self.shares(output) if self.rule.wants_contributions else None
        with self.rule.perturbed(shares) as climbing:
            if climbing:
                self.loss(self.forward()).backward()
        self.optimizer.step()


class OurSAM(Ours):
    """SAM of ours, which needs no contributions."""

    kind = msam.SAM


class LowMemory(Ours):
    """M-SAM without a copy of the weights."""

    options: ClassVar[Mapping[str, Any]] = {"memory": "low"}


class Seldom(Ours):
    """M-SAM that measures contributions in every tenth step."""

    options: ClassVar[Mapping[str, Any]] = {"contributions_every": 10}


class Every5(Ours):
    """M-SAM that climbs in every fifth step and reuses the change in between."""

    options: ClassVar[Mapping[str, Any]] = {"every": 5}


class Every5Seldom(Ours):
    """The same, contributions measured where it climbs."""

    options: ClassVar[Mapping[str, Any]] = {"every": 5, "contributions_every": 5}


class Dominant(Ours):
    """M-SAM that climbs in the encoder of the dominant modality; the other encoders run once."""

    options: ClassVar[Mapping[str, Any]] = {"scope": "dominant"}

    def step(self) -> None:
        """Make one step through `backward()`."""
        with self.autocast():
            self.rule.backward(self.model, self.inputs, self._losses, self.shares)
        self.optimizer.step()

    def _losses(self, output: Output) -> Tensor:
        return cross_entropy(output.logits.float(), self.target, reduction="none")


CONTENDERS: Mapping[str, type[Contender]] = {
    "SGD": Contender,
    "floor: two passes": Floor,
    "pytorch_optimizer SAM": Peer,
    "SAM": OurSAM,
    "M-SAM by the letter": Letter,
    "M-SAM": Ours,
    "M-SAM, memory low": LowMemory,
    "M-SAM, contributions every 10": Seldom,
    "M-SAM, scope dominant": Dominant,
    "M-SAM, every 5": Every5,
    "M-SAM, every 5, contributions every 5": Every5Seldom,
}
