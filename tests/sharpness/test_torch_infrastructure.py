"""The closure form among torch's own optimizers: what torch's optimizer tests ask of every one, run beside SGD and AdamW.

The test infrastructure is private to torch and moves with it; the version is pinned in constraints.txt.
"""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing._internal.common_device_type import instantiate_device_type_tests
from torch.testing._internal.common_optimizers import (
    OptimizerErrorEnum,
    OptimizerInfo,
    _get_optim_inputs_including_global_cliquey_kwargs,
    optim_db,
    optims,
)
from torch.testing._internal.common_utils import TestCase

from msam import sharpness
from msam.sharpness._closure import ClosureOptimizer
from tests.contract._rules import SHARES, made
from tests.sharpness._flat import batch, close, flat, losses, network

# Importing the infrastructure freezes `torch.backends` for the whole process, other tests included.
torch.backends.__allow_nonbracketed_mutation_flag = True

PLAIN = {info.name: info for info in optim_db if info.name in ("SGD", "AdamW")}
BY_CLOSURE = [name for name in sharpness.names() if name != "imbsam"]
"""ImbSAM looks at the loss of every sample, which a closure does not show."""


def beside(rule: str, plain: OptimizerInfo) -> OptimizerInfo:
    """Return torch's own description of an optimizer, for the closure form of a rule beside it."""

    def optimizer(params: Any, **options: Any) -> ClosureOptimizer:
        return made(rule, plain.optim_cls(params, **options), 0.1).as_optimizer()

    optimizer.__name__ = f"{rule}_{plain.name}"
    return OptimizerInfo(
        optimizer,
        # A rule climbs the loss that the optimizer descends: maximize is refused, see below.
        optim_inputs_func=lambda device: [i for i in plain.optim_inputs_func(device) if "maximize" not in i.kwargs],
        optim_error_inputs_func=plain.optim_error_inputs_func,
        scheduler_inputs=plain.scheduler_inputs,
        # Through `differentiable=True` an optimizer is differentiated; a climb is not.
        supported_impls=tuple(i for i in plain.supported_impls if i != "differentiable"),
        supports_fused_on=plain.supports_fused_on,
        step_requires_closure=True,
    )


RULES = [beside(rule, PLAIN["SGD"]) for rule in BY_CLOSURE] + [beside(rule, PLAIN["AdamW"]) for rule in ("sam", "msam")]
ALL = [*PLAIN.values(), *RULES]


def closure_for(model: nn.Module, optimizer: torch.optim.Optimizer, t: int = 0) -> Callable[[], torch.Tensor]:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        x, y = batch(t)
        loss = losses(model(x), y).mean()
        loss.backward()
        if isinstance(optimizer, ClosureOptimizer):
            optimizer.sharpness.observe(SHARES)
        return loss

    return closure


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range = range(3)) -> torch.Tensor:
    for t in steps:
        optimizer.step(closure_for(model, optimizer, t))
    return flat(model)


def begun(info: OptimizerInfo, steps: range = range(3), **options: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = network()
    optimizer = info.optim_cls(model.parameters(), **(options or {"lr": 0.01}))
    trained(model, optimizer, steps)
    return model, optimizer


def configurations(device: str, dtype: torch.dtype, info: OptimizerInfo) -> list[dict[str, Any]]:
    """Return every set of options that torch tries, foreach and fused included."""
    found = _get_optim_inputs_including_global_cliquey_kwargs(device, dtype, info, skip=("differentiable",))
    return [i.kwargs for i in found if "maximize" not in i.kwargs]


def same(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, atol=0, rtol=0)


def through_a_file(content: Any, **options: Any) -> Any:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, **options)


