"""The one part that all rules share: climb, have the gradient made once more, come back.

A rule is an object *beside* any torch optimizer, not an optimizer: the user's optimizer keeps its scheduler, its
GradScaler, its hooks and its `state_dict`. Weights are saved as copies and copied back, so they return bit for bit
whatever happened in between; subtracting the step again would drift, and restoring "where a gradient is" forgets
parameters the second pass did not use.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from msam._modules import held
from msam.sharpness._checkpoint import fitted
from msam.sharpness._climb import moved
from msam.sharpness._common import DEFAULTS, Common, Contributions, Direction, sound_options
from msam.sharpness._radius import factors, initial_rates, radii, sound_radius
from msam.sharpness._random import Replay
from msam.sharpness._ranks import apart, mean_over_ranks, resharded
from msam.sharpness._slots import Slots
from msam.sharpness._tensors import Gradients, blended, calls, compared, vector

if TYPE_CHECKING:
    from msam.sharpness._closure import ClosureOptimizer


class Sharpness(ABC):
    """A sharpness rule beside an optimizer. Abstract: SAM, MSAM, ... say where to climb and how to spend both gradients.

    Arguments:
        optimizer: any torch optimizer; its parameters are the ones that climb. A group may carry its own `"rho"`.
        rho: radius of the climb, an L2 norm over all parameters, >= 0.
        model: with it, BatchNorm running statistics are held during the second pass.
        common: see `Common`.

    Attributes:
        last: `share` and `radius` (0 when nothing climbed) of the last `perturbed()` block.
        observed: what `observe()` heard last.
        completed: whether a `perturbed()` block was completed since the optimizer's last step.
        blocks: how many `perturbed()` blocks were completed.
        remembered: what a rule remembers of every parameter from step to step; saved by `state_dict`.

    Raises:
        ValueError: if `rho` or `monitor` is negative, the schedule is unknown, or the optimizer maximizes.
        TypeError: for an option that does not exist.
    """

    uses_contributions: ClassVar[bool] = False
    """Whether the rule needs `contributions`."""

    by_sample: bool = False
    """Whether contributions are wanted for every sample, `(M, N)`."""

    by_block: ClassVar[bool] = True
    """Whether `perturbed()` serves the rule by default; where not, it climbs more than once, or looks at samples."""

    stackable: ClassVar[frozenset[str] | None] = None
    """Options with which runs can be stacked (`_rows`), all others at their defaults; None: they cannot."""

    defaults: ClassVar[Common] = DEFAULTS
    """Defaults of what every rule takes."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, rho: float, *, model: nn.Module | None, **common: Unpack[Common]
    ) -> None:
        self.slots = Slots(optimizer, type(self).__name__)
        options = sound_options(common, self.defaults, self.slots.parameters(), type(self).__name__)
        self.optimizer = optimizer
        self.rho = sound_radius(rho)
        self.model = model
        self.sync, self.monitor, self.rho_schedule = options["sync"], options["monitor"], options["rho_schedule"]
        self.exact = options["memory"] == "exact"
        self.per_worker = options["radius"] == "worker"
        self.replay = Replay(options["rng"] == "replay")
        self.last: dict[str, float] = {}
        self.observed: Contributions | None = None
        self.completed = False
        self.remembered: Gradients = {}
        self.blocks = 0
        self._climbs = 0
        self._initial_rates = initial_rates(optimizer)
        self._rhos()
        self._listen()

    @abstractmethod
    def direction(self, first: Gradients) -> Direction:
        """Return where to climb from the first pass's gradients."""

    def share(self, contributions: Contributions | None) -> float:
        """Return the share of the second gradient in what is spent, in [0, 1]; 1 where a rule does not say otherwise.

        Raises:
            ValueError: if the rule needs contributions and there are none, or they are none.
        """
        return 1.0

    def combined(self, first: Gradients, second: Gradients, share: float) -> Gradients:
        """Return what is spent, `(1 - share) * first + share * second`; may overwrite the tensors of `second`."""
        return blended(first, second, share)

    def instead(self, first: Gradients, share: float) -> Gradients | None:
        """Return what is spent in a step that does not climb by design; None in one that climbs."""
        return None

    def agreed(self, contributions: Contributions | None) -> Contributions | None:
        """Return the mean of contributions over ranks."""
        return mean_over_ranks(contributions, self.slots) if self.sync else contributions

    @property
    def wants_contributions(self) -> bool:
        """Whether contributions are needed in the next step."""
        return self.uses_contributions

    @property
    def needs_samples(self) -> bool:
        """Whether only `backward()` serves, since the rule looks at the loss of every sample."""
        return False

    @property
    def prefers_backward(self) -> bool:
        """Whether `backward()` is needed, or cheaper than a `perturbed()` block."""
        return self.needs_samples

    def radius(self, rho: float, factor: float) -> float:
        """Return the radius of a group from its `rho` and the schedule's factor."""
        return rho * factor

    def scope(self, first: Gradients, contributions: Contributions | None) -> Gradients:
        """Return the part of the first gradients whose parameters climb: all, where a rule does not say otherwise."""
        return first

    def stretch(self, share: float) -> float:
        """Return by how much the radius is stretched in a step of this share."""
        return 1.0

    def perturbed(self, contributions: Contributions | None = None) -> AbstractContextManager[bool]:
        """Climb; let the block make the gradient once more; come back and combine the two.

        On entry the gradients are stashed and set to None and the weights climb. On exit the weights are back bit for
        bit and `.grad = (1 - share) * first + share * second` (or as the rule combines them), where a gradient that a
        pass did not make counts as 0.
        After an exception `.grad` is the first gradient and the exception goes on. With rho = 0, a zero or a non-finite
        first gradient nothing climbs and `.grad` stays as it was (so that a GradScaler sees the infinity).

        Arguments:
            contributions: `(M,)` in the order of the model's modalities, for rules that use them.

        Returns:
            a block that yields whether the weights climbed; it may be skipped when not, and what it makes then is dropped.

        Raises:
            RuntimeError: if the block made no gradient while climbing, stepped the optimizer, or is inside another one.
            ValueError: if the rule needs contributions and did not get sound ones.
        """
        self._whole_loss_serves()
        return self._climbed(self.agreed(contributions), self.model)

    def complete(
        self, again: Callable[[], Any], contributions: Contributions | None = None, *, model: nn.Module | None = None
    ) -> None:
        """Finish a step whose first gradient is made: call `again()`, which makes it anew, wherever the rule climbs to.

        The form that every rule has, also those that climb more than once; `perturbed()` is for the others.

        Arguments:
            again: clears nothing, runs forward and backward.
            contributions: as for `perturbed`.
            model: whose BatchNorm statistics are held meanwhile; None for the rule's own.
        """
        self._whole_loss_serves()
        with self._climbed(self.agreed(contributions), model or self.model) as climbing:
            if climbing:
                again()

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
        """Run all passes and leave the combined gradient in `.grad`; what was in `.grad` before is cleared.

        Equal to a first backward and a `perturbed()` block where both serve; rules that treat samples apart, or run some
        encoders once, need this form.

        Arguments:
            model: called as `model(inputs)`; a module's BatchNorm statistics are held during the second pass.
            inputs: what the model takes.
            losses: `Output -> (N,)`, one loss per sample; their mean is minimised.
            contributions: `(M,)` (or `(M, N)` for a rule that weighs samples), or a function of the first pass's output
                that returns them.
            present: which samples have which modalities, `(B, M)` bool; the model is called as `model(inputs, present)`.
            target: the classes `(N,)`, for rules that ask for them.
            backward: what is called instead of `loss.backward()`, where an engine or a scaler wants to do it.

        Returns:
            the first pass's output, its graph freed.

        Raises:
            ValueError: if the rule needs contributions or targets and there are none, or `losses` gives no vector.
        """
        forward, module = calls(model, inputs, present)
        self.optimizer.zero_grad()
        with self.replayable(), apart(module if self.per_worker else None) as over_ranks:
            output = forward()
            shares = contributions(output) if callable(contributions) else contributions
            backward(vector(losses(output)).mean())
            self.complete(lambda: backward(vector(losses(forward())).mean()), shares, model=module)
            over_ranks(self.slots)
        return output

    def replayable(self) -> AbstractContextManager[None]:
        """Stand around a step, first pass included, in which `rng="replay"` is to find the draws of the first pass again.

        `backward()`, the closure form and the training loop do so themselves; without replay it does nothing.
        """
        return self.replay.step()

    def observe(self, contributions: Contributions) -> None:
        """Tell the closure form this step's contributions; heard in the first pass only, ignored in the second."""
        if not self.slots.taken:
            self.observed = contributions

    def as_optimizer(self) -> "ClosureOptimizer":
        """Return an optimizer for trainers that pass closures: `step(closure)` runs the closure twice.

        It shares parameter groups and state with the user's optimizer.

        Raises:
            RuntimeError: for a rule that looks at the loss of every sample.
        """
        self._whole_loss_serves()
        from msam.sharpness._closure import ClosureOptimizer

        return ClosureOptimizer(self)

    def state_dict(self) -> dict[str, Any]:
        """Return what the rule itself remembers from step to step: tensors and plain values."""
        memory = [self.remembered.get(p) for p in self.slots.parameters()] if self.remembered else []
        return {"blocks": self.blocks, "climbs": self._climbs, "rates": list(self._initial_rates), "memory": memory}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Raises:
            ValueError: if it is of another number of parameters.
        """
        parameters, memory = self.slots.parameters(), state["memory"]
        if memory and len(memory) != len(parameters):
            raise ValueError(f"The state is of {len(memory)} parameters, the optimizer has {len(parameters)}.")
        self.blocks, self._climbs = int(state["blocks"]), int(state["climbs"])
        self._initial_rates = [float(rate) for rate in state["rates"]]
        saved = zip(parameters, memory or [None] * len(parameters), strict=True)
        self.remembered = {p: value.detach().clone().to(p.device) for p, value in saved if value is not None}

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle with the optimizer and the model, so that the copy steps copies of the parameters.

        Gradients do not travel, so in the copy no block is completed.
        """
        if self.slots.taken:
            raise RuntimeError(
                "A rule cannot be copied or pickled inside perturbed(), where the weights have climbed. Do so after it."
            )
        return {**self.__dict__, "completed": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._listen()

    def _listen(self) -> None:
        """Be told of the optimizer's steps and loads; hooks do not travel with a copied optimizer."""
        self.optimizer.register_step_pre_hook(self._before_step)
        self.optimizer.register_load_state_dict_pre_hook(fitted)

    def _whole_loss_serves(self) -> None:
        """Refuse a rule that splits the loss where the split cannot be made."""
        if self.needs_samples:
            raise RuntimeError(
                f"{type(self).__name__} with these options looks at the loss of every sample, which neither a "
                "perturbed() block nor a closure can see. Use "
                "`sharpness.backward(model, inputs, losses, contributions, target=target)`."
            )

    @contextmanager
    def _climbed(
        self, agreed: Contributions | None, model: nn.Module | None, *, share: float | None = None
    ) -> Iterator[bool]:
        share = self.share(agreed) if share is None else share
        rhos = self._rhos(self.stretch(share))
        with self.slots.stashed() as first:
            instead = self.instead(first, share) if first and max(rhos.values()) > 0 else None
            climbing = {} if instead else self.scope(first, agreed)
            resharded(model, climbing)
            with moved(self, climbing, rhos) as radius, self.replay.again(), held(model if radius else None):
                yield radius > 0
            second = self.slots.made()
            if radius and not second:
                raise RuntimeError(
                    "No gradient was made inside perturbed(). Run forward and backward once more inside the block: "
                    "criterion(model(x), y).backward()."
                )
            self.last = {"share": share, "radius": radius}
            if radius:
                self._spend(first, second, lambda: self.combined(first, second, share))
            else:
                self.slots.put(instead or first)
        self._completed()

    def _completed(self) -> None:
        self.blocks += 1
        self.completed = True
        self.replay.forget()

    def _spend(self, first: Gradients, second: Gradients, combine: Callable[[], Gradients]) -> None:
        """Put the combined gradient where the optimizer finds it, and report on both if it is time to."""
        self._climbs += 1
        if self.monitor and self._climbs % self.monitor == 0:
            self.last |= compared(first, second)
        with torch.no_grad():
            self.slots.put(combine())

    def _rhos(self, stretch: float = 1.0) -> dict[nn.Parameter, float]:
        """Return the radius of every parameter in this step."""
        found = factors(self.rho_schedule, self.optimizer, self._initial_rates, self.blocks + 1)
        return radii(self.optimizer, self.rho, lambda rho, k: self.radius(rho, found[k]) * stretch)

    def _before_step(self, *_: object) -> None:
        if self.slots.taken:
            raise RuntimeError("The optimizer was stepped inside perturbed(). Step it after the block, once.")
        self.completed = False
