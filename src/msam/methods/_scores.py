"""How well each modality does on a batch by itself: its logits, and three scores of them.

A score is a mean over the samples that have the modality (`present`, `(B, M)`; None where all have all). A modality that no
sample of the batch has is given the mean of the others' scores: nothing can be told from it, and nothing follows.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from msam import shapley, tasks
from msam.models import MultimodalModel
from msam.models.multimodal import of_rows
from msam.types import Output

Source = Literal["fusion", "heads", "shapley"]
SMALLEST = 1e-8


def compared(title: str, network: MultimodalModel) -> MultimodalModel:
    """Return the model, whose modalities the method called `title` compares with one another.

    Raises:
        ValueError: if there is only one: nothing can be told from it.
    """
    if len(network.modalities) < 2:
        raise ValueError(
            f"{title} compares modalities and needs at least two, found {list(network.modalities)}. Use joint training."
        )
    return network


def modality_logits(network: MultimodalModel, output: Output, source: Source = "fusion") -> dict[str, Tensor]:
    """Return modality -> `(N, C)` logits, without a graph.

    Arguments:
        network: the model.
        output: of the full pass.
        source: "fusion", its own part of the fused logits (`W_m h_m + b_m` of a sum, `W_m h_m + b / M` of a concatenation);
            "heads", its head from `add_heads`; "shapley", its Shapley logits with absent features set to zero, which every
            fusion has and which for a concatenation equal the split logits.

    Raises:
        ValueError: if the fusion's logits do not split, or there are no heads.
    """
    features = {name: feature.detach() for name, feature in output.features.items()}
    with torch.no_grad():
        if source == "fusion":
            return network.fusion.modality_logits(features)
        if source == "heads":
            return network.head_logits(features)
        values = shapley.shapley_values(shapley.coalition_logits(network, features))
        return dict(zip(network.modalities, values, strict=True))


def target_probability(
    logits: Mapping[str, Tensor] | Sequence[Tensor], target: Tensor, present: Tensor | None = None
) -> Tensor:
    """Return `P_m = mean_b softmax(o_m,b)[y_b]`, `(M,)` in [0, 1]: the score of OGM-GE and MLB.

    Here and below, labels `(N, K)` are rated one by one, with a sigmoid, and the mean over them is taken (`msam.tasks`).

    >>> target_probability([torch.zeros(2, 4), torch.tensor([[9.0, 0, 0, 0], [0, 9, 0, 0]])], torch.tensor([0, 1]))
    tensor([0.2500, 0.9996])

    Raises:
        ValueError: here and below, for the floats of a regression.
    """
    task, target = _of_labels(logits, target)
    return _means([task.probability(z, target) for z in _listed(logits)], present)


def cross_entropy(
    logits: Mapping[str, Tensor] | Sequence[Tensor], target: Tensor, present: Tensor | None = None
) -> Tensor:
    """Return `s_m = mean_b -log max(softmax(o_m,b)[y_b], 1e-8)`, `(M,)` in nats, lower is better: the score of AGM.

    >>> cross_entropy([torch.zeros(2, 4)], torch.tensor([0, 1]))
    tensor([1.3863])
    """
    task, target = _of_labels(logits, target)
    floor = torch.tensor(SMALLEST).log().neg().item()
    losses = [task.loss(z, target) for z in _listed(logits)]
    return _means([loss.clamp_max(floor) for loss in losses], present)


def accuracy(logits: Mapping[str, Tensor] | Sequence[Tensor], target: Tensor, present: Tensor | None = None) -> Tensor:
    """Return `a_m = mean_b [argmax o_m,b = y_b]`, `(M,)` in [0, 1]: the score of CGGM.

    >>> accuracy([torch.tensor([[1.0, 0.0], [0.0, 1.0]])], torch.tensor([0, 0]))
    tensor([0.5000])
    """
    task, target = _of_labels(logits, target)
    return _means([task.hit(z, target) for z in _listed(logits)], present)


def _means(values: Sequence[Tensor], present: Tensor | None) -> Tensor:
    """Return the means `(M,)` of `M` times `(N,)`.

    >>> _means([torch.tensor([1.0, 3.0]), torch.tensor([5.0, 7.0])], torch.tensor([[True, False], [True, True]]))
    tensor([2., 7.])
    """
    if present is None:
        return torch.stack([value.mean() for value in values])
    there = of_rows(present, len(values[0])).T.unbind()
    known = [value[rows].mean() for value, rows in zip(values, there, strict=True) if rows.any()]
    between = torch.stack(known).mean()
    return torch.stack([v[rows].mean() if rows.any() else between for v, rows in zip(values, there, strict=True)])


def _listed(logits: Mapping[str, Tensor] | Sequence[Tensor]) -> list[Tensor]:
    return list(logits.values()) if isinstance(logits, Mapping) else list(logits)


def _of_labels(logits: Mapping[str, Tensor] | Sequence[Tensor], target: Tensor) -> tuple[tasks.Task, Tensor]:
    if target.is_floating_point():
        raise ValueError(
            "How well a modality does is told from integer classes (N,) or from labels (N, K), received a target "
            f"{tuple(target.shape)} of {target.dtype}. Use a method that needs no scores: joint or uniform, for instance."
        )
    rows, outputs = _listed(logits)[0].shape
    task = tasks.of(target, outputs)
    return task, task.fitting(target, rows, outputs)
