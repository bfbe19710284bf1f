"""Fusions: from the features of the modalities to logits.

Late: a sum or a concatenation, linear; one shared head. Early: MAXOUT.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msam import checks
from msam.shapley import evaluating


class Fusion(nn.Module, ABC):
    """From features to logits. Abstract: `SumFusion`, `ConcatFusion`, `SharedFusion`, `MaxoutFusion`.

    Arguments:
        dims: modality -> size of its feature; its order is the order of the modalities.
        num_classes: number of logits, at least 1.

    Raises:
        ValueError: if `dims` is empty, a size is below 1, or torch cannot name a module like a modality.
    """

    splits: ClassVar[bool] = True
    """Whether the logits split into parts of the modalities."""

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        if not dims:
            raise ValueError("`dims` must name at least one modality, received none.")
        for name, value in [*dims.items(), ("num_classes", num_classes)]:
            checks.in_range(name, value, checks.Range(ge=1))
            if not name or "." in name or hasattr(nn.ModuleDict(), name):
                raise ValueError(
                    f"The name of a modality must hold no dot and be no word of torch's, received {name!r}."
                )
        self.dims = dict(dims)
        self.num_classes = num_classes

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self.dims)

    @abstractmethod
    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits `(B, C)` from modality -> `(B, d_m)`, or a map `(B, ..., d_m)`, of which the mean over positions
        counts unless a fusion says otherwise; an absent modality is zeros of the right shape.
        """

    @abstractmethod
    def modality_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return modality -> `(B, C)`, parts of the logits that sum to them, each made of its own feature alone.

        Raises:
            ValueError: if the logits of this fusion do not split.
        """

    def parts(self, features: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return what each modality that is there adds to the logits, `M` times `(B, C)`, and the logits of none, `(1, C)`.

        In evaluation mode. The logits of every coalition are sums of these.

        Raises:
            ValueError: if the logits of this fusion do not split.
        """
        nothing = {name: torch.zeros_like(features[name][:1]) for name in self.dims}
        with evaluating(self):
            present, absent = self.modality_logits(features), self.modality_logits(nothing)
        gains = [present[name] - absent[name] for name in self.dims]
        return gains, torch.stack([absent[name] for name in self.dims]).sum(0)

    @abstractmethod
    def own_parameters(self, modality: str) -> Iterator[nn.Parameter]:
        """Yield the parameters that see this modality alone."""

    @abstractmethod
    def weight_of(self, modality: str) -> tuple[nn.Parameter, slice]:
        """Return the last layer's weight `(C, ..)` and which of its columns meet this modality's feature (late), or all
        (shared and early: the columns meet what layers before made of every modality).
        """

    @abstractmethod
    def over(self, modalities: Collection[str]) -> "Fusion":
        """Return a fresh fusion of the same kind and settings over some of the modalities."""


