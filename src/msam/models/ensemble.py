"""The sum of fusions of one modality each: the logits of an ensemble of unimodal nets."""

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from msam.models.fusion import Fusion
from msam.shapley import evaluating


class EnsembleFusion(Fusion):
    """`z = sum_m F_m(h_m)`: a fusion of each modality alone, whatever its kind, and the sum of their logits.

    The softmax of a sum of logits is that of the sum of log-probabilities, since the two differ by a number per sample that
    all classes share: `softmax(sum_m z_m) = prod_m p_m / sum_c prod_m p_m`, the product of the nets' probabilities. Where
    the modalities are independent given the class and the classes equally frequent, that is Bayes' rule; a mean of the
    probabilities is not.

    Every parameter sees one modality: its role is "head".

    Arguments:
        alone: modality -> fusion over this modality and no other, all with one number of logits.

    Raises:
        ValueError: if there is none, one is over other modalities, or the numbers of logits differ.

    >>> from msam.models import SumFusion
    >>> alone = {name: SumFusion({name: 3}, num_classes=4) for name in ("audio", "image")}
    >>> EnsembleFusion(alone)({"audio": torch.zeros(5, 3), "image": torch.ones(5, 3)}).shape
    torch.Size([5, 4])
    """

    def __init__(self, alone: Mapping[str, Fusion]) -> None:
        found = {name: (fusion.modalities, fusion.num_classes) for name, fusion in alone.items()}
        classes = {number for _, number in found.values()}
        if len(classes) > 1 or any(names != (name,) for name, (names, _) in found.items()):
            raise ValueError(
                "EnsembleFusion needs a fusion over each modality alone, all with one number of logits, received "
                f"{found}. Make them with `fusion.over({{name}})`."
            )
        super().__init__({name: fusion.dims[name] for name, fusion in alone.items()}, classes.pop() if classes else 1)
        self.alone = nn.ModuleDict(dict(alone))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the logits of all."""
        return torch.stack(list(self.modality_logits(features).values())).sum(0)

    def modality_logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what each unimodal net says, `F_m(h_m)`."""
        return {name: fusion({name: features[name]}) for name, fusion in self.alone.items()}

    def parts(self, features: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return what each net says more than of zeros, and the sum of what they say of zeros."""
        with evaluating(self):
            said = self.modality_logits(features)
            # of zeros of the whole shape: a fusion of segments takes no single row
            silent = self.modality_logits({name: torch.zeros_like(features[name]) for name in self.dims})
        nothing = {name: logits[:1] for name, logits in silent.items()}
        return [said[name] - nothing[name] for name in self.dims], torch.stack(list(nothing.values())).sum(0)

    def own_parameters(self, modality: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the modality's fusion."""
        return self.alone[modality].parameters()

    def weight_of(self, modality: str) -> tuple[nn.Parameter, slice]:
        """Return the last weight of the modality's fusion, and the columns that fusion names."""
        return self._fusion(modality).weight_of(modality)

    def over(self, modalities: Collection[str]) -> "EnsembleFusion":
        """Return a fresh ensemble of the same kinds over some of the modalities."""
        return EnsembleFusion({name: self._fusion(name).over({name}) for name in self.dims if name in modalities})

    def _fusion(self, modality: str) -> Fusion:
        found = self.alone[modality]
        assert isinstance(found, Fusion)
        return found
