"""Two processes train as one."""

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import msam
from msam import shapley

SHARES = {0: [0.1, 0.9], 1: [0.5, 0.5]}
STEPS = 3
RULES = {
    "msam": lambda optimizer, model: msam.MSAM(optimizer, 0.4, model=model, monitor=1),
    "msam, low memory": lambda optimizer, model: msam.MSAM(optimizer, 0.4, model=model, memory="low"),
    "msam, reused": lambda optimizer, model: msam.MSAM(optimizer, 0.4, model=model, every=2),
    **{
        rule.__name__: lambda optimizer, model, rule=rule: rule(optimizer, 0.4, model=model)
        for rule in (msam.SAM, msam.ASAM, msam.GSAM, msam.FisherSAM, msam.FSAM, msam.GNP, msam.LookSAM, msam.GAM)
    },
}


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


def train_by(name: str, model: nn.Module, rows: slice) -> list[torch.Tensor]:
    """Train by any rule, in the form that all of them have."""
    rule = RULES[name](torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model)
    x = torch.arange(32, dtype=torch.float64).view(8, 4).sin()[rows]
    y = (torch.arange(8) % 3)[rows]
    for _ in range(STEPS):
        rule.optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        rule.complete(lambda: nn.functional.cross_entropy(model(x), y).backward(), [0.3, 0.7])
        rule.optimizer.step()
    return [p.detach() for p in model.parameters()]


SPLIT = {
    "by sample": lambda optimizer, model: msam.MSAM(optimizer, 0.4, model=model, weighting="sample"),
    "masked": lambda optimizer, model: msam.MSAM(optimizer, 0.4, model=model, loss="masked"),
    "tail on one rank": lambda optimizer, model: msam.ImbSAM(optimizer, 0.4, tail=(0,), model=model),
    "tail nowhere": lambda optimizer, model: msam.ImbSAM(optimizer, 0.4, tail=(7,), model=model),
}


def train_split(name: str, wrap, rows: slice) -> list[torch.Tensor]:
    """Train by a rule that splits the loss: two backwards on one forward."""
    torch.manual_seed(0)
    encoders = {n: nn.Sequential(nn.Linear(4, 5), nn.Tanh()) for n in ("audio", "image")}
    plain = msam.MultimodalModel(encoders, msam.SumFusion(dict.fromkeys(encoders, 5), 3)).double()
    model = wrap(plain)
    rule = SPLIT[name](torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9), plain)
    x = torch.arange(64, dtype=torch.float64).view(8, 8).sin()[rows]
    y = torch.tensor([0, 1, 2, 0, 1, 2, 1, 2])[rows]

    def shares(output):
        if not rule.by_sample:
            return [0.3, 0.7]  # the mean of ranks' shares is not the share of the whole batch
        return shapley.contributions(shapley.coalition_logits(plain, output.features), y, reduction="none")

    for _ in range(STEPS):
        inputs = {"audio": x[:, :4], "image": x[:, 4:]}
        losses = lambda output: nn.functional.cross_entropy(output.logits, y, reduction="none")  # noqa: E731
        rule.backward(model, inputs, losses, shares, target=y)
        rule.optimizer.step()
    return [p.detach() for p in plain.parameters()]


def train_per_worker(name: str, models: list[nn.Module], rows: list[slice]) -> list[torch.Tensor]:
    """Train with a radius per worker, all workers in one process: each climbs by its own gradient, the mean is spent."""
    x, y = torch.arange(32, dtype=torch.float64).view(8, 4).sin(), torch.arange(8) % 3
    spent = torch.optim.SGD(models[0].parameters(), lr=0.1, momentum=0.9)
    rules = [RULES[name](torch.optim.SGD(m.parameters(), lr=0.1), m) for m in models]
    for _ in range(STEPS):
        for rule, model, part in zip(rules, models, rows, strict=True):
            model.load_state_dict(models[0].state_dict())
            losses = lambda z, part=part: nn.functional.cross_entropy(z, y[part], reduction="none")  # noqa: E731
            rule.backward(model, x[part], losses, [0.3, 0.7])
        for copies in zip(*(m.parameters() for m in models), strict=True):
            copies[0].grad = torch.stack([p.grad for p in copies]).mean(0)
        spent.step()
    return [p.detach() for p in models[0].parameters()]


def train_worker(name: str, rows: slice) -> list[torch.Tensor]:
    """The same on one rank of two."""
    x, y = torch.arange(32, dtype=torch.float64).view(8, 4).sin()[rows], (torch.arange(8) % 3)[rows]
    plain = network()
    model = DistributedDataParallel(plain)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    kinds = {"msam": msam.MSAM, "SAM": msam.SAM}
    rule = kinds[name](optimizer, 0.4, model=plain, radius="worker")
    for _ in range(STEPS):
        rule.backward(model, x, lambda z: nn.functional.cross_entropy(z, y, reduction="none"), [0.3, 0.7])
        optimizer.step()
    return [p.detach() for p in plain.parameters()]


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
    for name in RULES:
        model = fully_shard(network())
        found[name] = [p.full_tensor() for p in train_by(name, model, rows)]
    for name in ("msam", "SAM"):
        found[f"{name} per worker"] = train_worker(name, rows)
    for name in SPLIT:
        found[name] = train_split(name, DistributedDataParallel, rows)
    torch.save(found, f"{result}{rank}")
    dist.destroy_process_group()
    os._exit(0)  # meshes that DTensor caches keep gloo's threads alive, which may abort a process that ends by itself


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(_worker, (str(folder / "store"), str(folder / "result")), nprocs=2)
    return [torch.load(folder / f"result{rank}", weights_only=True) for rank in range(2)]


def test_ranks_agree_on_the_mean_share_and_train_as_one_process_on_the_whole_batch(ranks):
    model = network()
    expected = train(model, rule_of(model), [0.3, 0.7], slice(None))
    for rank, found in enumerate(ranks):
        assert found["share"] == pytest.approx(0.7)
        assert found["own share"] == pytest.approx(max(SHARES[rank]))
        for views in (True, False):
            for a, b in zip(found[f"views {views}"], expected, strict=True):
                torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_trains_sharded_weights_as_whole_ones(ranks, name):
    expected = train_by(name, network(), slice(None))
    for found in ranks:
        for a, b in zip(found[name], expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", SPLIT)
def test_two_backwards_on_one_forward_are_averaged_over_ranks_all_the_same(ranks, name):
    expected = train_split(name, lambda model: model, slice(None))
    for found in ranks:
        for a, b in zip(found[name], expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["msam", "SAM"])
def test_with_a_radius_per_worker_each_rank_climbs_by_its_own_gradient_and_the_mean_is_spent(ranks, name):
    expected = train_per_worker(name, [network(), network()], [slice(0, 4), slice(4, 8)])
    together = train_by(name, network(), slice(None))
    assert not torch.allclose(expected[0], together[0])
    for found in ranks:
        for a, b in zip(found[f"{name} per worker"], expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
