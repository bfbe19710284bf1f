"""A model of several modalities: one encoder each, then a fusion."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from msam import checks
from msam.models.fusion import Fusion, pooled
from msam.types import Output


class MultimodalModel(nn.Module):
    """Encoders, then a fusion; every parameter knows its role.

    Arguments:
        encoders: modality -> module from its input `(B, ...)` to a feature `(B, d_m)`; their order is the order of
            the modalities.
        fusion: from the features to logits; its modalities are those of `encoders`, in the same order.

    Raises:
        ValueError: if the modalities of encoders and fusion differ.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], fusion: Fusion) -> None:
        super().__init__()
        if tuple(encoders) != fusion.modalities:
            raise ValueError(
                "Encoders and fusion must have the same modalities in the same order, "
                f"received {list(encoders)} and {list(fusion.modalities)}."
            )
        self.encoders = nn.ModuleDict(dict(encoders))
        self.fusion = fusion
        self.heads = nn.ModuleDict()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self.encoders)

    def forward(self, inputs: Mapping[str, Tensor], present: Tensor | None = None) -> Output:
        """Return logits and features.

        Arguments:
            inputs: modality -> `(B, ...)`; what is not a modality of the model is let be.
            present: `(B, M)` bool; where False, the modality's feature is set to zeros for that sample.

        Raises:
            ValueError: if a modality is missing, batch sizes differ, or `present` is not `(B, M)`.
        """
        features = self.encode(inputs, present=present)
        return Output(self.fuse(features), features)

    def encode(
        self, inputs: Mapping[str, Tensor], only: Collection[str] | None = None, present: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return modality -> feature, of all modalities or of those in `only`; zeros where a sample lacks it.

        Raises:
            ValueError: if a modality is missing, batch sizes differ, or `present` is not `(B, M)`.
        """
        for name in only or ():
            checks.one_of("modality", name, self.modalities)
        wanted = [name for name in self.modalities if only is None or name in only]
        _all_there(wanted, inputs, "batch", "Where samples lack it, pass zeros and say so in `present`.")
        sizes = {name: len(inputs[name]) for name in wanted}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"All modalities must have the same batch size, received {sizes}.")
        features = {name: self.encoders[name](inputs[name]) for name in wanted}
        if present is None:
            return features
        return where_present(features, present, self.modalities, next(iter(sizes.values()), len(present)))

    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the logits `(N, C)` of features; an absent modality is zeros of the right shape.

        Raises:
            ValueError: if a modality is missing.
        """
        _all_there(self.modalities, features, "features", "Pass zeros of its shape for an absent one.")
        return self.fusion(features)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return every parameter in exactly one group `{"params", "role", "modality"}`; pass them to any optimizer.

        Roles: "encoder" and "head" (which see one modality, named in "modality") and "fusion" ("modality" None).
        """
        groups = [_group(e.parameters(), "encoder", name) for name, e in self.encoders.items()]
        groups += [_group(self.fusion.own_parameters(name), "head", name) for name in self.modalities]
        groups += [_group(head.parameters(), "head", name) for name, head in self.heads.items()]
        known = {id(p) for group in groups for p in group["params"]}
        rest = [p for p in self.fusion.parameters() if id(p) not in known]
        return [group for group in [*groups, _group(rest, "fusion", None)] if group["params"]]

    def add_heads(self, num_classes: int, hidden: int | None = None) -> None:
        """Give every modality a head of its own on its feature, for methods that train or measure with them.

        Arguments:
            num_classes: number of logits.
            hidden: width of a hidden layer with ReLU before the last layer; None for one linear layer.
        """
        like = next(self.fusion.parameters())
        for name, dim in self.fusion.dims.items():
            widths = [dim, num_classes] if hidden is None else [dim, hidden, num_classes]
            layers = [nn.Linear(a, b, device=like.device, dtype=like.dtype) for a, b in pairwise(widths)]
            self.heads[name] = layers[0] if hidden is None else nn.Sequential(layers[0], nn.ReLU(), layers[1])

    def head_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return modality -> `(B, C)` logits of each modality's own head.

        The heads of `add_heads` where there are some, else those of the fusion (own heads of a sum, split logits of
        a concatenation).

        Raises:
            ValueError: if there are neither.
        """
        if self.heads:
            return {name: self.heads[name](pooled(features[name])) for name in self.modalities}
        return self.fusion.modality_logits(features)

    @property
    def has_heads(self) -> bool:
        """Whether `head_logits` can answer."""
        return bool(self.heads) or self.fusion.splits

    def only(self, modality: str) -> "MultimodalModel":
        """Return a model of one modality: its encoder, and a fresh fusion of the same kind over it alone.

        Raises:
            ValueError: if there is no such modality.
        """
        checks.one_of("modality", modality, self.modalities)
        alone = self.fusion.over({modality}).to(next(self.fusion.parameters()))
        return MultimodalModel({modality: self.encoders[modality]}, alone)


def _all_there(wanted: Collection[str], given: Mapping[str, Tensor], where: str, way_out: str) -> None:
    missing = [name for name in wanted if name not in given]
    if missing:
        raise ValueError(
            f"Modality {missing[0]!r} is missing from the {where}; found {sorted(given)}, expected {list(wanted)}. "
            f"{way_out}"
        )


def where_present(
    features: dict[str, Tensor], present: Tensor, modalities: Sequence[str], samples: int
) -> dict[str, Tensor]:
    """Return features with zeros where a sample lacks the modality; all rows of a sample that has several lack it.

    Arguments:
        features: modality -> `(N, ...)`.
        present: `(B, M)` bool, a column for each of `modalities`.
        modalities: names, in the order of the columns.
        samples: B, of which N is a multiple.

    Raises:
        ValueError: if `present` is not `(B, M)` of bool.
    """
    if present.shape != (samples, len(modalities)) or present.dtype != torch.bool:
        raise ValueError(
            f"`present` must be ({samples}, {len(modalities)}) of bool, one column for each of {list(modalities)}, "
            f"received {tuple(present.shape)} of {present.dtype}."
        )
    masked = {}
    for name, feature in features.items():
        rows = of_rows(present, len(feature))[:, modalities.index(name)]
        masked[name] = feature.where(rows.view(-1, *[1] * (feature.dim() - 1)), feature.new_zeros(()))
    return masked


def of_rows(present: Tensor, rows: int) -> Tensor:
    """Return `(N, M)` from `present` `(B, M)` where every sample has `N / B` rows, one after another; (AVE: 10 segments).

    >>> of_rows(torch.tensor([[True, True], [False, True]]), 4).T
    tensor([[ True,  True, False, False],
            [ True,  True,  True,  True]])
    """
    return present if len(present) == rows else present.repeat_interleave(rows // len(present), 0)


def _group(parameters: Any, role: str, modality: str | None) -> dict[str, Any]:
    return {"params": list(parameters), "role": role, "modality": modality}
