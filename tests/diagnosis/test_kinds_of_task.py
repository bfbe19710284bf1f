"""Labels and numbers are diagnosed as classes are: by the same identities, each kind by its own measure."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

import msam
from msam import Batch, shapley
from msam.diagnosis._probe import STRENGTHS, Goal, head_of, probe
from msam.diagnosis._task import KINDS
from msam.diagnosis.result import Diagnosis, Estimate
from msam.models import MultimodalModel
from tests.diagnosis import tasks
from tests.diagnosis.tasks import World

QUICK = {"progress": False, "resamples": 100, "sharp": False}
WORLDS = {"multi-label": tasks.labels, "regression": tasks.numbers}


@pytest.fixture(scope="module", params=["multi-label", "regression", "two numbers"])
def made(request) -> tuple[World, MultimodalModel, Diagnosis]:
    world = tasks.numbers(1, outputs=2) if request.param == "two numbers" else WORLDS[request.param](1)
    model = tasks.model(world)
    found = msam.diagnose(model, world.valid, train=world.train, unimodal=2, resamples=300, progress=False)
    return world, model, found


def coalitions(world: World, model: MultimodalModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits of nothing, the first, the second and both, `(4, N, K)`, and targets."""
    held = world.held
    sets = [(), (0,), (1,), (0, 1)]
    logits = shapley.coalition_logits(model, model.encode(held.inputs), only=sets).detach().double()
    return logits, held.target


