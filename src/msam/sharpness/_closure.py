"""The closure form of a rule, for trainers that own the loop and call `optimizer.step(closure)`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from msam.sharpness._perturb import Sharpness


class ClosureOptimizer(torch.optim.Optimizer):
    """An optimizer whose `step(closure)` runs the closure at theta and once more at theta + eps.

    The closure is the usual one: clear gradients, forward, backward, return the loss. Parameter groups and state *are*
    those of the user's optimizer, so schedulers, checkpoints and `zero_grad` see one and the same.

    A rule that needs contributions hears them from inside the closure: `sharpness.observe(contributions)`.
    """

    def __init__(self, sharpness: "Sharpness") -> None:
        self.sharpness = sharpness
        self.base = sharpness.optimizer
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
                closure (under a GradScaler, say) would silently train without the rule.
        """
        if closure is None:
            if not self.sharpness.completed and self._has_gradient():
                raise RuntimeError(
                    f"{type(self.sharpness).__name__} was stepped without a closure and without a completed perturbed() "
                    "block: it would train as the plain optimizer. Pass a closure, or run both passes by hand "
                    "(`with sharpness.perturbed(): ...`) before step()."
                )
            return self.base.step()
        self.sharpness.observed = None
        with torch.enable_grad(), self.sharpness.replayable():
            loss = closure()
            self.sharpness.complete(closure, self.sharpness.observed)
        self.base.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the user's optimizer: a checkpoint loads with the rule and without it."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load into the user's optimizer."""
        self.base.load_state_dict(state_dict)

    def _share(self, *_: object) -> None:
        self.param_groups = self.base.param_groups
        self.state = self.base.state

    def _has_gradient(self) -> bool:
        return any(p.grad is not None and bool(p.grad.any()) for group in self.param_groups for p in group["params"])
