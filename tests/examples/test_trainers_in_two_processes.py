"""Two processes over gloo train as one: DDP by the global radius or one per worker, FSDP2 with everything sharded."""

import os
import re
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from tests.examples._by_hand import by_hand, example, weights


def _worker(rank, folder):
    torch.set_num_threads(1)
    for name in ("ddp", "fsdp2"):  # what `main` starts, without the time it takes to start it
        example(name).worker(rank, f"{folder}/{name}")
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    found = {}
    for name, train in (
        ("global radius", lambda: example("ddp").train()),
        ("radius per worker", lambda: example("ddp").train(per_worker=True)),
        ("sharded", lambda: example("fsdp2").train()),
    ):
        rule = train()
        whole = [w.full_tensor() if name == "sharded" else w for w in weights(rule.model)]
        found[name] = {"weights": whole, "share": rule.last["share"]}
    found["in place"] = _in_place()
    found["refused"] = _refused()
    torch.save(found, f"{folder}/found{rank}")
    dist.destroy_process_group()
    os._exit(0)  # meshes that DTensor caches keep gloo's threads alive, which may abort a process that ends by itself


def _sharded(**options):
    problem = example("_problem")
    model = problem.make_model()
    fully_shard(model)
    if options.get("gathered"):
        model.set_reshard_after_backward(False)
    rule = example("fsdp2").msam.SAM(problem.make_optimizer(model), rho=problem.RHO, model=model)
    x, y = problem.make_batches()[0]
    problem.criterion(model(x).logits, y).backward()
    return problem, model, rule, x, y


def _in_place():
    """Tell whether weights climb and come back bit for bit in the memory they had."""
    problem, model, rule, x, y = _sharded()
    shards = [w.to_local() for w in weights(model)]
    before, places = [s.clone() for s in shards], [s.data_ptr() for s in shards]
    with rule.perturbed():
        climbed = [w.to_local().clone() for w in weights(model)]
        problem.criterion(model(x).logits, y).backward()
    after = [w.to_local() for w in weights(model)]
    length = torch.stack([(a - b).square().sum() for a, b in zip(climbed, before, strict=True)]).sum()
    dist.all_reduce(length)
    return {
        "same memory": [w.data_ptr() for w in after] == places,
        "same bits": all(torch.equal(a, b) for a, b in zip(after, before, strict=True)),
        "radius": length.sqrt().item(),
    }


def _refused():
    _, _, rule, _, _ = _sharded(gathered=True)
    try:
        with rule.perturbed():
            pass
    except RuntimeError as error:
        return str(error)
    return "nothing"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    context = torch.multiprocessing.spawn(_worker, (str(folder),), nprocs=2, join=False)
    for _ in range(2):
        if context.join(timeout=60):
            return [torch.load(folder / f"found{rank}", weights_only=True) for rank in range(2)]
    for process in context.processes:
        process.kill()
    raise TimeoutError("two processes did not finish within their time")


@pytest.mark.parametrize("name", ["global radius", "radius per worker", "sharded"])
def test_ranks_train_as_one_process_on_the_whole_batch(ranks, name):
    expected = by_hand(ranks=2, per_worker=name == "radius per worker")
    for found in ranks:
        for a, b in zip(found[name]["weights"], expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["global radius", "radius per worker", "sharded"])
def test_ranks_agree_on_weights_and_contributions_bit_for_bit(ranks, name):
    one, other = (found[name] for found in ranks)
    assert one["share"] == other["share"]
    assert all(torch.equal(a, b) for a, b in zip(one["weights"], other["weights"], strict=True))


def test_a_radius_per_worker_is_another_algorithm(ranks):
    pairs = zip(ranks[0]["global radius"]["weights"], ranks[0]["radius per worker"]["weights"], strict=True)
    assert any((a - b).abs().max() > 1e-4 for a, b in pairs)


def test_shards_climb_by_the_radius_and_come_back_where_they_were(ranks):
    for found in ranks:
        assert found["in place"]["same memory"]
        assert found["in place"]["same bits"]
        assert found["in place"]["radius"] == pytest.approx(example("_problem").RHO, rel=1e-5)


def test_weights_that_stay_gathered_are_refused(ranks):
    assert all("set_reshard_after_backward" in found["refused"] for found in ranks)


def test_main_starts_both_processes_and_prints(capfd):
    example("ddp").main()
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(r"DDP, .*: loss 0\.\d{4} after 2 epochs", line) for line in lines)
