"""Laws of every method, whoever wrote it: found in the folder, not listed here. One step on a toy model at a time."""

import dataclasses
import inspect
import math
import re

import pytest
import torch

from msam import checks, methods, sharpness
from msam.methods import About, Method
from msam.methods._catalogue import choices
from msam.types import Output
from tests.contract._methods import ADMITTED, admitted, every_method, every_setting, remembered, reordered
from tests.methods._toys import CLASSES, EARLY, FOUR, LATE, batch, built, close, enter, gradients, model, run_of, steps

SPARE = torch.nn.Parameter(torch.zeros(1))
REPEATING = [
    name for name in sharpness.names() if not sharpness.load(name)(torch.optim.SGD([SPARE], lr=1)).needs_samples
]
WITH_RULES = [(*setting, "msam") for setting in ADMITTED] + [
    (name, fusion, names, rule)
    for name, fusion, names in ADMITTED
    for rule in REPEATING
    if rule != "msam" and fusion == "late" and len(names) == 2
]
"""Every setting with M-SAM, and every method with every rule that asks for the whole gradient again."""


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
def test_the_catalogue_knows_it(name):
    kind = methods.load(name)
    assert isinstance(kind.about, About)
    assert kind.about.paper
    assert kind.about.changes
    if kind.about.paper != "the baseline":
        year = re.search(r"\d{4}", kind.about.paper)
        assert year
        assert year[0] in inspect.getdoc(inspect.getmodule(kind)) + inspect.getdoc(kind), (
            "the docstring names the paper"
        )


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
def test_words_that_are_no_choice_are_refused(name):
    kind = methods.load(name)
    for field, (default, *_) in choices(kind).items():
        with pytest.raises(ValueError, match=f"Unknown {field} 'neither'"):
            kind(**{field: "neither"})
        if default != "the variant's":
            with pytest.raises(ValueError, match=f"Unknown {field} None"):
                kind(**{field: None})


@every_method
def test_a_window_that_ends_before_it_begins_is_refused(name):
    kind = methods.load(name)
    if not {"first_epoch", "last_epoch"} <= {field.name for field in dataclasses.fields(kind)}:
        return
    assert kind(first_epoch=3, last_epoch=3).last_epoch == 3
    assert kind(first_epoch=3, last_epoch=None).first_epoch == 3
    with pytest.raises(ValueError, match=r"`last_epoch` must be >= `first_epoch` \(3\), received 2"):
        kind(first_epoch=3, last_epoch=2)


@every_method
def test_a_window_that_the_run_does_not_reach_is_refused(name):
    kind = methods.load(name)
    if "first_epoch" not in {field.name for field in dataclasses.fields(kind)}:
        return
    built(kind(first_epoch=3), names=FOUR[:2], epochs=3)
    with pytest.raises(ValueError, match=r"`first_epoch` must be <= the epochs of the run \(2\), received 3"):
        built(kind(first_epoch=3), names=FOUR[:2], epochs=2)


