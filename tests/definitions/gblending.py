"""Gradient-Blending, slowly: every head trained alone in a training of its own, on the whole training part at once."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from msam.models import MultimodalModel
from msam.types import Batch

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def blended(
    network: MultimodalModel,
    seen: Batch,
    held_out: Batch,
    final: Batch,
    make_optimizer: MakeOptimizer,
    schedule: Callable[[int], float],
    lr: float,
    lengths: list[int],
) -> tuple[MultimodalModel, list[list[float]]]:
    """Return the trained model, and the weights of each super-epoch.

    Arguments:
        network: with its heads, float64.
        seen: what estimates train on.
        held_out: what they measure on.
        final: what the blend trains on.
        make_optimizer: of some parameters.
        schedule: factor on the learning rate after so many epochs.
        lr: learning rate.
        lengths: epochs of each super-epoch.
    """
    optimizer, found, start = make_optimizer(list(network.parameters())), [], 0
    heads = [*network.modalities, None]
    for length in lengths:
        raw = []
        for head in heads:
            alone = copy.deepcopy(network)
            own = make_optimizer(list(alone.parameters()))
            train_before, valid_before = loss_of(alone, head, seen), loss_of(alone, head, held_out)
            train(alone, [(1.0, head)], seen, own, schedule, lr, range(start, start + length))
            train_after, valid_after = loss_of(alone, head, seen), loss_of(alone, head, held_out)
            gain = max(valid_before - valid_after, 0.0)
            growth = (valid_after - train_after) - (valid_before - train_before)
            raw.append(gain / max(growth**2, 1e-8))
        total = sum(raw)
        found.append([w / total if total else 1 / len(raw) for w in raw])
        train(
            network,
            list(zip(found[-1], heads, strict=True)),
            final,
            optimizer,
            schedule,
            lr,
            range(start, start + length),
        )
        start += length
    return network, found


def train(network, weighted, batch, optimizer, schedule, lr, epochs) -> None:
    network.train()
    for epoch in epochs:
        optimizer.param_groups[0]["lr"] = lr * schedule(epoch)
        optimizer.zero_grad()
        entropy = nn.functional.cross_entropy
        sum(weight * entropy(logits(network, head, batch), batch.target) for weight, head in weighted).backward()
        optimizer.step()


def loss_of(network, head, batch) -> float:
    network.eval()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(logits(network, head, batch), batch.target))


def logits(network, head, batch) -> Tensor:
    if head is None:
        return network.fusion({name: network.encoders[name](batch.inputs[name]) for name in network.modalities})
    return network.heads[head](network.encoders[head](batch.inputs[head]))
