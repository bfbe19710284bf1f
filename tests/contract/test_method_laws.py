"""Laws of every method, whoever wrote it: found in the folder, not listed here."""

import contextlib
import dataclasses
import inspect
import math

import pytest
import torch

from msam import checks, methods, models, sharpness
from msam.methods import Method
from msam.types import Output
from tests.methods._toys import CLASSES, batch, built, gradients, model

every_method = pytest.mark.parametrize("name", methods.names())
every_fusion = pytest.mark.parametrize("fusion", sorted(models.FUSIONS))
every_rule = pytest.mark.parametrize("rule", sharpness.names())


def hints(kind: type) -> dict:
    return inspect.get_annotations(kind, eval_str=True)


@every_method
def test_it_is_a_frozen_dataclass_that_defaults_can_make(name):
    kind = methods.load(name)
    method = kind()
    assert issubclass(kind, Method)
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    for field in dataclasses.fields(method):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, field.name, getattr(method, field.name))
    assert method == kind()
    assert hash(method) == hash(kind())


@every_method
def test_it_is_final_and_directly_a_method(name):
    kind = methods.load(name)
    assert kind.__bases__ == (Method,)
    assert not kind.__subclasses__()


@every_method
def test_every_hyper_parameter_has_a_default_and_is_documented(name):
    kind = methods.load(name)
    for field in dataclasses.fields(kind):
        assert field.default is not dataclasses.MISSING
        assert f"{field.name}:" in inspect.getdoc(kind), f"{name} does not say what `{field.name}` is"


@every_method
def test_hyper_parameters_out_of_range_are_refused(name):
    kind = methods.load(name)
    for field, annotation in hints(kind).items():
        allowed = checks.parameter_range(annotation)
        if allowed is None:
            continue
        for bound, beyond in ((allowed.ge, -1), (allowed.gt, 0), (allowed.le, 1), (allowed.lt, 0)):
            if bound is not None:
                with pytest.raises(ValueError, match=f"`{field}` must be"):
                    kind(**{field: bound + beyond})
        with pytest.raises(ValueError, match=f"`{field}` must be"):
            kind(**{field: math.nan})


@every_method
@every_fusion
def test_same_seed_same_weights(name, fusion):
    kind = methods.load(name)
    first, second, other = (built(kind(), fusion, seed).network.state_dict() for seed in (0, 0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_method
@every_fusion
def test_it_builds_on_the_weights_it_is_given(name, fusion):
    given = model(fusion)
    before = {key: value.clone() for key, value in given.encoders.state_dict().items()}
    after = methods.load(name)().build(given, CLASSES).encoders.state_dict()
    assert after
    assert all(torch.equal(value, before[key]) for key, value in after.items())


@every_method
@every_fusion
def test_it_returns_an_output_with_features_and_leaves_gradients(name, fusion):
    method = methods.load(name)()
    run = built(method, fusion)
    output = method.gradients(run, batch())
    assert isinstance(output, Output)
    assert output.logits.shape == (8, CLASSES)
    assert tuple(output.features) == run.network.modalities
    made = [grad for grad in gradients(run).values() if grad is not None]
    assert made
    assert all(grad.isfinite().all() for grad in made)


@every_method
@every_fusion
def test_the_declared_passes_are_those_the_encoders_count(name, fusion):
    method = methods.load(name)()
    run = built(method, fusion)
    calls = dict.fromkeys(run.network.modalities, 0)

    def count(modality):
        calls[modality] += 1

    for modality, encoder in run.network.encoders.items():
        encoder.register_forward_hook(lambda *_, modality=modality: count(modality))
    method.gradients(run, batch())
    assert calls == dict.fromkeys(run.network.modalities, method.passes)


@every_method
@every_fusion
def test_two_equal_steps_make_equal_gradients(name, fusion):
    method, made = methods.load(name)(), []
    for _ in range(2):
        run = built(method, fusion)
        method.gradients(run, batch())
        made.append(gradients(run))
    for key in made[0]:
        assert (made[0][key] is None) == (made[1][key] is None)
        assert made[0][key] is None or torch.equal(made[0][key], made[1][key])


@every_method
@every_fusion
@every_rule
def test_it_composes_with_every_sharpness_rule(name, fusion, rule):
    method = methods.load(name)()
    run = built(method, fusion)
    made = sharpness.load(rule)(run.optimizer, rho=0.05, model=run.network)
    before = {key: value.clone() for key, value in run.network.state_dict().items()}
    method.gradients(run, batch())
    first = gradients(run)
    shares = torch.full((len(run.network.modalities),), 1 / len(run.network.modalities))
    with made.perturbed(shares) as climbing:
        assert climbing
        run.perturbed = True
        method.gradients(run, batch())
    run.perturbed = False
    second = gradients(run)
    assert all(grad is None or grad.isfinite().all() for grad in second.values())
    assert any(grad is not None and not torch.equal(grad, first[key]) for key, grad in second.items())
    assert all(torch.equal(p, before[key]) for key, p in run.network.named_parameters())
    run.optimizer.step()
    assert any(not torch.equal(p, before[key]) for key, p in run.network.named_parameters())


@every_method
def test_in_the_second_pass_what_it_remembers_stays_as_it_is(name):
    method = methods.load(name)()
    run = built(method)
    method.gradients(run, batch(0))
    before = {key: repr(value) for key, value in run.state.items()}
    random = run.generator.get_state()
    run.perturbed = True
    method.gradients(run, batch(0))
    assert {key: repr(value) for key, value in run.state.items()} == before
    assert torch.equal(run.generator.get_state(), random)


@every_method
def test_it_uses_the_runs_backward(name):
    method = methods.load(name)()
    run, losses = built(method), []
    run.backward = losses.append
    with contextlib.suppress(Exception):  # a method may need the gradient it does not get here
        method.gradients(run, batch())
    assert losses
    assert all(grad is None for grad in gradients(run).values())


@every_method
def test_it_has_at_least_one_stage_and_an_end(name):
    method = methods.load(name)()
    run = built(method)
    stages = []
    while (stage := method.stage(run, len(stages))) is not None:
        assert stage.epochs >= 1
        stages.append(stage)
        assert len(stages) < 1000
    assert stages
