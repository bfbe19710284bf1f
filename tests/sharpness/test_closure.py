"""The closure form, for trainers that own the loop."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.nn.parallel import DistributedDataParallel

import msam

SHARES = [0.3, 0.7]


def setting():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    rule = msam.MSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.4, model=model)
    return model, rule


def loss_of(model):
    x = torch.arange(32, dtype=torch.float64).view(8, 4).sin()
    return nn.functional.cross_entropy(model(x), torch.arange(8) % 3)


def closure_for(model, optimizer, rule, shares=SHARES):
    def closure():
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        if shares is not None:
            rule.observe(shares)
        return loss

    return closure


def by_hand(model, rule):
    rule.optimizer.zero_grad()
    loss_of(model).backward()
    with rule.perturbed(SHARES):
        loss_of(model).backward()
    rule.optimizer.step()


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_closure_does_what_the_block_does_bit_for_bit():
    (one, rule), (other, twin) = setting(), setting()
    optimizer = twin.as_optimizer()
    for _ in range(3):
        first = loss_of(other).item()
        by_hand(one, rule)
        assert optimizer.step(closure_for(other, optimizer, twin)).item() == first
        assert equal(one, other)


def test_contributions_are_heard_in_the_first_pass_only():
    model, rule = setting()
    optimizer = rule.as_optimizer()
    said = iter([[0.2, 0.8], [0.5, 0.5]])

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        rule.observe(next(said))
        return loss

    optimizer.step(closure)
    assert rule.last["share"] == pytest.approx(0.8)


def test_contributions_of_one_step_do_not_serve_the_next():
    model, rule = setting()
    optimizer = rule.as_optimizer()
    optimizer.step(closure_for(model, optimizer, rule))
    with pytest.raises(ValueError, match="needs the contributions"):
        optimizer.step(closure_for(model, optimizer, rule, shares=None))


def test_a_step_without_a_closure_raises_rather_than_train_as_the_plain_optimizer():
    model, rule = setting()
    optimizer = rule.as_optimizer()
    loss_of(model).backward()
    with pytest.raises(RuntimeError, match="plain optimizer"):
        optimizer.step()
    with rule.perturbed(SHARES):
        loss_of(model).backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="plain optimizer"):
        optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()
    optimizer.zero_grad()
    optimizer.step()


def test_distributed_checkpoint_can_initialise_its_state():
    model, rule = setting()
    assert "state" in get_optimizer_state_dict(model, rule.as_optimizer())


def test_schedulers_on_either_object_steer_the_one_learning_rate():
    model, rule = setting()
    optimizer = rule.as_optimizer()
    schedulers = [torch.optim.lr_scheduler.StepLR(o, 1, 0.5) for o in (rule.optimizer, optimizer)]
    optimizer.step(closure_for(model, optimizer, rule))
    for scheduler in schedulers:
        scheduler.step()
    assert rule.optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == pytest.approx(0.025)


@pytest.mark.parametrize("into", ["closure form", "plain optimizer"])
def test_checkpoints_are_those_of_the_plain_optimizer(into):
    model, rule = setting()
    optimizer = rule.as_optimizer()
    optimizer.step(closure_for(model, optimizer, rule))
    saved = copy.deepcopy(optimizer.state_dict())
    other, twin = setting()
    other.load_state_dict(model.state_dict())
    second = twin.as_optimizer()
    (second if into == "closure form" else twin.optimizer).load_state_dict(saved)
    for m, o, r in ((model, optimizer, rule), (other, second, twin)):
        o.step(closure_for(m, o, r))
    assert equal(model, other)
    assert second.state is twin.optimizer.state


def test_a_group_added_to_either_is_in_both():
    _, rule = setting()
    optimizer = rule.as_optimizer()
    extra = nn.Parameter(torch.zeros(1))
    optimizer.add_param_group({"params": [extra]})
    assert rule.optimizer.param_groups[1]["params"][0] is extra


def _worker(rank: int, store: str, result: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
    rule = msam.MSAM(torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9), rho=0.4)
    x = torch.arange(32, dtype=torch.float64).view(8, 4).sin()[rank * 4 : rank * 4 + 4]
    y = (torch.arange(8) % 3)[rank * 4 : rank * 4 + 4]
    for _ in range(3):
        rule.optimizer.zero_grad()
        nn.functional.cross_entropy(wrapped(x), y).backward()
        with rule.perturbed([0.1, 0.9] if rank == 0 else [0.5, 0.5]):
            nn.functional.cross_entropy(wrapped(x), y).backward()
        rule.optimizer.step()
    if rank == 0:
        torch.save([p.detach() for p in model.parameters()], result)
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_two_ranks_agree_on_the_share_and_train_as_one_process(tmp_path):
    torch.multiprocessing.spawn(_worker, (str(tmp_path / "store"), str(tmp_path / "result")), nprocs=2)
    model, rule = setting()
    for _ in range(3):
        by_hand(model, rule)
    for a, b in zip(torch.load(tmp_path / "result", weights_only=True), model.parameters(), strict=True):
        torch.testing.assert_close(a, b.detach(), atol=1e-6, rtol=0)