@every_setting
def test_same_seed_same_weights(name, fusion, names):
    method = admitted(name, fusion, names)
    first, second, other = (built(method, fusion, seed, names).network.state_dict() for seed in (0, 0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_setting
def test_it_builds_on_the_weights_it_is_given(name, fusion, names):
    given = model(fusion, names=names)
    before = {key: value.clone() for key, value in given.encoders.state_dict().items()}
    after = admitted(name, fusion, names).build(given, CLASSES).encoders.state_dict()
    assert after
    assert all(torch.equal(value, before[key]) for key, value in after.items())


@every_method
@pytest.mark.parametrize("fusion", [*LATE, *EARLY])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_where_it_is_not_defined_it_says_so_and_names_the_way_out(name, fusion, count):
    kind, names = methods.load(name), FOUR[:count]
    beyond = (fusion in EARLY and not kind.about.early) or (kind.about.most is not None and count > kind.about.most)
    if not beyond:
        assert (name, fusion, names) in ADMITTED
        kind().build(model(fusion, names=names), CLASSES)
        return
    with pytest.raises(ValueError, match=r"extension|late fusion|concat") as refused:
        kind().build(model(fusion, names=names), CLASSES)
    for key in kind.about.extension:
        assert f"method.{key}" in str(refused.value)


@every_method
def test_of_one_modality_it_says_that_it_needs_two_or_trains_its_encoder(name):
    method, alone = methods.load(name)(), FOUR[:1]
    refused = ""
    try:
        run = built(method, names=alone)
    except ValueError as error:
        refused = str(error)
    if refused:
        assert re.search("compares modalities and needs at least two, found .*Use joint training", refused)
        return
    for number in range(3):
        run.begin_step(number + 1)
        run.optimizer.zero_grad()
        method.gradients(run, batch(number, names=alone))
        assert all(p.grad.norm() > 1e-4 for p in run.network.encoders.parameters())
        run.optimizer.step()


@every_setting
def test_it_returns_an_output_with_features_and_leaves_gradients(name, fusion, names):
    method = admitted(name, fusion, names)
    run = built(method, fusion, names=names)
    output = method.gradients(run, batch(names=names))
    assert isinstance(output, Output)
    assert output.logits.shape == (8, CLASSES)
    assert tuple(output.features) == run.modalities
    made = [grad for grad in gradients(run).values() if grad is not None]
    assert made
    assert all(grad.isfinite().all() for grad in made)


@every_setting
def test_two_equal_runs_make_equal_gradients(name, fusion, names):
    made = []
    for _ in range(2):
        method = admitted(name, fusion, names)
        run = built(method, fusion, names=names)
        torch.manual_seed(0)
        steps(method, run, 3, names)
        made.append(gradients(run))
    for key in made[0]:
        assert (made[0][key] is None) == (made[1][key] is None)
        assert made[0][key] is None or torch.equal(made[0][key], made[1][key])


@every_setting
def test_names_of_modalities_mean_nothing(name, fusion, names):
    made = []
    other = dict(zip(names, ("m9", "m3", "m7", "m1"), strict=False))
    for called in (names, tuple(other.values())):
        method = admitted(name, fusion, called)
        run = built(method, fusion, names=called)
        inputs = batch(names=called)
        torch.manual_seed(0)
        method.gradients(run, inputs)
        made.append(list(gradients(run).values()))
    for a, b in zip(*made, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


@every_setting
def test_the_order_of_modalities_means_nothing(name, fusion, names):
    about = methods.load(name).about
    if about.ordered or fusion in EARLY:  # the columns of a trunk are in order
        return
    straight, reverse = (admitted(name, fusion, ordered, **about.still) for ordered in (names, names[::-1]))
    first = run_of(straight.build(model(fusion, names=names), CLASSES).double())
    second = run_of(reverse.build(model(fusion, names=names[::-1]), CLASSES).double())
    second.network.load_state_dict(reordered(first.network, second.network))
    for method, run in ((straight, first), (reverse, second)):
        enter(method, run, 0)
        steps(method, run, 3, names)
    for key, value in reordered(first.network, second.network).items():
        close(second.network.state_dict()[key], value, 1e-9)


@every_setting
def test_at_neutral_settings_it_is_the_simpler_method(name, fusion, names):
    neutral = methods.load(name).about.neutral
    if neutral is None:
        return
    simpler, settings = neutral
    runs = []
    for method in (admitted(name, fusion, names, **settings), admitted(simpler, fusion, names)):
        run = built(method, fusion, names=names)
        torch.manual_seed(0)
        steps(method, run, 4, names)
        runs.append(run.network.state_dict())
    assert runs[0].keys() & runs[1].keys()
    for key in runs[0].keys() & runs[1].keys():
        close(runs[0][key], runs[1][key])


@pytest.mark.parametrize(
    ("name", "fusion", "names", "rule"), WITH_RULES, ids=[f"{n}-{f}-{len(m)}-{r}" for n, f, m, r in WITH_RULES]
)
def test_it_composes_with_every_sharpness_rule(name, fusion, names, rule):
    method = admitted(name, fusion, names)
    run = built(method, fusion, names=names)
    made = sharpness.load(rule)(run.optimizer, rho=0.05, model=run.network)
    before = {key: value.clone() for key, value in run.network.state_dict().items()}
    method.gradients(run, batch(names=names))
    first = gradients(run)
    shares = torch.full((len(run.modalities),), 1 / len(run.modalities))
    climbs = []

    def again():
        climbs.append(1)
        run.perturbed = True
        method.gradients(run, batch(names=names))

    made.complete(again, shares)
    assert climbs
    run.perturbed = False
    second = gradients(run)
    assert all(grad is None or grad.isfinite().all() for grad in second.values())
    assert any(grad is not None and not torch.equal(grad, first[key]) for key, grad in second.items())
    assert all(torch.equal(p, before[key]) for key, p in run.network.named_parameters())
    run.optimizer.step()
    assert any(not torch.equal(p, before[key]) for key, p in run.network.named_parameters())


@every_setting
def test_in_the_second_pass_what_it_remembers_stays_and_what_it_decided_is_reused(name, fusion, names):
    method = admitted(name, fusion, names)
    run = built(method, fusion, names=names)
    steps(method, run, 2, names)
    run.begin_step(3)
    method.gradients(run, batch(0, names=names))
    before, decided = remembered(run.state), dict(run.notes)
    random = run.generator.get_state()
    with torch.no_grad():
        for p in run.network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3), dtype=p.dtype))
    run.perturbed = True
    method.gradients(run, batch(0, names=names))
    assert remembered(run.state) == before
    assert run.notes == decided
    assert torch.equal(run.generator.get_state(), random)


@every_setting
def test_it_uses_the_runs_backward(name, fusion, names):
    method = admitted(name, fusion, names)
    run, losses = built(method, fusion, names=names), []
    plain = run.backward

    def listening(loss, retain_graph=False):
        losses.append(loss)
        plain(loss, retain_graph=retain_graph)

    run.backward = listening
    method.gradients(run, batch(names=names))
    assert losses
    assert all(loss.dim() == 0 and loss.requires_grad for loss in losses)


@every_setting
def test_it_has_at_least_one_stage_and_an_end(name, fusion, names):
    method = admitted(name, fusion, names)
    run = run_of(method.build(model(fusion, names=names), CLASSES).double())
    stages = []
    while (stage := method.stage(run, len(stages))) is not None:
        assert stage.epochs >= 1
        stages.append(stage)
        assert len(stages) < 1000
    assert stages


@every_setting
def test_a_modality_that_no_sample_has_teaches_its_own_head_nothing(name, fusion, names):
    method = admitted(name, fusion, names)
    run = built(method, fusion, names=names)
    if not run.network.heads or name == "unimodal":
        return
    given = batch(names=names)
    lacking = torch.ones(8, len(names), dtype=torch.bool)
    lacking[:, 0] = False
    method.gradients(run, given._replace(present=lacking))
    heads = {n: [p.grad for p in run.network.heads[n].parameters() if p.grad is not None] for n in names}
    assert not any(grad.any() for grad in heads[names[0]])