class TestOptimizers(TestCase):
    """Laws of every optimizer, ours and torch's; `info` describes one of them."""

    @optims(ALL, dtypes=[torch.float64])
    def test_it_goes_downhill_in_every_configuration(self, device, dtype, optim_info):
        for options in configurations(device, dtype, optim_info):
            model = network()
            optimizer = optim_info.optim_cls(model.parameters(), **options)
            closure = closure_for(model, optimizer)
            before = closure().item()
            for _ in range(5):
                optimizer.step(closure)
            assert closure().item() < before, str(options)

    @optims(RULES, dtypes=[torch.float64])
    def test_foreach_and_fused_do_what_the_loop_does(self, device, dtype, optim_info):
        loop = flat(begun(optim_info, lr=0.01, foreach=False)[0])
        for flag in ("foreach", "fused"):
            close(flat(begun(optim_info, lr=0.01, **{flag: True})[0]), loop)

    @optims(ALL, dtypes=[torch.float64])
    def test_a_tensor_is_a_learning_rate(self, device, dtype, optim_info):
        model, rate = network(), torch.tensor(0.01, dtype=dtype)
        optimizer = optim_info.optim_cls(model.parameters(), lr=rate, foreach=False)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
        trained(model, optimizer)
        close(flat(model), flat(begun(optim_info, lr=0.01, foreach=False)[0]))
        for _ in range(3):
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] is rate
        assert rate.item() == 0.005

    @optims(ALL, dtypes=[torch.float64])
    def test_schedulers_steer_it(self, device, dtype, optim_info):
        for makers in optim_info.scheduler_inputs:
            model, optimizer = begun(optim_info, range(0))
            schedulers = [make(optimizer) for make in makers]
            closure = closure_for(model, optimizer)
            before, rates = closure().item(), set()
            for _ in range(12):
                loss = optimizer.step(closure)
                rates.add(optimizer.param_groups[0]["lr"])
                for scheduler in schedulers:
                    told = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
                    scheduler.step(loss.item()) if told else scheduler.step()
            assert closure().item() < before
            plateau_only = all(type(s) is torch.optim.lr_scheduler.ReduceLROnPlateau for s in schedulers)
            assert (len(rates) > 1) == (not plateau_only)

    @optims(ALL, dtypes=[torch.float64])
    def test_every_group_has_its_own_learning_rate_and_takes_the_defaults_of_the_others(
        self, device, dtype, optim_info
    ):
        model = network()
        groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[2].parameters()}]
        optimizer = optim_info.optim_cls(groups, lr=0.01, weight_decay=0.0)
        trained(model, optimizer)
        start = network()
        assert torch.equal(flat(model[0]), flat(start[0]))
        assert not torch.equal(flat(model[2]), flat(start[2]))
        assert optimizer.param_groups[1]["lr"] == 0.01

    @optims(ALL, dtypes=[torch.float64])
    def test_a_group_added_later_trains_with_the_rest(self, device, dtype, optim_info):
        model, whole = network(), network()
        optimizer = optim_info.optim_cls(model[0].parameters(), lr=0.01)
        optimizer.add_param_group({"params": model[2].parameters()})
        together = optim_info.optim_cls([{"params": m.parameters()} for m in (whole[0], whole[2])], lr=0.01)
        assert torch.equal(trained(model, optimizer), trained(whole, together))

    @optims(ALL, dtypes=[torch.float64])
    def test_hooks_run_around_the_step_and_may_be_removed(self, device, dtype, optim_info):
        model, optimizer = begun(optim_info, range(0))
        order, closure = [], closure_for(model, optimizer)

        def calls() -> torch.Tensor:
            order.append("closure")
            return closure()

        handles = [
            optimizer.register_step_pre_hook(lambda opt, args, kwargs: order.append(("pre", opt is optimizer))),
            optimizer.register_step_post_hook(lambda opt, args, kwargs: order.append(("post", opt is optimizer))),
        ]
        optimizer.step(calls)
        passes = order[1:-1]
        assert [order[0], order[-1]] == [("pre", True), ("post", True)]
        assert set(passes) == {"closure"}
        for handle in handles:
            handle.remove()
        optimizer.step(calls)
        assert order[len(passes) + 2 :] == passes

    @optims(ALL, dtypes=[torch.float64])
    def test_hooks_see_and_change_what_is_saved_and_loaded(self, device, dtype, optim_info):
        _, optimizer = begun(optim_info)
        seen = []
        optimizer.register_state_dict_pre_hook(lambda opt: seen.append("before saving"))
        optimizer.register_state_dict_post_hook(lambda opt, saved: {**saved, "note": 1})
        optimizer.register_load_state_dict_pre_hook(lambda opt, saved: seen.append(saved["note"]))
        optimizer.register_load_state_dict_post_hook(lambda opt: seen.append(len(opt.state)))
        optimizer.load_state_dict(optimizer.state_dict())
        assert seen == ["before saving", 1, 4 if optimizer.state else 0]

    @optims(ALL, dtypes=[torch.float64])
    def test_a_step_runs_without_grad_while_its_closure_runs_with_it(self, device, dtype, optim_info):
        model, optimizer = begun(optim_info)
        modes = []
        optimizer.register_step_post_hook(lambda *_: modes.append(torch.is_grad_enabled()))
        with torch.no_grad():
            loss = optimizer.step(closure_for(model, optimizer))
        assert modes == [False]
        assert loss.requires_grad
        assert all(p.is_leaf and p.requires_grad for p in model.parameters())

    @optims(ALL, dtypes=[torch.float64])
    def test_zero_or_no_gradients_move_nothing(self, device, dtype, optim_info):
        for zeros in (True, False):
            model = network()
            optimizer = optim_info.optim_cls(model.parameters(), lr=0.01, weight_decay=0.0)

            def closure(model=model, optimizer=optimizer, zeros=zeros) -> torch.Tensor:
                for p in model.parameters():
                    p.grad = torch.zeros_like(p) if zeros else None
                if isinstance(optimizer, ClosureOptimizer):
                    optimizer.sharpness.observe(SHARES)
                return torch.tensor(1.0)

            if zeros:
                optimizer.step(closure)
            optimizer.zero_grad(set_to_none=not zeros)
            optimizer.step()
            assert torch.equal(flat(model), flat(network()))

    @optims(ALL, dtypes=[torch.float64])
    def test_the_state_dict_is_deterministic_and_training_goes_on_from_it_bit_for_bit(self, device, dtype, optim_info):
        for options in configurations(device, dtype, optim_info):
            (model, optimizer), (twin, _) = begun(optim_info, **options), begun(optim_info, **options)
            fresh = optim_info.optim_cls(twin.parameters(), **options)
            saved = through_a_file(optimizer.state_dict(), weights_only=True)
            same(saved, begun(optim_info, **options)[1].state_dict())
            fresh.load_state_dict(saved)
            same(fresh.state_dict(), saved)
            if isinstance(optimizer, ClosureOptimizer):
                # What the rule remembers is a state of its own: the optimizer's loads without the rule.
                memory = through_a_file(optimizer.sharpness.state_dict(), weights_only=True)
                fresh.sharpness.load_state_dict(memory)
            after = range(3, 6)
            assert torch.equal(trained(twin, fresh, after), trained(model, optimizer, after))

    @optims(ALL, dtypes=[torch.float64])
    def test_an_older_checkpoint_lacks_options_that_came_later(self, device, dtype, optim_info):
        model, optimizer = begun(optim_info)
        old = copy.deepcopy(optimizer.state_dict())
        for group in old["param_groups"]:
            for later in ("foreach", "maximize", "fused", "differentiable"):
                del group[later]
        optimizer.load_state_dict(old)
        assert not torch.equal(flat(model), trained(model, optimizer))
        assert optimizer.param_groups[0]["maximize"] is False

    @optims(ALL, dtypes=[torch.float64])
    def test_copies_train_on_as_the_original_would(self, device, dtype, optim_info):
        for copied in (copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both)), through_anything):
            model, optimizer = begun(optim_info)
            theta = flat(model)
            twin, other = copied((model, optimizer))
            assert {k for k in vars(optimizer) if k[0] != "_"} == {k for k in vars(other) if k[0] != "_"}
            ahead = trained(twin, other, range(3, 6))
            assert torch.equal(flat(model), theta)
            assert torch.equal(trained(model, optimizer, range(3, 6)), ahead)

    @optims(ALL, dtypes=[torch.float64])
    def test_wrong_arguments_are_refused_in_the_words_of_the_optimizer(self, device, dtype, optim_info):
        for wrong in optim_info.optim_error_inputs_func(device, dtype):
            given = wrong.optimizer_error_input
            params = [nn.Parameter(torch.ones(1, 1))] if given.params is None else given.params
            assert wrong.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR
            with pytest.raises(wrong.error_type, match=wrong.error_regex):
                optim_info.optim_cls(params, **given.kwargs)

    @optims(RULES, dtypes=[torch.float64])
    def test_maximize_is_refused(self, device, dtype, optim_info):
        with pytest.raises(ValueError, match="must minimize"):
            optim_info.optim_cls([nn.Parameter(torch.ones(1))], lr=0.01, maximize=True)


def through_anything(both: Any) -> Any:
    """Save and load whole objects, code included."""
    return through_a_file(both, weights_only=False)


instantiate_device_type_tests(TestOptimizers, globals(), only_for=("cpu",))
