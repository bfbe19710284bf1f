"""Contributions of the modalities at every n-th step of a loop that is not ours."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from msam import checks, shapley, tasks
from msam._modules import evaluating
from msam.checks import Range
from msam.shapley import VALUES, Value
from msam.tasks._targets import Told, warn_unless_standardised

COST = 0.02
"""The part of a loop's time that a monitor may take where it chooses its samples itself."""

MARGIN = 0.5
"""Part of that which passes may take; the rest is for what surrounds them."""

Log = Callable[[dict[str, float], int], Any]


class Seen(NamedTuple):
    """One look.

    Attributes:
        step: how many steps had been made, this one included.
        contributions: of the modalities in their order, >= 0, of sum 1.
        samples: rows of the target that were looked at.
    """

    step: int
    contributions: tuple[float, ...]
    samples: int


class Monitor:
    """Measure the contributions of the modalities at every `every`-th step; call it once a step.

        monitor = msam.Monitor(model, every=50, log=fabric.log_dict)
        for x, y in batches:
            ...
            optimizer.step()
            monitor(x, y)

    The first step is looked at, then every `every`-th after it. A look leaves model, gradients, buffers and random numbers
    as they were. Of a `MultimodalModel` it takes one forward pass of the encoders in evaluation mode, or none where the
    step's features are given; absent modalities are zeros of features (`shapley.coalition_logits`). Of a model from
    `msam.adapt`, or any callable on inputs, it takes one pass per coalition, `2**M - 1`, on absent inputs. Looks are made
    on as many samples of the batch as keep passes to 1 % of the loop's time, a step counted as three forward passes; a
    batch's worth of noise is the price. The whole stays below 2 %, but for steps of a few milliseconds.

    Arguments:
        model: without the wrapper of DDP and its like, whose forward passes all ranks must make.
        every: steps from look to look, >= 1.
        value: what a contribution is a share of, see `shapley.contributions`.
        absent: "feature" or "input": what is absent; None: "feature" where the model has a fusion, else "input".
        samples: of each batch, at most, with all their segments, >= 1; None: see above.
        task: what targets are, "single-label" classes, "multi-label" labels or a "regression", whose numbers should be
            standardised; None: what the first ones look at tell, see `msam.tasks.told`.
        log: called with `{"contribution/audio": 0.3, ...}` and the step at every look: `fabric.log_dict`, `wandb.log`, a
            `msam.loggers.Scalars`.

    Attributes:
        step: how many steps were made.
        history: every look, the oldest first.

    Raises:
        ValueError: if a number is out of its range or a word unknown.

    >>> from msam.models import MultimodalModel, SumFusion
    >>> model = MultimodalModel({"a": torch.nn.Linear(3, 4), "b": torch.nn.Linear(2, 4)}, SumFusion({"a": 4, "b": 4}, 5))
    >>> monitor = Monitor(model, every=2)
    >>> for _ in range(4):
    ...     seen = monitor({"a": torch.randn(8, 3), "b": torch.randn(8, 2)}, torch.arange(8) % 5)
    >>> [look.step for look in monitor.history], sorted(monitor.mean())
    ([1, 3], ['a', 'b'])
    """

    def __init__(
        self,
        model: Any,
        *,
        every: Annotated[int, Range(ge=1)] = 50,
        value: Value = "probability",
        absent: Literal["feature", "input"] | None = None,
        samples: Annotated[int, Range(ge=1)] | None = None,
        task: tasks.Name | None = None,
        log: Log | None = None,
    ) -> None:
        self.model = model
        self.every = int(checks.in_range("every", every, Range(ge=1)))
        self.value: Value = checks.one_of("value", value, VALUES)  # type: ignore[assignment]
        fused = hasattr(model, "encode") and hasattr(model, "fusion")
        self.absent = checks.one_of("absent", absent or ("feature" if fused else "input"), ("feature", "input"))
        self.samples = None if samples is None else int(checks.in_range("samples", samples, Range(ge=1)))
        self.log = log
        self._told = Told(task)
        self.step = 0
        self.history: list[Seen] = []
        self._names: tuple[str, ...] = tuple(getattr(model, "modalities", ()))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order; of a bare callable those of the first inputs."""
        return self._names

    @property
    def due(self) -> bool:
        """Whether the next call looks: what only a look needs may be left out of the others."""
        return self.step % self.every == 0

    def __call__(
        self, inputs: Mapping[str, Tensor] | None, target: Tensor, *, features: Mapping[str, Tensor] | None = None
    ) -> Seen | None:
        """Count a step, and look if it is due; return what was seen.

        Arguments:
            inputs: of the step, name -> `(B, ...)`; None where `features` are given.
            target: `(N,)` classes, `(N, K)` labels, or floats of the shape of the logits (`(N,)` where there is one); N is
                B, or a multiple of it where samples have segments.
            features: of the step, modality -> `(N, d_m)`, as `Output.features`: saves the pass; all samples are taken.

        Raises:
            ValueError: if there is neither of both, features of a model that has none absent, a modality is missing, or
                the targets are not of the task or do not fit the logits.
        """
        self.step += 1
        if (self.step - 1) % self.every:
            return None
        logits, looked_at = self._coalitions(inputs, target, features)
        rows, outputs = logits.shape[1:]
        self._told.tell(target, outputs)  # by the whole batch: few samples could be of two tasks
        if not self.history and self._told.task.name == "regression":
            warn_unless_standardised(target)
        fitting = self._told.checked(looked_at, rows, outputs)
        found = shapley.contributions(logits, fitting, value=self.value, task=self._told.task.name)
        seen = Seen(self.step, tuple(found.tolist()), rows)
        self.history.append(seen)
        if self.log is not None:
            self.log(self.scalars(seen), self.step)
        return seen

    def scalars(self, seen: Seen) -> dict[str, float]:
        """Return a look as loggers take it: `contribution/NAME` -> share."""
        return {f"contribution/{name}": share for name, share in zip(self._names, seen.contributions, strict=True)}

    def mean(self, last: int | None = None) -> dict[str, float]:
        """Return the mean contribution of every modality over the `last` looks, or all; NaN before the first."""
        looks = self.history[-last:] if last else self.history
        return {
            name: sum(seen.contributions[m] for seen in looks) / len(looks) if looks else float("nan")
            for m, name in enumerate(self._names)
        }

    def dominance(self, last: int | None = None) -> dict[str, float]:
        """Return in what part of the `last` looks, or of all, every modality had the largest contribution."""
        looks = self.history[-last:] if last else self.history
        largest = [seen.contributions.index(max(seen.contributions)) for seen in looks]
        return {name: largest.count(m) / len(looks) if looks else float("nan") for m, name in enumerate(self._names)}

    def __str__(self) -> str:
        """Return means and dominance in a line."""
        if not self.history:
            return "no look yet"
        mean, dominance = self.mean(), self.dominance()
        told = [f"{name} {mean[name]:.0%} (dominates in {dominance[name]:.0%})" for name in self._names]
        return f"{', '.join(told)}; {len(self.history)} looks"

    def state_dict(self) -> dict[str, Any]:
        """Return names, step and history as plain values."""
        return {"modalities": list(self._names), "step": self.step, "history": [list(seen) for seen in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._names = self._names or tuple(state.get("modalities", ()))
        self.step = int(state["step"])
        self.history = [Seen(int(s), tuple(map(float, c)), int(n)) for s, c, n in state["history"]]

    def _coalitions(
        self, inputs: Mapping[str, Tensor] | None, target: Tensor, features: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        if features is not None:
            if self.absent == "input":
                raise ValueError(
                    "`features` serve where features are absent; this monitor leaves out inputs. Give `inputs`."
                )
            return shapley.coalition_logits(self.model, features), target
        if inputs is None:
            raise ValueError("A look needs `inputs` or `features`, received neither.")
        self._names = self._names or tuple(inputs)
        names = getattr(self.model, "inputs", self._names)
        size = next((len(inputs[name]) for name in names if name in inputs), len(target))
        wanted = self._wanted(size)
        taken = {
            name: value[:wanted] if isinstance(value, Tensor) and value.dim() and len(value) == size else value
            for name, value in inputs.items()
        }
        target = target[: wanted * max(1, len(target) // size)]
        if self.absent == "input":
            return shapley.coalition_logits(self.model, taken, absent="input"), target
        with torch.no_grad(), evaluating(self.model):
            encoded = self.model.encode(taken)
        return shapley.coalition_logits(self.model, encoded), target

    def _wanted(self, size: int) -> int:
        """Return of how many samples a look is made."""
        if self.samples is not None:
            return min(self.samples, size)
        passes = 2 ** len(self._names) - 1 if self.absent == "input" else 1
        return max(1, min(size, int(size * MARGIN * COST * self.every * 3 / passes)))
