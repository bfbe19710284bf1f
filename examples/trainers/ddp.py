"""DistributedDataParallel, here with two processes on the CPU.

By default the radius is that of the *global* gradient: DDP averages the gradients of both passes, so every rank
climbs alike, and training equals one process on the whole batch. The numbered lines matter: 1 wraps the model, 2
gives the rule the model inside, whose fusion is asked for coalitions; contributions are averaged over ranks by the
rule itself.

`per_worker=True` lets every rank climb by its own gradient (m-sharpness), with half the communication: 3 keeps DDP
from averaging in both passes (forward *and* backward stand inside: DDP decides at forward), 4 averages what is spent,
once. With torchrun, call `init_process_group()` without arguments and drop `main` and `worker`.
"""

import tempfile
from contextlib import nullcontext
from datetime import timedelta

import torch
import torch._dynamo  # imported once a group exists, as DDP and optimizers do, it keeps the group's threads alive at exit
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import msam
from _problem import EPOCHS, RHO, contributions_of, criterion, make_batches, make_model, make_optimizer, summary


def train(per_worker: bool = False) -> msam.MSAM:
    """Train in this process on its rows of every batch; return the rule, which holds optimizer and model."""
    model = make_model()
    parallel = DistributedDataParallel(model)  # 1
    optimizer = make_optimizer(model)
    sharpness = msam.MSAM(optimizer, rho=RHO, model=model)  # 2
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for _ in range(EPOCHS):
        for inputs, target in make_batches():
            x, y = {name: v.chunk(ranks)[rank] for name, v in inputs.items()}, target.chunk(ranks)[rank]
            optimizer.zero_grad()
            with parallel.no_sync() if per_worker else nullcontext():  # 3
                output = parallel(x)
                criterion(output.logits, y).backward()
                with sharpness.perturbed(contributions_of(model, output, y)):
                    criterion(parallel(x).logits, y).backward()
            if per_worker:
                average([p.grad for p in model.parameters()])  # 4
            optimizer.step()
    return sharpness


def average(gradients: list[torch.Tensor]) -> None:
    """Replace gradients by their mean over ranks, in one all-reduce."""
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient) / dist.get_world_size())


def worker(rank: int, store: str) -> None:
    """Train as one of two processes."""
    torch.set_num_threads(1)
    limit = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=limit)
    for name, per_worker in (("global radius", False), ("radius per worker", True)):
        sharpness = train(per_worker)
        if rank == 0:
            print(f"DDP, {name}:", summary(sharpness.model))
    dist.destroy_process_group()


def main() -> None:
    """Start two processes; each prints what it has to say."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(worker, (f"{folder}/store",), nprocs=2)


if __name__ == "__main__":
    main()
