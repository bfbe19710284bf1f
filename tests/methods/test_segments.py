"""Samples of several segments, folded into the batch: features and targets have more rows than there are samples."""

import pytest
import torch

from msam import methods
from msam.methods import Run
from msam.models import MultimodalModel, build
from msam.types import Batch
from tests.contract._methods import METHODS, admits
from tests.methods._toys import enter

SEGMENTS, CLASSES = 4, 5
NAMES = ("audio", "video")
FUSIONS = ("late", "maxout", "psp")
CASES = [
    (name, fusion) for name in METHODS for fusion in FUSIONS if admits(name, "late" if fusion == "late" else "early", 2)
]


def network(fusion: str) -> MultimodalModel:
    torch.manual_seed(0)
    more = {"psp": {"segments": SEGMENTS, "locations": 6, "dropout": 0.0}, "maxout": {"hidden": (8,)}}
    shapes = {"audio": (SEGMENTS, 7), "video": (SEGMENTS, 2, 3, 9)}
    encoders = {"audio": "ave_audio", "video": "ave_video"}
    return build(encoders, shapes, CLASSES, fusion, **more.get(fusion, {})).double()


def batch(seed: int = 0, samples: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(samples, SEGMENTS, 7, generator=generator, dtype=torch.float64)
    video = torch.randn(samples, SEGMENTS, 2, 3, 9, generator=generator, dtype=torch.float64)
    target = torch.randint(CLASSES, (samples * SEGMENTS,), generator=generator)
    return Batch({"audio": audio, "video": video}, target)


def lacking(given: Batch) -> Batch:
    present = torch.tensor([[True, False], [True, True], [False, True], [True, True]])
    return given._replace(present=present)


def run_of(name: str, fusion: str) -> tuple[methods.Method, Run]:
    kind = methods.load(name)
    method = kind(**({} if fusion == "late" or kind.about.early else kind.about.extension))
    made = method.build(network(fusion), CLASSES).double()
    run = Run(
        model=made,
        network=made,
        optimizer=torch.optim.SGD(made.parameter_groups(), lr=0.1),
        epochs=2,
        num_classes=CLASSES,
        generator=torch.Generator().manual_seed(0),
        backward=lambda loss, retain_graph=False: loss.backward(retain_graph=retain_graph),
        train_batches=lambda start, stop: iter([lacking(batch(seed)) for seed in (1, 2)]),
    )
    return method, run


@pytest.mark.parametrize(("name", "fusion"), CASES)
@pytest.mark.parametrize("given", [batch(), lacking(batch())], ids=["all there", "some absent"])
def test_every_method_takes_steps_in_every_stage(name, fusion, given):
    method, run = run_of(name, fusion)
    stage = 0
    while stage < 3 and method.stage(run, stage) is not None:
        enter(method, run, stage)
        if name == "unimodal" and given.present is not None:
            given = given._replace(present=given.present[:, :1])
        for step in (1, 2):
            run.begin_step(step)
            run.network.zero_grad()
            output = method.gradients(run, given)
            assert output.logits.shape == (len(given.target), CLASSES)
            run.perturbed = True
            method.gradients(run, given)
        grads = [p.grad for p in run.network.parameters() if p.grad is not None]
        assert grads
        assert all(g.isfinite().all() for g in grads)
        method.stage_end(run)
        stage += 1


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize("absent", ["input", "feature"])
def test_agm_without_strength_is_joint_training(fusion, variant, absent):
    given = lacking(batch())
    grads = []
    for method in (methods.load("joint")(), methods.load("agm")(alpha=0.0, variant=variant, absent=absent)):
        _, run = run_of("joint", fusion)
        enter(method, run, 0)
        run.begin_step(1)
        method.gradients(run, given)
        grads.append([p.grad for p in run.network.parameters()])
    for joint, agm in zip(*grads, strict=True):
        torch.testing.assert_close(agm, joint, rtol=0, atol=1e-12)


def test_segments_of_a_modality_that_is_absent_make_no_prototypes():
    method, run = run_of("pmr", "late")
    run.begin_step(1)
    method.gradients(run, lacking(batch()))
    given = [lacking(batch(seed)) for seed in (1, 2)]
    fresh, sums, counts = network("late").eval(), torch.zeros(CLASSES, 256).double(), torch.zeros(CLASSES)
    for each in given:
        features = fresh.encode(each.inputs)["video"].mean((1, 2)).unflatten(0, (4, SEGMENTS)).detach()
        for sample in (1, 2, 3):  # the first lacks the video
            for segment, label in enumerate(each.target.view(4, SEGMENTS)[sample]):
                sums[label] += features[sample, segment]
                counts[label] += 1
    prototypes = run.state["prototypes"]["video"]
    assert prototypes["known"].tolist() == (counts > 0).tolist()
    seen = counts > 0
    torch.testing.assert_close(prototypes["means"][seen], sums[seen] / counts[seen, None], rtol=0, atol=1e-12)


def test_teachers_teach_the_mean_over_locations_and_nothing_to_absent_segments():
    umt = methods.load("umt")
    method, run = run_of("umt", "late")
    enter(method, run, 0)
    method.stage_end(run)
    run.stage = 1
    with torch.no_grad():
        for p in run.network.encoders.parameters():
            p.mul_(1.1)
    given = lacking(batch())
    run.begin_step(1)
    output = run.network(given.inputs, given.present)
    pulled = method.loss(run, output, given) - umt(weight=0.0).loss(run, output, given)
    expected = torch.zeros(16, dtype=torch.float64)
    for column, name in enumerate(NAMES):
        taught = run.state["teachers"][name](given.inputs[name])
        h = run.network.encoders[name](given.inputs[name])
        if name == "video":
            taught, h = taught.mean((1, 2)), h.mean((1, 2))
        there = given.present[:, column].repeat_interleave(SEGMENTS)
        expected += torch.where(there, (taught - h).square().mean(1), 0.0)
    torch.testing.assert_close(pulled, method.weight * expected, rtol=1e-9, atol=1e-12)