def by_hand(logits: torch.Tensor, target: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return measure and mean log-likelihood of answers `(4, N, K)`, from their definitions."""
    z, y = logits.numpy(), target.numpy()
    if target.dtype == torch.bool:
        p = 1 / (1 + np.exp(-z))
        return ((z > 0) == y).mean((1, 2)), np.log(np.where(y, p, 1 - p)).mean((1, 2))
    y = y.astype(float)
    sse, sst = ((y - z) ** 2).sum((1, 2)), ((y - y.mean(0)) ** 2).sum()
    return 1 - sse / sst, -((y - z) ** 2).mean((1, 2)) / (2 * y.var(0).mean())


def estimates(found) -> dict[str, tuple[float, float, float]]:
    """Return all estimates of a diagnosis by their place, but those within classes."""
    told: dict[str, tuple[float, float, float]] = {}

    def walk(value, at: str) -> None:
        if isinstance(value, Estimate):
            told[at] = (value.value, value.low, value.high)
        elif hasattr(value, "__dataclass_fields__"):
            walk(vars(value), at)
        elif isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{at}/{key}")
        elif isinstance(value, tuple):
            for k, inner in enumerate(value):
                walk(inner, f"{at}/{k}")

    walk(found, "")
    return told


def test_the_measure_is_the_one_of_its_definition(made):
    world, model, found = made
    measure, likelihood = by_hand(*coalitions(world, model))
    assert found.accuracy.value == pytest.approx(measure[3])
    assert found.likelihood.value == pytest.approx(likelihood[3])
    assert found.nothing.value == pytest.approx(measure[0])
    assert found.accuracy.low < measure[3] < found.accuracy.high
    for m, one in enumerate(found.modalities.values()):
        assert one.zeroed.value == pytest.approx(measure[1 + m])
        assert one.missing_accuracy.value == pytest.approx(measure[3] - measure[2 - m])
        assert one.missing_likelihood.value == pytest.approx(likelihood[3] - likelihood[2 - m])


def test_contributions_are_shapley_values_of_what_is_gained_over_nothing(made):
    world, model, found = made
    for kind, v in zip(("accuracy", "likelihood"), by_hand(*coalitions(world, model)), strict=True):
        worths = [getattr(one, kind).value for one in found.modalities.values()]
        assert worths == pytest.approx([(v[1] - v[0] + v[3] - v[2]) / 2, (v[2] - v[0] + v[3] - v[1]) / 2])
        assert sum(worths) == pytest.approx(v[3] - v[0])
        assert sum(getattr(one, f"{kind}_share").value for one in found.modalities.values()) == pytest.approx(1)
        assert getattr(found.pairs[0], kind).value == pytest.approx(v[3] - v[1] - v[2] + v[0])


def test_shapley_logits_and_own_parts_are_answers(made):
    world, model, found = made
    z, y = coalitions(world, model)
    from_zero = torch.stack([(z[1] + z[3] - z[2]) / 2, (z[2] + z[3] - z[1]) / 2])
    parts = model.head_logits(model.encode(world.held.inputs))
    for k, (name, one) in enumerate(found.modalities.items()):
        assert one.shapley.value == pytest.approx(by_hand(from_zero[k : k + 1], y)[0][0])
        assert one.head.value == pytest.approx(by_hand(parts[name].detach().double()[None], y)[0][0], abs=1e-6)
        assert one.in_model.value == max(one.shapley.value, one.head.value, one.zeroed.value)
        assert one.gap.value == pytest.approx(one.unimodal.value - one.in_model.value)


@pytest.mark.parametrize("labels", [False, True])
def test_dominance_goes_by_contributions_to_the_probability_of_the_target(labels):
    """Of three modalities, where the log-likelihood would rank them otherwise."""
    world = tasks.numbers(1, (1.0, 1.0, 1.0))
    if labels:
        world = World(*([b._replace(target=b.target > 0) for b in part] for part in world))
    torch.manual_seed(0)
    names = dict.fromkeys(tasks.NAMES, 6)
    model = MultimodalModel({n: nn.Identity() for n in names}, msam.MaxoutFusion(names, 1, (8,))).eval()
    with torch.no_grad():
        for weight in model.fusion.parameters():
            weight.mul_(2)
    held = world.held
    sets = [(), *shapley.coalitions(3)]
    z = shapley.coalition_logits(model, model.encode(held.inputs), only=sets).detach().double()[..., 0]
    y = held.target[:, 0]
    if labels:
        chances = torch.where(y, z.sigmoid(), 1 - z.sigmoid())
    else:
        chances = (-((z - y) ** 2) / (2 * y.double().var(correction=0))).exp()
    found = msam.diagnose(model, world.valid, **QUICK)
    gained = chances[1:] - chances[0]
    for key, values in (("dominance", gained), ("batch_dominance", gained.unflatten(1, (4, 100)).mean(2))):
        winner = shapley.shapley_values(values).argmax(0)
        expected = [float((winner == m).double().mean()) for m in range(3)]
        assert [getattr(one, key).value for one in found.modalities.values()] == pytest.approx(expected), key


def test_a_modality_that_the_model_does_not_see_contributes_nothing(made):
    world, model, _ = made
    deaf = copy.deepcopy(model)
    with torch.no_grad():
        deaf.fusion.linear["image"].weight.zero_()
    one = msam.diagnose(deaf, world.valid, **QUICK).modalities["image"]
    for key in ("accuracy", "likelihood", "missing_accuracy", "noisy_accuracy", "accuracy_share"):
        estimate = getattr(one, key)
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0, 0, 0), abs=1e-6), key


def test_sharpness_is_the_rise_of_the_loss_of_the_task(made):
    world, model, found = made
    twin = copy.deepcopy(model).double()
    rows = world.train[: -(-512 // 25)]
    x = {n: torch.cat([b.inputs[n] for b in rows]).double() for n in model.modalities}
    y = torch.cat([b.target for b in rows]).double()
    binary = world.train[0].target.dtype == torch.bool
    lose = nn.functional.binary_cross_entropy_with_logits if binary else nn.functional.mse_loss
    weights = list(twin.encoders["audio"].parameters())
    before = lose(twin(x).logits, y)
    gradient = torch.autograd.grad(before, weights)
    length = torch.cat([g.flatten() for g in gradient]).norm()
    with torch.no_grad():
        torch._foreach_add_(weights, [0.05 * g / length for g in gradient])
        rise = lose(twin(x).logits, y) - before
    assert found.modalities["audio"].sharpness.value == pytest.approx(float(rise), rel=1e-6)
    assert found.modalities["audio"].eigenvalue > 0


def test_task_and_measure_are_said_in_words_and_everything_is_plain(made):
    *_, found = made
    words = {"multi-label": "label accuracy", "regression": "R²"}
    assert found.measure == words[found.task]
    assert str(found).startswith(f"{words[found.task]} 0.")
    json.dumps(found.to_dict(), allow_nan=False)


class TestLabels:
    def test_one_label_is_the_second_of_two_classes(self):
        """Logits `z` of a label are logits `(0, z)` of its classes: every number, every end of an interval."""
        world = tasks.labels(2)
        one = World(*([b._replace(target=b.target[:, :1]) for b in part] for part in world))
        model = tasks.model(one)

        class Two(nn.Module):
            def __init__(self, number: bool):
                super().__init__()
                self.model, self.number = model, number

            def forward(self, audio, image):
                z = self.model({"audio": audio, "image": image}).logits
                return z if self.number else torch.cat([torch.zeros_like(z), z], 1)

        keys = {"audio": "audio", "image": "image"}
        label, classes = (msam.adapt(Two(number), keys) for number in (True, False))
        flat = [b._replace(target=b.target[:, 0]) for b in one.valid]
        of_label = msam.diagnose(label, flat, **QUICK)
        of_class = msam.diagnose(classes, [b._replace(target=b.target.long()) for b in flat], **QUICK)
        assert (of_label.task, of_class.task) == ("multi-label", "single-label")
        mine, theirs = estimates(of_label), estimates(of_class)
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert mine[key] == pytest.approx(theirs[key], abs=1e-9), key
        assert of_label.chance == pytest.approx(of_class.chance)
        assert of_label.counts == of_class.counts[1:]
        assert of_label.accuracy.by_class[0].value == pytest.approx(of_class.accuracy.by_class[1].value)

    def test_within_a_label_are_the_rows_that_have_it(self):
        world = tasks.labels(3)
        model = tasks.model(world)
        found = msam.diagnose(model, world.valid, classes=["a", "b", "both", "rare"], **QUICK)
        held = world.held
        assert found.classes == ("a", "b", "both", "rare")
        assert found.counts == tuple(held.target.sum(0).tolist())
        for k, inside in enumerate(found.accuracy.by_class):
            own = held.target[:, k]
            logits = model({name: x[own] for name, x in held.inputs.items()}).logits
            assert inside.value == pytest.approx(float(((logits > 0) == held.target[own]).double().mean()))

    def test_chance_is_the_more_frequent_answer_to_each(self):
        world = tasks.labels(3)
        there = world.held.target.double().mean(0).numpy()
        found = msam.diagnose(tasks.model(world), world.valid, **QUICK)
        assert found.chance == pytest.approx(np.maximum(there, 1 - there).mean())

    def test_integers_and_named_floats_are_labels_too(self):
        world = tasks.labels(3)
        model = tasks.model(world, epochs=1)
        told = [
            msam.diagnose(
                model,
                [b._replace(target=b.target.to(kind)) for b in world.valid],
                task=name,
                **{**QUICK, "sharp": True},
            )
            for kind, name in ((torch.bool, None), (torch.long, None), (torch.float32, "multi-label"))
        ]
        assert told[0].to_dict() == told[1].to_dict() == told[2].to_dict()

    def test_one_hot_classes_are_taken_for_labels_and_that_is_said(self):
        world = tasks.labels(3)
        model = tasks.model(world, epochs=1)
        hot = [b._replace(target=nn.functional.one_hot(torch.arange(100) % 4, 4)) for b in world.valid]
        assert any("exactly one label" in note for note in msam.diagnose(model, hot, **QUICK).notes)
        named = msam.diagnose(model, hot, task="multi-label", **QUICK)
        for notes in (named.notes, msam.diagnose(model, world.valid, **QUICK).notes):
            assert not any("exactly one label" in note for note in notes)


def scaled(model: MultimodalModel, by: float, shift: float = 0.0) -> MultimodalModel:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for linear in other.fusion.linear.values():
            linear.weight.mul_(by)
            linear.bias.mul_(by).add_(shift / len(other.modalities))
    return other


class TestNumbers:
    def test_the_unit_does_not_matter(self):
        world = tasks.numbers(4)
        model = tasks.model(world)
        other = World(*([b._replace(target=b.target * 256) for b in part] for part in world))
        ours, theirs = (
            estimates(msam.diagnose(of, w.valid, train=w.train, unimodal=2, **QUICK))
            for of, w in ((model, world), (scaled(model, 256), other))
        )
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert ours[key] == pytest.approx(theirs[key], abs=1e-4), key

    def test_both_kinds_of_contributions_are_the_same_but_for_their_scale(self):
        world = tasks.numbers(4)
        found = msam.diagnose(tasks.model(world), world.valid, **QUICK)
        for one in found.modalities.values():
            for end in ("value", "low", "high"):
                assert getattr(one.accuracy, end) == pytest.approx(2 * getattr(one.likelihood, end))
                assert getattr(one.accuracy_share, end) == pytest.approx(getattr(one.likelihood_share, end))

    def test_the_mean_as_answer_is_chance_and_there_are_no_classes(self):
        world = tasks.numbers(4)
        mean = float(world.held.target.mean())
        model = scaled(tasks.model(world, epochs=1), 0.0, mean)
        found = msam.diagnose(model, world.valid, **QUICK)
        assert (found.chance, found.classes, found.counts) == (0.0, (), ())
        assert found.accuracy.value == pytest.approx(found.chance, abs=1e-6)
        assert found.accuracy.by_class == ()
        with pytest.raises(ValueError, match="classes or labels, which a regression has not, received 2"):
            msam.diagnose(model, world.valid, classes="ab", **QUICK)

    def test_numbers_of_a_row_may_come_without_a_second_size(self):
        world = tasks.numbers(4)
        model = tasks.model(world)
        flat = [b._replace(target=b.target[:, 0]) for b in world.valid]
        assert msam.diagnose(model, flat, **QUICK).to_dict() == msam.diagnose(model, world.valid, **QUICK).to_dict()

    def test_the_probe_is_ridge_regression_of_standardised_targets(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(200, 5, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 1.0, 3.0]) + 2
        y = 40 + 7 * (x[:, :2] @ torch.randn(2, 2, generator=generator) + torch.randn(200, 2, generator=generator))
        made = probe(x, y, Goal(KINDS["regression"].task, 2, KINDS["regression"].unit(y)))

        def ridge(x: np.ndarray, y: np.ndarray, strength: float, new: np.ndarray) -> np.ndarray:
            f, g = (x - x.mean(0)) / x.std(0), y - y.mean(0)
            w = np.linalg.solve(f.T @ f / len(f) + strength * y.shape[1] / 2 * np.eye(5), f.T @ g / len(f))
            return (new - x.mean(0)) / x.std(0) @ w + y.mean(0)

        features, targets = x.double().numpy(), y.double().numpy()
        drawn = torch.randperm(200, generator=torch.Generator().manual_seed(0)).numpy()
        held, rest = drawn[:40], drawn[40:]
        missed = [
            ((ridge(features[rest], targets[rest], s, features[held]) - targets[held]) ** 2).mean() for s in STRENGTHS
        ]
        best = STRENGTHS[int(np.argmin(missed))]
        expected = ridge(features, targets, best, features)
        assert np.abs(made.logits(x).numpy() - expected).max() < 1e-3 * targets.std()

    def test_an_encoder_is_trained_on_from_what_its_probe_tells(self):
        world = tasks.numbers(4)
        x = torch.cat([b.inputs["audio"] for b in world.train])
        y = 40 + 7 * torch.cat([b.target for b in world.train])
        goal = Goal(KINDS["regression"].task, 1, KINDS["regression"].unit(y))
        made = probe(x, y, goal)
        told = goal.unit.answered(head_of(goal, made)(x))
        assert torch.allclose(told.double(), made.logits(x), atol=1e-3)
        model = tasks.model(world)
        options = {**QUICK, "train": world.train}
        one = msam.diagnose(model, world.valid, unimodal=1, **options).modalities["audio"]
        assert one.unimodal.value == pytest.approx(one.probe.value, abs=0.1), "one epoch does not set it back"

    def test_the_encoder_that_was_kept_from_learning_is_found(self):
        for seed, lazy in enumerate(("audio", "image", "audio")):
            world = tasks.numbers(seed)
            options = {**QUICK, "train": world.train, "unimodal": 20, "resamples": 300, "noise": 0.3}
            planted = msam.diagnose(tasks.model(world, lazy=lazy, seed=seed), world.valid, **options)
            assert max(planted.modalities, key=lambda n: planted.modalities[n].gap.value) == lazy
            spoke = {a.modality for a in planted.advice if a.rule in ("under_trained", "unused")}
            assert spoke == {lazy}
            healthy = msam.diagnose(tasks.model(world, seed=seed, epochs=12), world.valid, **options)
            assert {a.rule for a in healthy.advice} <= {"brittle"}, "which it is: constant parts go with a modality"

    def test_constants_that_cancel_are_no_synergy(self):
        """Answers are sums: together two modalities tell what each tells, but for how their constant parts cancel."""
        world = tasks.numbers(0)
        model = tasks.model(world, epochs=12)
        apart = copy.deepcopy(model)
        with torch.no_grad():  # the features of both begin at 1; what this adds to one, the other takes away
            for name, by in (("audio", 0.7), ("image", -0.7)):
                apart.encoders[name][2].weight[0] = 0
                apart.encoders[name][2].bias[0] = 1
                apart.fusion.linear[name].weight[:, 0] = by
        z, y = coalitions(world, apart)
        variance = float(y.double().var(0, correction=0).mean())
        lost = -((z - y).mean(1) ** 2).mean(1) / variance
        [pair] = msam.diagnose(apart, world.valid, **QUICK).pairs
        assert pair.offset == pytest.approx(float(lost[3] - lost[1] - lost[2] + lost[0]), abs=1e-6)
        assert pair.accuracy.low > 0.3
        assert abs(pair.accuracy.value - pair.offset) < 0.1
        assert not any(a.rule == "together" for a in msam.diagnose(apart, world.valid, **QUICK).advice)

    def test_a_product_is_synergy(self):
        x = {name: torch.randn(400, 1, generator=torch.Generator().manual_seed(k)) for k, name in enumerate("ab")}

        class Product(nn.Module):
            def forward(self, a, b):
                return {"logits": a * b}

        model = msam.adapt(Product(), {"a": "a", "b": "b"})
        found = msam.diagnose(model, [{**x, "labels": (x["a"] * x["b"])[:, 0]}], **QUICK)
        assert found.accuracy.value == pytest.approx(1)
        assert found.pairs[0].accuracy.value == pytest.approx(1, abs=0.05)
        assert "together" in {advice.rule for advice in found.advice}

    def test_answers_that_are_far_from_the_targets_with_nothing_there_are_said(self):
        world = tasks.numbers(4)
        far = [b._replace(target=b.target + 5) for b in world.valid]
        found = msam.diagnose(tasks.model(world), far, **QUICK)
        assert any(f"R² {found.nothing.value:.1f}" in note for note in found.notes)
        assert not any("far from" in note for note in msam.diagnose(tasks.model(world), world.valid, **QUICK).notes)


class Regressor(nn.Module):
    """As those of transformers with `num_labels=1`: keywords in, one logit out."""

    def __init__(self):
        super().__init__()
        self.vision, self.words, self.score = nn.Linear(12, 8), nn.EmbeddingBag(20, 8), nn.Linear(16, 1)

    def forward(self, pixel_values, input_ids):
        seen, read = self.vision(pixel_values), self.words(input_ids)
        return {"logits": self.score(torch.cat([seen, read], 1))}


def test_a_model_of_another_make_with_one_output():
    torch.manual_seed(0)
    model = msam.adapt(
        Regressor(),
        {"image": "pixel_values", "text": "input_ids"},
        encoders={"image": "vision", "text": "words"},
    )

    def batch() -> dict[str, torch.Tensor]:
        words = torch.randint(20, (50, 4))
        return {"pixel_values": torch.randn(50, 12), "input_ids": words, "labels": (words < 10).float().sum(1) - 2}

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
    for _ in range(60):
        x = batch()
        y = x.pop("labels")
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x).logits[:, 0], y).backward()
        optimizer.step()
    found = msam.diagnose(
        model, [batch() for _ in range(4)], train=[batch() for _ in range(6)], progress=False, resamples=100
    )
    image, text = found.modalities.values()
    assert found.task == "regression"
    assert found.accuracy.low > 0.8
    assert text.accuracy_share.low > 0.9
    assert text.probe.value > 0.8
    assert image.probe.value < 0.1
    assert text.sharpness is not None


def data(target: torch.Tensor) -> list[Batch]:
    x = {name: torch.randn(len(target), 6, generator=torch.Generator().manual_seed(0)) for name in ("audio", "image")}
    return [Batch(x, target)]


@pytest.mark.parametrize(
    ("outputs", "target", "options", "said"),
    [
        (3, torch.tensor([[0, 1, 2]] * 4), {}, "must be 0 or 1, received \\(4, 3\\) of torch.int64 from 0 to 2"),
        (3, torch.tensor([[0.0, 1, 0]] * 4), {}, "nothing but 0 and 1. If they are labels, say task='multi-label'"),
        (3, torch.ones(4, 2, dtype=torch.bool), {}, "must be labels \\(N, C\\), received \\(4, 2\\)"),
        (1, torch.tensor([0.5, torch.nan, 2, torch.inf]), {}, "must be finite; 2 of 4 rows hold NaN or infinity"),
        (2, torch.randn(4, 1), {}, "of the shape of the logits for a regression, received \\(4, 1\\)"),
        (3, torch.randn(4), {}, "Where they are classes, pass `target.long\\(\\)`"),
        (1, torch.full((4,), 2.5), {}, "those of all 4 rows of `loader` are alike, \\[2.5\\]"),
        (1, torch.tensor([1, 2, 3, 4]), {"task": "regression"}, "must be floats, received torch.int64"),
        (3, torch.randn(4, 3), {"task": "single-label"}, "must be integers \\(N,\\), received \\(4, 3\\)"),
        (1, torch.randn(4), {"task": "regresion"}, "Did you mean 'regression'"),
    ],
    ids=["labels", "ambiguous", "few labels", "NaN", "few", "classes", "constant", "integers", "named", "unknown"],
)
def test_targets_that_cannot_be_of_the_task_are_refused(outputs, target, options, said):
    torch.manual_seed(0)
    model = MultimodalModel(
        {n: nn.Linear(6, 4) for n in ("audio", "image")}, msam.SumFusion({"audio": 4, "image": 4}, outputs)
    )
    with pytest.raises(ValueError, match=said):
        msam.diagnose(model, data(target), **QUICK, **options)


def test_what_the_first_targets_tell_holds_for_all():
    world = tasks.numbers(4)
    model = tasks.model(world, epochs=1)
    mixed = [*world.valid, world.valid[0]._replace(target=torch.ones(100, 1, dtype=torch.bool))]
    with pytest.raises(ValueError, match=r"must be floats, received torch.bool"):
        msam.diagnose(model, mixed, **QUICK)
    zeros = [*world.valid, world.valid[0]._replace(target=torch.ones(100, 1))]
    assert msam.diagnose(model, zeros, **QUICK).samples == 500, "a later batch may be nothing but 1"
    with pytest.raises(ValueError, match="must be floats"):
        msam.diagnose(model, mixed[-1:], train=world.train, **QUICK)
