"""FSDP2, here with two processes on the CPU: weights, gradients and the climb are sharded.

The numbered lines matter: 1 shards from the inside out, the fusion as a part of its own; 2 makes the optimizer and the
rule after that, of the sharded parameters; 3 asks for coalitions, which calls the fusion as the module it is, so that
its weights are gathered. The gradient's norm is summed over ranks, so training equals one process on the whole batch.

`set_reshard_after_backward(False)` is refused: the second pass would use weights gathered before the climb.
"""

import tempfile
from datetime import timedelta

import torch
import torch._dynamo  # imported once a group exists, as DDP and optimizers do, it keeps the group's threads alive at exit
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

import msam
from _problem import EPOCHS, RHO, contributions_of, criterion, make_batches, make_model, make_optimizer, summary


def train() -> msam.MSAM:
    """Train in this process on its rows of every batch; return the rule, which holds optimizer and model."""
    model = make_model()
    for part in (*model.encoders.values(), model.fusion, model):
        fully_shard(part)  # 1
    optimizer = make_optimizer(model)  # 2
    sharpness = msam.MSAM(optimizer, rho=RHO, model=model)
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for _ in range(EPOCHS):
        for inputs, target in make_batches():
            x, y = {name: v.chunk(ranks)[rank] for name, v in inputs.items()}, target.chunk(ranks)[rank]
            optimizer.zero_grad()
            output = model(x)
            criterion(output.logits, y).backward()
            with sharpness.perturbed(contributions_of(model, output, y)):  # 3
                criterion(model(x).logits, y).backward()
            optimizer.step()
    return sharpness


def worker(rank: int, store: str) -> None:
    """Train as one of two processes."""
    torch.set_num_threads(1)
    limit = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=limit)
    line = summary(train().model)  # on every rank: weights are gathered for it
    if rank == 0:
        print("FSDP2:", line)
    dist.destroy_process_group()


def main() -> None:
    """Start two processes; the first prints a line."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(worker, (f"{folder}/store",), nprocs=2)


if __name__ == "__main__":
    main()
