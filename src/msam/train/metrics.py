"""The measures of the protocol, on one split."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from msam import shapley, tasks
from msam.data import Split
from msam.data._loaders import batches
from msam.models import MultimodalModel
from msam.models.multimodal import of_rows
from msam.shapley._contributions import of_batch_and_samples
from msam.train._measures import measured, nll, score
from msam.types import Batch

EVALUATION_BATCH, EVALUATION_BYTES = 512, 2**26
"""Samples that are measured at once; of those that are read from disk fewer, if they are large (1 MB in AVE's features)."""


def evaluate(
    network: MultimodalModel,
    split: Split,
    *,
    value: shapley.Value = "probability",
    absent: str = "feature",
    task: tasks.Name | None = None,
    prepare: Callable[[Batch], Batch] = lambda batch: batch,
) -> dict[str, Any]:
    """Measure a model on every sample of a split, in evaluation mode; every module is left in the mode it was in.

    Arguments:
        network: the model, unwrapped.
        split: what to measure on; no sample is left out.
        value: what contributions are shares of.
        absent: what is set to zero for an absent modality, "feature" or "input".
        task: what the targets are; None: as their type says, see `msam.tasks.told`.
        prepare: makes a batch ready for the model (brings it to its device, say).

    Returns:
        `nll` (nats) and the measures of the task: `accuracy`, `macro_f1` of classes; `accuracy` (of labels), `macro_f1`,
        `exact_match`, `average_precision` of labels; `r2`, `rmse`, `mae` of numbers. `modalities`: name -> accuracy
        (of a regression R²) of three named kinds, `head` (its own or split logits, with their NLL `head_nll`; both None
        where there are none), `shapley` (of its Shapley logits) and `zeroed` (the others absent), its `contribution` over
        the split and its `dominance`, the share of samples in which its contribution is the largest; the kinds count
        samples that have the modality (all, where none has it); `imbalance = (M max contribution - 1) / (M - 1)`,
        0 = balanced, 1 = one modality has all.

    Raises:
        ValueError: if the targets do not fit the task or the logits or are not finite, the split is empty, or an input
            is not finite and neither are the logits.
    """
    if not len(split):
        raise ValueError("The split has no samples to measure.")
    coalitions, heads, target, present = _collected(network, split, absent, prepare)
    kind = tasks.told(target, coalitions.shape[2], task)
    target = kind.fitting(kind.canonical(target), *coalitions.shape[1:])
    if unsound := unsound_target(Batch({}, target)):
        raise ValueError(f"{unsound}, of a split of {len(split)} samples. Leave out samples whose target is not known.")
    fused = coalitions[-1]
    names = network.modalities
    phi = shapley.shapley_values(coalitions)
    shares, of_samples = of_batch_and_samples(coalitions, target, value)
    winners = of_samples.argmax(0)
    return {
        **measured(kind, fused, target),
        "modalities": {
            name: {
                "head": score(kind, heads[name][has], target[has]) if heads else None,
                "head_nll": nll(kind, heads[name][has], target[has]) if heads else None,
                "shapley": score(kind, phi[m][has], target[has]),
                "zeroed": score(kind, coalitions[2**m - 1][has], target[has]),
                "contribution": float(shares[m]),
                "dominance": float((winners == m).double().mean()),
            }
            for m, (name, has) in enumerate(zip(names, _having(present, len(names)), strict=True))
        },
        "imbalance": imbalance(shares),
    }


def imbalance(contributions: Tensor) -> float:
    """Return `(M max - 1) / (M - 1)` of contributions `(M,)`: 0 = balanced, 1 = one modality has all (or M = 1).

    >>> imbalance(torch.tensor([0.75, 0.25]))
    0.5
    """
    size = len(contributions)
    return 1.0 if size == 1 else float((size * contributions.max() - 1) / (size - 1))


def unsound_input(batch: Batch) -> str | None:
    """Return what is wrong with the first input that holds NaN or infinity, None when all are sound.

    >>> unsound_input(Batch({"audio": torch.tensor([[0.0, torch.nan]])}, torch.tensor([0])))
    "Input 'audio' holds 1 values that are NaN or infinite"
    """
    for name, value in batch.inputs.items():
        bad = int((~value.isfinite()).sum()) if value.is_floating_point() else 0
        if bad:
            return f"Input {name!r} holds {bad} values that are NaN or infinite"
    return None


def unsound_target(batch: Batch) -> str | None:
    """Return what is wrong with targets that hold NaN or infinity, None when all are sound.

    >>> unsound_target(Batch({}, torch.tensor([0.0, torch.nan])))
    'The target holds 1 values that are NaN or infinite'
    """
    bad = int((~batch.target.isfinite()).sum()) if batch.target.is_floating_point() else 0
    return f"The target holds {bad} values that are NaN or infinite" if bad else None


def _collected(
    network: MultimodalModel, split: Split, absent: str, prepare: Callable[[Batch], Batch]
) -> tuple[Tensor, Mapping[str, Tensor], Tensor, Tensor | None]:
    coalitions, targets, present = [], [], []
    heads: dict[str, list[Tensor]] = {}
    with shapley.evaluating(network), torch.no_grad():
        for batch in map(prepare, batches(split, _in_order(split))):
            output = network(batch.inputs, batch.present)
            if not output.logits.isfinite().all() and (unsound := unsound_input(batch)):
                raise ValueError(f"{unsound} of a split of {len(split)} samples. Clean the data.")
            given = output.features if absent == "feature" else batch.inputs
            coalitions.append(shapley.coalition_logits(network, given, absent=absent).float())  # type: ignore[arg-type]
            for name, logits in _head_logits(network, output.features).items():
                heads.setdefault(name, []).append(logits)
            targets.append(batch.target)
            if batch.present is not None:
                present.append(of_rows(batch.present, len(batch.target)))
    whole = {name: torch.cat(logits) for name, logits in heads.items()}
    return torch.cat(coalitions, 1), whole, torch.cat(targets), torch.cat(present) if present else None


def _having(present: Tensor | None, modalities: int) -> list[Tensor | slice]:
    """Return, for each modality, which samples have it; all where none has, so that there is something to count."""
    if present is None:
        return [slice(None)] * modalities
    return [column if column.any() else slice(None) for column in present.T]


def _in_order(split: Split) -> list[range]:
    """Return all samples in batches; ranges, of which a split in memory makes no copies."""
    size, whole = _at_once(split), range(len(split))
    return [whole[start : start + size] for start in whole[::size]]


def _at_once(split: Split) -> int:
    if not getattr(split, "reads_ahead", False):
        return EVALUATION_BATCH
    size = sum(value.nbytes for value in split[[0]].inputs.values())
    return min(EVALUATION_BATCH, max(2, EVALUATION_BYTES // max(size, 1)))


def _head_logits(network: MultimodalModel, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return network.head_logits(features) if network.has_heads else {}
