"""Several equal models as one: their parameters in one tensor with a row each, one pass for all of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from msam import shapley
from msam.methods import Method, Run
from msam.models import MultimodalModel
from msam.shapley._contributions import worth
from msam.sharpness._tensors import held
from msam.train.config import RunConfig
from msam.types import Batch


class Passed(NamedTuple):
    """What one pass of all lanes made.

    Attributes:
        losses: `(S,)`, each lane's mean loss, detached.
        gradients: `(S, N)`, each lane's own.
        worth: `(S, M)`, what each modality is worth in each lane, where it was asked for.
    """

    losses: Tensor
    gradients: Tensor
    worth: Tensor | None


class Lanes:
    """The weights of S equal models, a lane each, and the pass of all of them at once.

    Every model goes on as a model of its own: its parameters and buffers become views of its row here. The gradient of the
    sum of the lanes' mean losses is, in each row, the gradient of that lane's.

    Arguments:
        networks: S models of the same architecture.
        pattern: another one of it, whose own weights are of no importance: its code is what runs.
        method: makes one loss of each batch, and nothing more (`Method.stackable`).
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
            losses, worths = self._run_all(parameters, self._buffers, batch.inputs, batch.target, measure)
        (gradients,) = torch.autograd.grad(losses.sum(), self.weights)
        return Passed(losses.detach(), gradients, worths if measure else None)

    def _of_one_lane(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        target: Tensor,
        measure: bool,
    ) -> tuple[Tensor, Tensor]:
        weights = {f"network.{name}": value for name, value in {**parameters, **buffers}.items()}
        result: tuple[Tensor, Tensor] = functional_call(self._pass, weights, (Batch(dict(inputs), target), measure))
        return result


class _Pass(nn.Module):
    """The forward pass of one lane as the method makes it; its loss is caught instead of sent backward."""

    def __init__(self, network: MultimodalModel, method: Method, run: Run, config: RunConfig) -> None:
        super().__init__()
        self.network, self.method, self.run = network, method, run
        self.value, self.absent = config.contributions, config.absent
        self.caught: list[Tensor] = []
        run.backward = self._catch

    def forward(self, batch: Batch, measure: bool) -> tuple[Tensor, Tensor]:
        """Return the loss, and what the modalities are worth, `(M,)` (or nothing, `(0,)`)."""
        self.caught.clear()
        output = self.method.gradients(self.run, batch)
        (loss,) = self.caught
        if not measure:
            return loss, loss.detach().new_empty(0)
        given = output.features if self.absent == "feature" else batch.inputs
        logits = shapley.coalition_logits(self.network, given, absent=self.absent)
        return loss, worth(logits, batch.target, self.value)

    def _catch(self, loss: Tensor, retain_graph: bool = False) -> None:
        self.caught.append(loss)


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