class SumFusion(Fusion):
    """Late fusion as a sum: `z = sum_m (W_m h_m + b_m)`, a linear head with bias for each modality.

    >>> fusion = SumFusion({"audio": 3, "image": 2}, num_classes=4)
    >>> features = {"audio": torch.zeros(5, 3), "image": torch.ones(5, 2)}
    >>> fusion(features).shape
    torch.Size([5, 4])
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__(dims, num_classes)
        self.linear = nn.ModuleDict({name: nn.Linear(dim, num_classes) for name, dim in dims.items()})

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the heads' logits."""
        return torch.stack(list(self.modality_logits(features).values())).sum(0)

    def modality_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each head's own logits, `W_m h_m + b_m`."""
        return {name: head(pooled(features[name])) for name, head in self.linear.items()}

    def parts(self, features: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return each head's logits without the bias, and the sum of the biases."""
        heads: dict[str, Any] = dict(self.linear.items())
        gains = [nn.functional.linear(pooled(features[name]), head.weight) for name, head in heads.items()]
        biases = [bias for head in heads.values() if (bias := head.bias) is not None]
        return gains, reduce(torch.add, biases).unsqueeze(0) if biases else gains[0].new_zeros(1, self.num_classes)

    def own_parameters(self, modality: str) -> Iterator[nn.Parameter]:
        """Yield the weight and bias of the modality's head."""
        return self.linear[modality].parameters()

    def weight_of(self, modality: str) -> tuple[nn.Parameter, slice]:
        """Return the weight of the modality's head, all columns."""
        return self.linear[modality].get_parameter("weight"), slice(None)

    def over(self, modalities: Collection[str]) -> "SumFusion":
        """Return a fresh sum over some of the modalities."""
        return SumFusion(_some(self.dims, modalities), self.num_classes)


class ConcatFusion(Fusion):
    """Late fusion by concatenation: `z = W [h_1; ..; h_M] + b`, one linear layer.

    The same functions as `SumFusion`, with one bias and another scale at initialisation.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__(dims, num_classes)
        self.linear = nn.Linear(sum(dims.values()), num_classes)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the linear layer of the concatenated features."""
        return self.linear(_concatenated(self.dims, features))

    def modality_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the split logits `W_m h_m + b / M` (OGM-GE's code for two, `b / 2`)."""
        slices = self.linear.weight.split(list(self.dims.values()), dim=1)
        bias = self.linear.bias / len(self.dims)
        return {n: nn.functional.linear(pooled(features[n]), w, bias) for n, w in zip(self.dims, slices, strict=True)}

    def own_parameters(self, modality: str) -> Iterator[nn.Parameter]:
        """Yield nothing: the one layer sees all modalities."""
        return iter(())

    def weight_of(self, modality: str) -> tuple[nn.Parameter, slice]:
        """Return the one weight and the modality's columns."""
        before = list(self.dims).index(modality)
        start = sum(list(self.dims.values())[:before])
        return self.linear.get_parameter("weight"), slice(start, start + self.dims[modality])

    def over(self, modalities: Collection[str]) -> "ConcatFusion":
        """Return a fresh concatenation over some of the modalities."""
        return ConcatFusion(_some(self.dims, modalities), self.num_classes)


class SharedFusion(Fusion):
    """Late fusion with one head for all: `z = sum_m H(h_m)`, `H` = `Linear(d, hidden)`, ReLU, `Linear(hidden, C)`.

    The ensemble of ReconBoost's official code (Hua et al., ICML 2024), without its learned scale of the sum, which the last
    layer has. Every parameter sees all modalities: their role is "fusion".

    Arguments:
        dims: modality -> size of its feature, the same for all.
        num_classes: number of logits.
        hidden: width of the hidden layer, at least 1.

    Raises:
        ValueError: if the sizes differ or `hidden` is below 1.

    >>> fusion = SharedFusion({"audio": 3, "image": 3}, num_classes=4, hidden=8)
    >>> fusion({"audio": torch.zeros(5, 3), "image": torch.ones(5, 3)}).shape
    torch.Size([5, 4])
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int, hidden: int = 256) -> None:
        super().__init__(dims, num_classes)
        checks.in_range("hidden", hidden, checks.Range(ge=1))
        if len(set(dims.values())) > 1:
            raise ValueError(
                f"SharedFusion has one head for all and needs features of one size, received {dict(dims)}. Give the "
                "encoders the same size, or use a late fusion with a layer per modality: late or concat."
            )
        self.hidden = hidden
        size = next(iter(dims.values()))
        self.head = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of what the head makes of each modality."""
        return torch.stack(list(self.modality_logits(features).values())).sum(0)

    def modality_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what the head makes of each modality, `H(h_m)`."""
        return {name: self.head(pooled(features[name])) for name in self.dims}

    def own_parameters(self, modality: str) -> Iterator[nn.Parameter]:
        """Yield nothing: the one head sees all modalities."""
        return iter(())

    def weight_of(self, modality: str) -> tuple[nn.Parameter, slice]:
        """Return the weight of the head's last layer, all columns: every one meets all modalities."""
        return self.head[-1].get_parameter("weight"), slice(None)

    def over(self, modalities: Collection[str]) -> "SharedFusion":
        """Return a fresh head over some of the modalities."""
        return SharedFusion(_some(self.dims, modalities), self.num_classes, self.hidden)


class MaxoutFusion(Fusion):
    """Early fusion, the MAXOUT trunk of AGM's code: concatenated features through maxout layers, then a linear layer.

    `BatchNorm1d(eps=1e-4)`, then for each hidden width a maxout of 2 pieces, `BatchNorm1d` and dropout. One maxout layer
    of width `m` is a `Linear(d, 2 m)` whose consecutive pairs of units compete.

    Arguments:
        dims: modality -> size of its feature.
        num_classes: number of logits.
        hidden: widths of the maxout layers.
        dropout: probability of dropout after each, in [0, 1).
        batch_norm: whether to normalise.

    Raises:
        ValueError: if a width is below 1 or `dropout` outside [0, 1); in `forward`, for a training batch of one
            sample with `batch_norm`.
    """

    splits: ClassVar[bool] = False

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        hidden: Sequence[int] = (2048, 1024),
        dropout: float = 0.3,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(dims, num_classes)
        for width in hidden:
            checks.in_range("hidden", width, checks.Range(ge=1))
        checks.in_range("dropout", dropout, checks.Range(ge=0, lt=1))
        self.settings: dict[str, Any] = {"hidden": tuple(hidden), "dropout": dropout, "batch_norm": batch_norm}
        widths = [sum(dims.values()), *hidden]
        layers: list[nn.Module] = [nn.BatchNorm1d(widths[0], eps=1e-4)] if batch_norm else []
        for width, following in pairwise(widths):
            layers.append(Maxout(width, following))
            layers += [nn.BatchNorm1d(following)] if batch_norm else []
            layers += [nn.Dropout(dropout)] if dropout else []
        self.trunk = nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the trunk's logits."""
        joined = _concatenated(self.dims, features)
        if self.training and self.settings["batch_norm"] and len(joined) == 1:
            raise ValueError(
                "MaxoutFusion with batch_norm cannot train on a batch of one sample: its statistics do not exist. Use "
                "a batch size of at least 2 or batch_norm=False."
            )
        return self.trunk(joined)

    def modality_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Refuse: these logits do not split."""
        raise ValueError(
            "The logits of MaxoutFusion do not split into modalities. Use Shapley logits (`coalition_logits`, then "
            "`shapley_values`), or give the model heads of its own with `add_heads`."
        )

    def own_parameters(self, modality: str) -> Iterator[nn.Parameter]:
        """Yield nothing: the trunk sees all modalities."""
        return iter(())

    def weight_of(self, modality: str) -> tuple[nn.Parameter, slice]:
        """Return the weight of the last layer, all columns: every one meets all modalities."""
        return self.trunk[-1].get_parameter("weight"), slice(None)

    def over(self, modalities: Collection[str]) -> "MaxoutFusion":
        """Return a fresh trunk over some of the modalities."""
        return MaxoutFusion(_some(self.dims, modalities), self.num_classes, **self.settings)


def pooled(feature: Tensor) -> Tensor:
    """Return `(N, d)` of a feature `(N, d)`, or of a map of features `(N, ..., d)` the mean over its positions.

    >>> pooled(torch.tensor([[[1.0, 0.0], [3.0, 2.0]]]))
    tensor([[2., 1.]])
    """
    return feature if feature.dim() == 2 else feature.flatten(1, -2).mean(1)


class Maxout(nn.Module):
    """`(B, d) -> (B, m)`: the largest of `pieces` consecutive units of one linear layer."""

    def __init__(self, in_features: int, out_features: int, pieces: int = 2) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(in_features, out_features * pieces)

    def forward(self, x: Tensor) -> Tensor:
        """Return the largest unit of each group."""
        return self.linear(x).unflatten(-1, (-1, self.pieces)).amax(-1)


def _concatenated(dims: Mapping[str, int], features: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([pooled(features[name]) for name in dims], dim=-1)


def _some(dims: Mapping[str, int], modalities: Collection[str]) -> dict[str, int]:
    return {name: dim for name, dim in dims.items() if name in modalities}
