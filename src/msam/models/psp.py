"""Early fusion of AVE's segments: audio-guided attention, then positive sample propagation (Zhou et al. 2021)."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from msam import checks
from msam.models.fusion import Fusion, pooled

CLASSIFIER = 64


class PspFusion(Fusion):
    r"""Segments of one modality gather what fits from the segments of the other, of the same sample.

    With `a_t` and `v_t` the features of segment t, the second modality's attended to under the guidance of the first:

        b_ts = relu(<R(V2 v_t), R(A1 a_s)> / sqrt(d))                 R = ReLU, then dropout
        c_ts = b_ts / sum_s b_ts, 0 where it is <= threshold, divided by its sum again
        v_t' = v_t + sum_s c_ts R(A2 a_s)                             and a' likewise, with V1 and the transposed b
        z_t  = L2 relu(L1 (N(R(V3 v_t')) + N(R(A3 a_t'))) / 2)        N = LayerNorm, the same for both

    The attention is that of Tian et al. 2018, on the map of locations l of every segment:

        v_t = sum_l softmax_l(w tanh(Wv relu(Wm m_tl) + (Wg relu(Wa a_t))_l)) m_tl

    Linear layers have no bias but for Wm and Wa, and begin Xavier-uniform. What differs from Zhou et al. and AGM's code:
    the attention is over what the second encoder's LSTM makes of every location (see `msam.models.ave`), with 256 features
    where theirs has 512. The AVPS loss (100 times the squared distance of the similarities of segments to those of their
    labels) is left out: a fusion sees no labels. A feature of zeros adds nothing to the other's segments.

    One modality alone: nothing guides, nothing is gathered; a map's feature is the mean over its locations.

    Arguments:
        dims: modality -> size of its feature; two of one size, the second with a map `(N, .., d)`; or one.
        num_classes: number of logits.
        segments: of a sample, >= 1: rows that follow one another in the batch.
        locations: of the second modality's map, >= 1.
        threshold: of c, in [0, 1).
        dropout: probability, in [0, 1).

    Raises:
        ValueError: for more than two modalities, sizes that differ, an option out of range; in `forward`, for rows that are
            no multiple of `segments`, or another map.
    """

    splits = False

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        segments: int = 10,
        locations: int = 49,
        threshold: float = 0.099,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(dims, num_classes)
        for name, value in (("segments", segments), ("locations", locations)):
            checks.in_range(name, value, checks.Range(ge=1))
        for name, fraction in (("threshold", threshold), ("dropout", dropout)):
            checks.in_range(name, fraction, checks.Range(ge=0, lt=1))
        if len(dims) > 2 or len(set(dims.values())) > 1:
            raise ValueError(
                f"PspFusion is for two modalities with features of one size, received {dict(dims)}. Use maxout, which "
                "takes any, or a late fusion."
            )
        self.settings: dict[str, Any] = {
            "segments": segments,
            "locations": locations,
            "threshold": threshold,
            "dropout": dropout,
        }
        size = next(iter(dims.values()))
        both = len(dims) == 2
        self.attention = GuidedAttention(size, locations) if both else None
        branches = {name: nn.ModuleList([_linear(size, size), _linear(size, size)]) for name in dims}
        self.branches = nn.ModuleDict(branches if both else {})
        self.after = nn.ModuleDict({name: _linear(size, size) for name in dims})
        self.norm = nn.LayerNorm(size, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Sequential(_linear(size, CLASSIFIER), nn.ReLU(), _linear(CLASSIFIER, num_classes))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits `(N, C)` of segments `(N, ...)`, those of a sample one after another."""
        rows = len(features[self.modalities[0]])
        segments = self.settings["segments"]
        if rows % segments:
            raise ValueError(
                f"PspFusion needs {segments} segments of every sample, one after another, received {rows} rows. Set "
                "`fusion.segments` to the number of segments of a sample, 1 where a sample is one row."
            )
        vectors = {name: v.unflatten(0, (-1, segments)) for name, v in self._vectors(features).items()}
        gathered = self._propagated(vectors) if len(vectors) == 2 else vectors
        made = [self.norm(self.dropout(self.after[name](v).relu())) for name, v in gathered.items()]
        return self.classifier(torch.stack(made).mean(0).flatten(0, 1))

    def _vectors(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return modality -> `(N, d)`, of a map what the guide attends to."""
        first = self.modalities[0]
        vectors = {first: pooled(features[first])}
        if self.attention is not None:
            second = self.modalities[1]
            vectors[second] = self.attention(features[second], vectors[first])
        return vectors

    def _propagated(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        (first, a), (second, v) = vectors.items()
        a1, a2 = self._branches(first, a)
        v1, v2 = self._branches(second, v)
        fits = (v2 @ a1.transpose(1, 2)).relu() / math.sqrt(a.shape[-1])
        threshold = self.settings["threshold"]
        return {
            first: a + kept(fits.transpose(1, 2), threshold) @ v1,
            second: v + kept(fits, threshold) @ a2,
        }

    def _branches(self, name: str, vectors: Tensor) -> list[Tensor]:
        layers: Any = self.branches[name]
        return [self.dropout(layer(vectors).relu()) for layer in layers]

    def modality_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Refuse: these logits do not split."""
        raise ValueError(
            "The logits of PspFusion do not split into modalities. Use Shapley logits (`coalition_logits`, then "
            "`shapley_values`), or give the model heads of its own with `add_heads`."
        )

    def own_parameters(self, modality: str) -> Iterator[nn.Parameter]:
        """Yield nothing: everything sees both modalities, after the attention at the latest."""
        return iter(())

    def weight_of(self, modality: str) -> tuple[nn.Parameter, slice]:
        """Return the weight of the last layer, all columns: every one meets both modalities."""
        return self.classifier[-1].get_parameter("weight"), slice(None)

    def over(self, modalities: Collection[str]) -> "PspFusion":
        """Return a fresh fusion over some of the modalities."""
        some = {name: dim for name, dim in self.dims.items() if name in modalities}
        return PspFusion(some, self.num_classes, **self.settings)


class GuidedAttention(nn.Module):
    """The mean of a map over its locations, with the weights that a guide gives them; `(N, .., d)` -> `(N, d)`."""

    def __init__(self, size: int, locations: int) -> None:
        super().__init__()
        self.locations = locations
        self.map, self.guide = _linear(size, size, bias=True), _linear(size, size, bias=True)
        self.of_map, self.of_guide = _linear(size, locations), _linear(size, locations)
        self.weigh = _linear(locations, 1)

    def forward(self, features: Tensor, guide: Tensor) -> Tensor:
        """Return `(N, d)` of a map `(N, .., d)` and a guide `(N, d)`."""
        rows = features.flatten(1, -2) if features.dim() > 2 else features.unsqueeze(1)
        if rows.shape[1] != self.locations:
            raise ValueError(
                f"PspFusion attends to {self.locations} locations of its second modality, received {rows.shape[1]}. Set "
                "`fusion.locations` to the number of locations, 1 where there is no map."
            )
        content = self.of_map(self.map(rows).relu()) + self.of_guide(self.guide(guide).relu()).unsqueeze(-1)
        weights = self.weigh(content.tanh()).softmax(1)
        return (weights * rows).sum(1)


def kept(fits: Tensor, threshold: float) -> Tensor:
    """Return non-negative rows that sum to 1 with what is not above `threshold` set to 0, and summing to 1 again.

    A row of zeros stays one; 1e-8 in both divisors, as in the code.

    >>> kept(torch.tensor([[6.0, 3.0, 1.0], [0.0, 0.0, 0.0]]), 0.2)
    tensor([[0.6667, 0.3333, 0.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    shares = fits / (fits.sum(-1, keepdim=True) + 1e-8)
    above = shares.where(shares > threshold, shares.new_zeros(()))
    return above / (above.sum(-1, keepdim=True) + 1e-8)


def _linear(before: int, after: int, *, bias: bool = False) -> nn.Linear:
    layer = nn.Linear(before, after, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    return layer
