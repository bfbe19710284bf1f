"""What probes share: a copy of the model, the samples, and the losses whose slopes and curvature are measured."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from msam import shapley
from msam.models import MultimodalModel
from msam.models.multimodal import of_rows
from msam.tasks import per_sample_loss
from msam.types import Batch

Name = str | None
"""A loss: None for the joint one, else that of the modality so called."""


class Study:
    """A copy of a model in evaluation mode, the samples on which it is studied, and its losses there.

    The joint loss is the mean loss of the fused logits, whatever else the method that trained the model adds to it. A
    modality's own loss is that of its part of them: the split logits of a fusion that has such, else its Shapley logits; a
    mean over the samples that have the modality. Heads that a method has put beside the fusion do not count: losses of
    models trained by different methods are the same functions.

    The paper's own `L_m = v_m L` (Eq. 4) would tell nothing: all modalities' gradients would be parallel.

    Arguments:
        network: the model; nothing of it is changed.
        batches: samples, ready for the model.
        double: whether to copy into double precision.
        seed: of what a probe draws at random.
        rho: the radius of the run's rule, if it has one.

    Attributes:
        network: the copy; all its parameters take gradients.
        parameters: of the copy, in order.
        dtype: of the parameters.
        modalities: names of those that any sample has, in order.
    """

    def __init__(
        self,
        network: MultimodalModel,
        batches: Sequence[Batch],
        *,
        double: bool = False,
        seed: int = 0,
        rho: float | None = None,
    ) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(True)
        if double:
            self.network.double()
        self.parameters: list[nn.Parameter] = list(self.network.parameters())
        self.dtype = self.parameters[0].dtype
        self.batches = [_cast(batch, self.dtype) for batch in batches]
        self.seed, self.rho = seed, rho
        columns = [_having(batch, len(network.modalities)) for batch in self.batches]
        self._counts = dict(zip(network.modalities, torch.cat(columns).sum(0).tolist(), strict=True))
        self._rows = sum(map(len, columns))
        self.modalities = [name for name, count in self._counts.items() if count]

    def within(self, parameters: Sequence[nn.Parameter]) -> "Study":
        """Return the same study of some of the copy's parameters: gradients and products are of those alone."""
        chosen = set(parameters)
        part = copy.copy(self)
        part.parameters = [p for p in self.parameters if p in chosen]
        return part

    def losses(self) -> Tensor:
        """Return the joint loss of every row, `(N,)`, without a graph."""
        with torch.no_grad():
            outputs = ((self.network(batch.inputs, batch.present).logits, batch.target) for batch in self.batches)
            return torch.cat([per_sample_loss(logits, target) for logits, target in outputs])

    def loss(self, name: Name = None) -> float:
        """Return a loss, without a graph."""
        with torch.no_grad():
            return float(sum(part for (part,) in self._parts([name])))

    def gradients(self, names: Sequence[Name]) -> tuple[list[float], list[list[Tensor]]]:
        """Return losses, and of each the gradient, a tensor for every parameter: zeros where it does not enter."""
        losses = [0.0] * len(names)
        totals = [[torch.zeros_like(p) for p in self.parameters] for _ in names]
        with self._differentiable():
            for parts in self._parts(names):
                for k, part in enumerate(parts):
                    more = k + 1 < len(parts)
                    made = torch.autograd.grad(part, self.parameters, retain_graph=more, materialize_grads=True)
                    torch._foreach_add_(totals[k], made)
                    losses[k] += float(part.detach())
        return losses, totals

    def product(self, along: Sequence[Tensor]) -> list[Tensor]:
        """Return the product of the joint loss's Hessian with a vector, both a tensor for every parameter."""
        total = [torch.zeros_like(p) for p in self.parameters]
        with self._differentiable():
            for (part,) in self._parts([None]):
                slopes = torch.autograd.grad(part, self.parameters, create_graph=True, materialize_grads=True)
                curved = [(slope * v).sum() for slope, v in zip(slopes, along, strict=True) if slope.requires_grad]
                if curved:
                    whole = torch.stack(curved).sum()
                    torch._foreach_add_(total, torch.autograd.grad(whole, self.parameters, materialize_grads=True))
        return total

    @property
    def logits(self) -> str:
        """Whose loss is a modality's own: "split" or "shapley" logits."""
        return "split" if self.network.fusion.splits else "shapley"

    def _parts(self, names: Sequence[Name]) -> Iterator[list[Tensor]]:
        """Yield batch by batch what its samples add to each loss."""
        for batch in self.batches:
            output = self.network(batch.inputs, batch.present)
            own = self._own_logits(output.features) if any(names) else {}
            yield [self._part(name, output.logits if name is None else own[name], batch) for name in names]

    def _part(self, name: Name, logits: Tensor, batch: Batch) -> Tensor:
        losses = per_sample_loss(logits, batch.target)
        if name is None:
            return losses.sum() / self._rows
        there = _having(batch, len(self._counts))[:, list(self._counts).index(name)].to(losses.device)
        return losses.where(there, losses.new_zeros(())).sum() / self._counts[name]

    def _own_logits(self, features: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.network.fusion.splits:
            return self.network.fusion.modality_logits(features)
        phi = shapley.shapley_values(shapley.coalition_logits(self.network, features, graph=True))
        return dict(zip(self.network.modalities, phi, strict=True))

    @contextmanager
    def _differentiable(self) -> Iterator[None]:
        """Choose kernels that can be differentiated twice, and, in evaluation mode, at all (cuDNN's LSTM cannot)."""
        with ExitStack() as kernels:
            kernels.enter_context(torch.enable_grad())
            kernels.enter_context(sdpa_kernel(SDPBackend.MATH))
            if any(isinstance(module, nn.RNNBase) for module in self.network.modules()):
                kernels.enter_context(torch.backends.cudnn.flags(enabled=False))
            yield


def finite(value: float) -> float | None:
    """Return a number, or None where it is not finite."""
    return value if math.isfinite(value) else None


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Return the inner product of two lists of tensors, summed in double precision where there is such."""
    wide = torch.float32 if a and a[0].device.type == "mps" else torch.float64
    return float(sum((x.to(wide) * y.to(wide)).sum() for x, y in zip(a, b, strict=True)))


def norm(vectors: Sequence[Tensor]) -> float:
    """Return the L2 norm of all tensors together."""
    return math.sqrt(inner(vectors, vectors))


def _having(batch: Batch, modalities: int) -> Tensor:
    """Return which rows of a batch have which modality, `(N, M)` bool, on the CPU."""
    rows = len(batch.target)
    there = None if batch.present is None else of_rows(batch.present, rows).cpu()
    return torch.ones(rows, modalities, dtype=torch.bool) if there is None else there


def _cast(batch: Batch, dtype: torch.dtype) -> Batch:
    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return batch._replace(inputs={k: cast(v) for k, v in batch.inputs.items()}, target=cast(batch.target))
