"""One optimizer for the weights of all lanes; what it remembers is each lane's own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from msam.bench._lanes import Lanes
from msam.train.config import RunConfig
from msam.train.optimizers import OPTIMIZERS


class Spender:
    """The optimizer of a stack. SGD, Adam and AdamW are elementwise: on the rows of one tensor they do what they do alone.

    Arguments:
        config: of any lane.
        lanes: whose weights are stepped.
    """

    def __init__(self, config: RunConfig, lanes: Lanes) -> None:
        self.lanes = lanes
        options = {key: value for key, value in config.optimizer.items() if key != "name"}
        self.optimizer = OPTIMIZERS[config.optimizer["name"]]([{"params": [lanes.weights]}], **options)

    def set_rate(self, like: torch.optim.Optimizer) -> None:
        """Take over the learning rate of a lane's optimizer, the same in all its groups."""
        (rate,) = {group["lr"] for group in like.param_groups}
        self.optimizer.param_groups[0]["lr"] = rate

    def spend(self, gradients: Tensor) -> None:
        """Make one step along gradients `(S, N)`."""
        self.lanes.weights.grad = gradients
        self.optimizer.step()

    def scatter(self, optimizers: Sequence[torch.optim.Optimizer | None]) -> None:
        """Give the optimizer of each lane what it would remember alone."""
        state, weights = self.optimizer.state.get(self.lanes.weights, {}), self.lanes.weights
        for row, optimizer in enumerate(optimizers):
            if optimizer is None:
                continue
            own = self.lanes.parameters(row)
            for p in own if state else ():
                optimizer.state[p] = {}
            for key, value in state.items():
                whole = isinstance(value, Tensor) and value.shape == weights.shape
                parts = (
                    [part.clone() for part in self.lanes.views(value[row])] if whole else [_copied(value) for _ in own]
                )
                for p, part in zip(own, parts, strict=True):
                    optimizer.state[p][key] = part

    def gather(self, optimizers: Sequence[torch.optim.Optimizer | None]) -> None:
        """Take over what the optimizers of the lanes remember; all have made the same number of steps."""
        known = next(optimizer for optimizer in optimizers if optimizer is not None)
        weights = self.lanes.weights
        first = self.lanes.parameters(next(row for row, o in enumerate(optimizers) if o is known))[0]
        for key, value in known.state.get(first, {}).items():
            if not isinstance(value, Tensor) or value.shape != first.shape or value.dim() == 0:
                self.optimizer.state[weights][key] = _copied(value)
                continue
            together = torch.zeros_like(weights)
            for row, optimizer in enumerate(optimizers):
                if optimizer is not None:
                    parts = [optimizer.state[p][key].reshape(-1) for p in self.lanes.parameters(row)]
                    together[row] = torch.cat(parts)
            self.optimizer.state[weights][key] = together


def _copied(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value
