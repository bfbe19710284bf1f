"""Several equal models as one: their parameters in one tensor with a row each, one pass for all of them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from msam import shapley
from msam._modules import held
from msam.methods import Method, Run
from msam.models import MultimodalModel
from msam.shapley._contributions import worth
from msam.train.config import RunConfig
from msam.types import Batch, Output

Made = tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]


class Passed(NamedTuple):
    """What one pass of all lanes made.

    Attributes:
        losses: `(S,)`, each lane's mean loss, detached.
        gradients: `(S, N)`, each lane's own.
        worth: `(S, M)`, what each modality is worth in each lane, where it was asked for.
        output: logits `(S, N, C)` and features, modality -> `(S, N, d)`.
    """

    losses: Tensor
    gradients: Tensor
    worth: Tensor | None
    output: Output


class Lanes:
    """The weights of S equal models, a lane each, and the pass of all of them at once.

    Every model goes on as a model of its own: its parameters and buffers become views of its row here. The gradient of the
    sum of the lanes' mean losses is, in each row, the gradient of that lane's.

    Arguments:
        networks: S models of the same architecture.
        pattern: another one of it, whose own weights are of no importance: its code is what runs.
        method: makes one loss of each batch (`Method.stackable`).
        run: of `pattern`, for the method.
        config: of any lane, for how contributions are measured.

    Attributes:
        weights: `(S, N)`, the parameters of lane i in row i.
    """

    def __init__(
        self,
        networks: Sequence[MultimodalModel],
        pattern: MultimodalModel,
        method: Method,
        run: Run,
        config: RunConfig,
    ) -> None:
        self._parameters = [dict(network.named_parameters()) for network in networks]
        first = self._parameters[0]
        self._shapes = {name: p.shape for name, p in first.items()}
        self._sizes = [p.numel() for p in first.values()]
        rows = [torch.cat([p.detach().reshape(-1) for p in of.values()]) for of in self._parameters]
        self.weights = nn.Parameter(torch.stack(rows))
        for lane, of in enumerate(self._parameters):
            for p, view in zip(of.values(), self.views(self.weights.detach()[lane]), strict=True):
                p.data = view
        self._buffers = _shared_buffers(networks)
        self._pass = _Pass(pattern, method, run, config)
        self._run_all = vmap(self._of_one_lane, in_dims=(0, 0, 0, 0, None))

    def views(self, row: Tensor) -> list[Tensor]:
        """Return a lane's row, `(N,)`, as tensors of the shapes of the parameters, in their order."""
        return [part.view(shape) for part, shape in zip(row.split(self._sizes), self._shapes.values(), strict=True)]

    def parameters(self, lane: int) -> list[nn.Parameter]:
        """Return a lane's own parameters, in the order of `views`."""
        return list(self._parameters[lane].values())

    def passed(self, batch: Batch, *, again: bool = False, measure: bool = False) -> Passed:
        """Run all lanes forward and backward.

        Arguments:
            batch: modality -> `(S, B, ...)`, and targets `(S, B, ...)`.
            again: whether this is the second pass of a step: BatchNorm statistics are held.
            measure: whether to measure contributions.
        """
        network = self._pass.network
        parts = self.weights.split(self._sizes, 1)
        parameters = {
            n: p.unflatten(1, s) if s else p[:, 0] for p, (n, s) in zip(parts, self._shapes.items(), strict=True)
        }
        self._pass.run.perturbed = again
        with held(network if again else None):
            made: Made = self._run_all(parameters, self._buffers, batch.inputs, batch.target, measure)
        losses, worths, logits, features = made
        (gradients,) = torch.autograd.grad(losses.sum(), self.weights)
        return Passed(losses.detach(), gradients, worths if measure else None, Output(logits, features))

    @contextmanager
    def as_gradients(self, lane: int, row: Tensor) -> Iterator[None]:
        """Have a row `(N,)` stand in `.grad` of the lane's parameters inside the block, and take what is done there."""
        own, views = self.parameters(lane), self.views(row)
        for p, view in zip(own, views, strict=True):
            p.grad = view
        yield
        for p, view in zip(own, views, strict=True):
            if p.grad is not view:
                view.copy_(torch.zeros_like(view) if p.grad is None else p.grad)
            p.grad = None

    def _of_one_lane(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        target: Tensor,
        measure: bool,
    ) -> Made:
        weights = {f"network.{name}": value for name, value in {**parameters, **buffers}.items()}
        result: Made = functional_call(self._pass, weights, (Batch(dict(inputs), target), measure))
        return result


class _Pass(nn.Module):
    """The forward pass of one lane, as far as a method goes that makes one loss of it."""

    def __init__(self, network: MultimodalModel, method: Method, run: Run, config: RunConfig) -> None:
        super().__init__()
        self.network, self.method, self.run = network, method, run
        self.value, self.absent = config.contributions, config.absent

    def forward(self, batch: Batch, measure: bool) -> Made:
        """Return the loss, what the modalities are worth, `(M,)` (or nothing, `(0,)`), logits and features, detached."""
        output = self.network(batch.inputs)
        loss = self.method.loss(self.run, output, batch).mean()
        if output.extra_loss is not None:
            loss = loss + output.extra_loss
        logits, features = output.logits.detach(), {name: value.detach() for name, value in output.features.items()}
        if not measure:
            return loss, loss.detach().new_empty(0), logits, features
        given = features if self.absent == "feature" else batch.inputs
        coalitions = shapley.coalition_logits(self.network, given, absent=self.absent)
        return loss, worth(coalitions, batch.target, self.value), logits, features


def _shared_buffers(networks: Sequence[MultimodalModel]) -> dict[str, Tensor]:
    """Return buffer -> `(S, ...)`, and make each model's own the views of it."""
    shared = {
        name: torch.stack([dict(n.named_buffers())[name] for n in networks]) for name, _ in networks[0].named_buffers()
    }
    for lane, network in enumerate(networks):
        for name, together in shared.items():
            owner, _, short = name.rpartition(".")
            network.get_submodule(owner)._buffers[short] = together[lane]
    return shared
