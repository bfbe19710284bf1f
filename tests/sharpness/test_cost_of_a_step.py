"""What a step asks of torch beside its two passes: counted, as clocks differ from machine to machine."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from msam import shapley
from tests.sharpness._modal import SHARES, batch, model_of, rule_of


class Asked(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.of[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("memory", ["exact", "low"])
def test_climb_return_and_blend_are_one_call_each_however_many_parameters_and_wait_for_the_device_once(
    modalities, memory
):
    model = model_of("sum", modalities).float()
    rule = rule_of(model, memory=memory)
    second = {p: torch.ones_like(p) for p in model.parameters()}
    rule.slots.put({p: torch.ones_like(p) for p in second})
    with Asked() as asked, rule.perturbed(SHARES[modalities]):
        rule.slots.put(second)
    back = {"exact": ("_foreach_clone", "_foreach_copy_"), "low": ("_foreach_sub_",)}[memory]
    climb = ("_foreach_norm", "stack", "linalg_vector_norm", "_local_scalar_dense", "_foreach_add_")
    assert asked.of == Counter([*climb, *back, "_foreach_lerp_"])


@pytest.mark.parametrize("modalities", [2, 3])
def test_contributions_ask_for_a_sum_for_each_coalition_and_little_else_and_wait_for_the_device_once(modalities):
    model = model_of("sum", modalities)
    x, y = batch()
    output = model(x)
    with Asked() as asked:
        shapley.contributions(shapley.coalition_logits(model, output.features), y)
    sums = asked.of.pop("add")
    assert sums == 2**modalities - 1 + modalities - 1  # a sum for each coalition, and those of the biases
    assert asked.of["_local_scalar_dense"] == 1
    assert asked.of.total() <= 17 + 3 * modalities
