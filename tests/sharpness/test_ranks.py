"""Two processes train as one."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import msam

SHARES = {0: [0.1, 0.9], 1: [0.5, 0.5]}
STEPS = 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def rule_of(model: nn.Module, **options) -> msam.MSAM:
    return msam.MSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.4, **options)


def train(model: nn.Module, rule: msam.MSAM, shares: list[float], rows: slice) -> list[torch.Tensor]:
    x = torch.arange(32, dtype=torch.float64).view(8, 4).sin()[rows]
    y = (torch.arange(8) % 3)[rows]
    for _ in range(STEPS):
        rule.optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        with rule.perturbed(shares):
            nn.functional.cross_entropy(model(x), y).backward()
        rule.optimizer.step()
    return [p.detach() for p in model.parameters()]


def _worker(rank: int, store: str, result: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    rows, found = slice(4 * rank, 4 * rank + 4), {}
    for views in (True, False):
        model = DistributedDataParallel(network(), gradient_as_bucket_view=views)
        rule = rule_of(model)
        found[f"views {views}"] = train(model, rule, SHARES[rank], rows)
        found["share"] = rule.last["share"]
    model = network()
    alone = rule_of(model, sync=False)
    train(model, alone, SHARES[rank], rows)
    found["own share"] = alone.last["share"]
    torch.save(found, f"{result}{rank}")
    dist.destroy_process_group()


def test_ranks_agree_on_the_mean_share_and_train_as_one_process_on_the_whole_batch(tmp_path):
    torch.multiprocessing.spawn(_worker, (str(tmp_path / "store"), str(tmp_path / "result")), nprocs=2)
    model = network()
    expected = train(model, rule_of(model), [0.3, 0.7], slice(None))
    for rank in range(2):
        found = torch.load(tmp_path / f"result{rank}", weights_only=True)
        assert found["share"] == pytest.approx(0.7)
        assert found["own share"] == pytest.approx(max(SHARES[rank]))
        for views in (True, False):
            for a, b in zip(found[f"views {views}"], expected, strict=True):
                torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
