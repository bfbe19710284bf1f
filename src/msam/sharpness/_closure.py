"""The closure form of a rule, for trainers that own the loop and call `optimizer.step(closure)`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from msam.sharpness._tensors import local

if TYPE_CHECKING:
    from msam.sharpness._perturb import Sharpness

SHARED = (
    "param_groups",
    "state",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)
"""What the closure form has in common with the user's optimizer; a load makes new groups and a new state."""


class ClosureOptimizer(torch.optim.Optimizer):
    """An optimizer whose `step(closure)` runs the closure at theta and once more at theta + eps.

    The closure is the usual one: clear gradients, forward, backward, return the loss. Parameter groups and state *are*
    those of the user's optimizer, so schedulers, checkpoints and `zero_grad` see one and the same; hooks on `state_dict`
    and `load_state_dict` are shared too, and given the user's optimizer. A copy, or what is unpickled, is the closure form
    of a copy of the rule.

    A rule that needs contributions hears them from inside the closure: `sharpness.observe(contributions)`.
    """

    def __init__(self, sharpness: "Sharpness") -> None:
        self.sharpness = sharpness
        self.base = sharpness.optimizer
        self._cleared = False
        super().__init__(self.base.param_groups, self.base.defaults)
        self._share()
        self.base.register_load_state_dict_post_hook(self._share)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run both passes and step; returns the first pass's loss.

        Without a closure this is the step of the user's optimizer, allowed only where a `perturbed()` block was completed
        since the last step, or where there is nothing to climb: no gradient, or zeros (as distributed checkpoints do).

        Raises:
            RuntimeError: without a closure and without a completed `perturbed()` block: a trainer that drops the
                closure (under a GradScaler, say) would silently train without the rule. And if the closure adds to
                gradients made before: a trainer that accumulates would make only its last micro-batch again.
        """
        if closure is None:
            if not self.sharpness.completed and self._a_gradient() is not None:
                raise RuntimeError(
                    f"{type(self.sharpness).__name__} was stepped without a closure and without a completed perturbed() "
                    "block: it would train as the plain optimizer. Pass a closure, or run both passes by hand "
                    "(`with sharpness.perturbed(): ...`) before step()."
                )
            return self.base.step()
        self.sharpness.observed = None
        with torch.enable_grad(), self.sharpness.replayable():
            with self._nothing_added():
                loss = closure()
            self.sharpness.complete(closure, self.sharpness.observed)
        self.base.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, as the user's optimizer does."""
        self._cleared = True
        self.base.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the user's optimizer: a checkpoint loads with the rule and without it."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load into the user's optimizer."""
        self.base.load_state_dict(state_dict)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the rule, which brings its optimizer (and model) along; torch would keep the groups alone."""
        return ClosureOptimizer, (self.sharpness,)

    def _share(self, *_: object) -> None:
        for name in SHARED:
            setattr(self, name, getattr(self.base, name))

    def _a_gradient(self) -> tuple[nn.Parameter, Tensor] | None:
        """Return a parameter with a gradient that is not zero, and the gradient; None where there is none."""
        made = ((p, p.grad) for group in self.param_groups for p in group["params"] if p.grad is not None)
        return next(((p, grad) for p, grad in made if local(grad).any()), None)

    @contextmanager
    def _nothing_added(self) -> Iterator[None]:
        """Refuse a closure that adds to an earlier gradient; what backward finds is looked at when it comes to add to it.

        Afterwards it could not be told from one that was zeroed and made anew: both are the tensor of before.
        """
        p, grad = self._a_gradient() or (None, None)
        found: list[bool] = []

        def left() -> bool:
            return p is not None and grad is not None and p.grad is grad and bool(local(grad).any())

        def look(_: Tensor) -> None:
            if not found:
                found.append(left())

        handle = p.register_hook(look) if p is not None and p.requires_grad else None
        self._cleared = False
        try:
            yield
        finally:
            if handle is not None:
                handle.remove()
        # Backward need not come by: the parameter may be unused, or its gradient be brought there otherwise (FSDP2).
        if found[0] if found else left() and not self._cleared:
            raise RuntimeError(
                "The closure added to gradients that were there before: of several micro-batches, only the last would be "
                "made again at theta + eps. Clear them in the closure with `zero_grad()`; to accumulate, run both passes "
                "over all micro-batches by hand (`with sharpness.perturbed(): ...`)."
            )
