"""The three kinds of task: each rating against its definition, and the task that a target tells."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import msam
from msam import data, shapley, tasks
from msam.tasks._targets import warn_unless_standardised
from msam.train import config, train

SINGLE, MULTI, NUMBERS = (tasks.load(name) for name in ("single-label", "multi-label", "regression"))


def drawn(seed: int, task: str, rows: int = 6, outputs: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, outputs, generator=generator, dtype=torch.float64)
    target = {
        "single-label": torch.randint(outputs, (rows,), generator=generator),
        "multi-label": torch.rand(rows, outputs, generator=generator) < 0.5,
        "regression": torch.randn(rows, outputs, generator=generator, dtype=torch.float64),
    }[task]
    return logits, target


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


class TestRatings:
    def test_of_classes_are_those_of_the_softmax(self):
        logits, y = drawn(0, "single-label")
        chance = torch.stack([z.exp()[k] / z.exp().sum() for z, k in zip(logits, y, strict=True)])
        close(SINGLE.probability(logits, y), chance)
        close(SINGLE.log_probability(logits, y), chance.log())
        close(SINGLE.loss(logits, y), -chance.log())
        close(SINGLE.logit(logits, y), torch.stack([z[k] for z, k in zip(logits, y, strict=True)]))
        assert SINGLE.hit(torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([1, 0])).tolist() == [1, 0]

    def test_of_labels_are_means_of_as_many_yes_or_no_questions(self):
        logits, y = drawn(1, "multi-label")
        chance = torch.where(y, logits.sigmoid(), 1 - logits.sigmoid())
        close(MULTI.probability(logits, y), chance.mean(1))
        close(MULTI.log_probability(logits, y), chance.log().mean(1))
        close(MULTI.loss(logits, y), -chance.log().mean(1))
        close(MULTI.logit(logits, y), ((2.0 * y - 1) * logits).mean(1))
        assert MULTI.hit(
            torch.tensor([[1.0, 2.0, -1.0]]), torch.tensor([[True, False, False]])
        ).item() == pytest.approx(2 / 3)

    def test_of_a_label_are_those_of_two_classes(self):
        logits, y = drawn(2, "multi-label", outputs=1)
        two = torch.cat([torch.zeros_like(logits), logits], 1)
        for rating in ("loss", "probability", "log_probability", "hit"):
            close(getattr(MULTI, rating)(logits, y), getattr(SINGLE, rating)(two, y[:, 0].long()))

    def test_of_numbers_are_those_of_a_normal_distribution_around_the_answer(self):
        z, y = drawn(3, "regression")
        normal = torch.distributions.Normal(z, 1.0)
        nothing = torch.distributions.Normal(torch.zeros_like(z), 1.0)
        peak = math.log(math.sqrt(2 * math.pi))
        close(NUMBERS.log_probability(z, y), (normal.log_prob(y) + peak).mean(1))
        close(
            NUMBERS.probability(z, y), ((normal.log_prob(y) + peak).exp() - (nothing.log_prob(y) + peak).exp()).mean(1)
        )
        close(NUMBERS.loss(z, y), ((z - y) ** 2).mean(1))
        close(NUMBERS.logit(z, y), (z * y).mean(1))

    def test_of_standardised_numbers_the_hits_have_r2_for_their_mean(self):
        z, y = drawn(4, "regression", rows=50)
        y = (y - y.mean(0)) / y.std(0, correction=0)
        by_hand = 1 - ((y - z) ** 2).sum() / (y**2).sum()
        close(NUMBERS.hit(z, y).mean(), by_hand)

    @pytest.mark.parametrize("rating", ["probability", "hit", "logit"])
    def test_the_answer_0_to_numbers_is_worth_nothing(self, rating):
        _, y = drawn(5, "regression")
        assert not getattr(NUMBERS, rating)(torch.zeros_like(y), y).any()

    @pytest.mark.parametrize("task", ["single-label", "multi-label", "regression"])
    def test_every_rating_takes_leading_dimensions(self, task):
        (z, y), kind = drawn(6, task), tasks.load(task)
        both = torch.stack([z, -z])
        for rating in ("probability", "log_probability", "hit", "logit"):
            rate = getattr(kind, rating)
            close(rate(both, y), torch.stack([rate(z, y), rate(-z, y)]))

    @pytest.mark.parametrize("task", ["single-label", "multi-label", "regression"])
    def test_the_loss_has_autograds_gradient_and_is_that_of_a_sample(self, task):
        (z, y), kind = drawn(7, task), tasks.load(task)
        torch.autograd.gradcheck(lambda z: kind.loss(z, y), z.requires_grad_())
        close(tasks.per_sample_loss(z, y), kind.loss(z, y))


class TestContributions:
    @pytest.mark.parametrize("value", ["probability", "accuracy", "response", "logit"])
    def test_a_modality_that_answers_0_to_numbers_has_no_share(self, value):
        _, y = drawn(8, "regression", rows=40)
        z = 0.9 * y
        shares = shapley.contributions(torch.stack([z, torch.zeros_like(z), z]), y, value)
        close(shares, torch.tensor([1.0, 0.0], dtype=torch.float64))

    @pytest.mark.parametrize("value", shapley.VALUES)
    @pytest.mark.parametrize("task", ["multi-label", "regression"])
    def test_who_answers_better_has_more(self, task, value):
        _, y = drawn(9, task, rows=40)
        z = 2.0 * y - 1 if task == "multi-label" else y / 2
        z, worse = z.double(), z.double() / 4
        worse[:, 0] *= -1
        shares = shapley.contributions(torch.stack([z, worse, z + worse]), y, value)
        assert shares[0] > shares[1] >= 0

    @settings(max_examples=50, deadline=None)
    @given(seed=st.integers(0, 10_000), value=st.sampled_from(["probability", "accuracy"]))
    def test_worths_of_numbers_sum_to_what_the_answer_is_worth(self, seed, value):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(7, 5, 2, generator=generator, dtype=torch.float64)
        y = torch.randn(5, 2, generator=generator, dtype=torch.float64)
        rate = {"probability": NUMBERS.probability, "accuracy": NUMBERS.hit}[value]
        found = shapley._contributions.worth(logits, y, value)
        close(found.sum(), rate(logits[-1], y).mean())

    def test_of_a_linear_model_accuracy_is_shapleys_split_of_the_explained_variance(self):
        # "Shapley value regression" (Lipovetsky and Conklin 2001), of independent answers: each its own sum of squares
        y = torch.tensor([[2.0], [0.0], [-2.0], [0.0]], dtype=torch.float64)
        a = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
        b = torch.tensor([[1.0], [-1.0], [-1.0], [1.0]], dtype=torch.float64)
        close(shapley.contributions(torch.stack([a, b, a + b]), y, "accuracy"), torch.tensor([0.5, 0.5]).double())

    def test_binary_floats_need_their_task_said(self):
        logits = torch.randn(3, 4, 2)
        y = torch.tensor([[1.0, 0], [0, 0], [1, 1], [0, 1]])
        as_labels = shapley.contributions(logits, y, task="multi-label")
        close(as_labels, shapley.contributions(logits, y.bool()))
        assert not torch.allclose(as_labels, shapley.contributions(logits, y))


class TestTelling:
    @pytest.mark.parametrize(
        ("target", "outputs", "name"),
        [
            (torch.tensor([0, 2]), 3, "single-label"),
            (torch.tensor([0, 1], dtype=torch.uint8), 2, "single-label"),
            (torch.tensor([0, 1]), 1, "multi-label"),
            (torch.tensor([True, False]), 1, "multi-label"),
            (torch.ones(2, 3, dtype=torch.long), 3, "multi-label"),
            (torch.tensor([0.5, 1.0]), 1, "regression"),
            (torch.ones(2, 3, dtype=torch.bfloat16), 3, "regression"),
        ],
    )
    def test_the_type_of_a_target_says_the_task(self, target, outputs, name):
        assert tasks.of(target, outputs).name == name

    def test_a_target_of_one_column_may_leave_it_out(self):
        z, y = torch.tensor([[0.3], [-2.0]]), torch.tensor([1, 0])
        close(
            tasks.per_sample_loss(z, y),
            functional.binary_cross_entropy_with_logits(z[:, 0], y.float(), reduction="none"),
        )
        close(tasks.per_sample_loss(z, torch.tensor([1.5, 0.0])), (z[:, 0] - torch.tensor([1.5, 0.0])) ** 2)

    def test_floats_that_are_nothing_but_0_and_1_are_asked_about(self):
        labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        with pytest.raises(ValueError, match=r"nothing but 0 and 1\. If they are labels, say task='multi-label'"):
            tasks.told(labels, 2)
        assert tasks.told(labels, 2, "regression").name == "regression"
        assert tasks.told(torch.tensor([[0.5, 0.0]]), 2).name == "regression"
        with pytest.raises(ValueError, match="nothing but 0 and 1"):
            tasks.told(torch.zeros(3, 2), 2)  # rare labels, in a first batch that has none

    def test_an_unknown_task_is_refused_with_the_nearest(self):
        with pytest.raises(ValueError, match="Did you mean 'multi-label'"):
            tasks.load("multilabel")


class TestTargets:
    @pytest.mark.parametrize(
        ("task", "target", "words"),
        [
            (SINGLE, torch.zeros(3), r"integers \(N,\), received \(3,\) of torch.float32.*target\.long\(\)"),
            (SINGLE, torch.zeros(3, 2, dtype=torch.long), r"received \(3, 2\)"),
            (MULTI, torch.tensor([[0, 2]]), r"must be 0 or 1, received \(1, 2\) of torch.int64 from 0 to 2"),
            (NUMBERS, torch.tensor([3]), "must be floats, received torch.int64"),
        ],
    )
    def test_that_cannot_be_of_the_task_are_refused(self, task, target, words):
        with pytest.raises(ValueError, match=words):
            task.canonical(target)

    def test_labels_in_any_type_become_bool_and_other_targets_stay(self):
        for type_ in (torch.float32, torch.uint8, torch.int64, torch.bool):
            assert torch.equal(MULTI.canonical(torch.tensor([[0, 1]]).to(type_)), torch.tensor([[False, True]]))
        assert SINGLE.canonical(torch.tensor([3], dtype=torch.uint8)).dtype == torch.long
        y = torch.tensor([0.25], dtype=torch.float64)
        assert NUMBERS.canonical(y) is y

    @pytest.mark.parametrize("task", [MULTI, NUMBERS])
    def test_of_another_shape_than_the_logits_are_refused_with_both(self, task):
        with pytest.raises(ValueError, match=r"received \(4,\) of .* for logits \(4, 2\)"):
            task.fitting(task.canonical(torch.zeros(4)), 4, 2)


class TestWhatIsAskedOfData:
    def test_labels_that_are_neither_0_nor_1_are_refused_before_a_loss_is_made_of_them(self):
        ages = torch.tensor([29, 68, 41])
        for ask in (
            lambda: tasks.per_sample_loss(torch.zeros(3, 1), ages),
            lambda: shapley.contributions(torch.zeros(3, 3, 1), ages),
        ):
            with pytest.raises(ValueError, match=r"from 29 to 68\. Where they are numbers, pass `target\.float\(\)`"):
                ask()

    def test_one_output_without_its_dimension_is_refused_with_the_way_out(self):
        with pytest.raises(ValueError, match=r"received \(3,\)\. One output is `logits\.unsqueeze\(1\)`"):
            tasks.per_sample_loss(torch.zeros(3), torch.zeros(3))

    def test_floats_are_no_classes_even_where_they_are_called_so(self):
        with pytest.raises(ValueError, match=r"integer classes \(N,\), received \(3,\) of torch\.float32"):
            shapley.contributions(torch.zeros(3, 3, 4), torch.tensor([0.9, 1.2, 3.0]), task="single-label")

    def test_bf16_answers_leave_the_targets_as_precise_as_they_are(self):
        y = torch.tensor([[1234.6]])
        assert float(tasks.per_sample_loss(torch.tensor([[1.0]], dtype=torch.bfloat16), y)) == pytest.approx(1233.6**2)

    @pytest.mark.parametrize("numbers", [50 + torch.randn(64), 1000 * torch.randn(64, 2), 0.01 * torch.randn(64)])
    def test_numbers_far_from_standardised_are_warned_of(self, numbers):
        with pytest.warns(UserWarning, match=r"should be standardised.*output \d has the mean .* in 64 samples"):
            warn_unless_standardised(numbers)

    @pytest.mark.parametrize(
        "target", [torch.randn(64, 2), torch.arange(64), 50 + torch.randn(3), torch.zeros(64, 2, dtype=torch.bool)]
    )
    def test_of_anything_else_nothing_is_said(self, target):
        warn_unless_standardised(target)

    def test_a_monitor_warns_of_them_at_its_first_look_alone(self):
        model = msam.MultimodalModel({"a": torch.nn.Identity()}, msam.SumFusion({"a": 2}, 1))
        monitor, x, y = msam.Monitor(model, every=1), {"a": torch.randn(32, 2)}, 50 + torch.randn(32)
        with pytest.warns(UserWarning, match="should be standardised"):
            monitor(x, y)
        assert monitor(x, y) is not None  # warnings are errors here

    def test_a_monitor_takes_rare_labels_as_floats_for_no_numbers(self):
        model = msam.MultimodalModel({"a": torch.nn.Identity()}, msam.SumFusion({"a": 2}, 1))
        rare = torch.zeros(64)
        rare[0] = 1.0
        monitor = msam.Monitor(model, every=1, task="multi-label")
        assert monitor({"a": torch.randn(64, 2)}, rare) is not None  # warnings are errors here

    def test_a_run_warns_of_them_before_it_begins(self, tmp_path, monkeypatch):
        world = data.load("dial")(train_size=64, valid_size=32, test_size=32, bayes_samples=50, task="regression")
        splits = {name: getattr(world, name) for name in ("train", "valid", "test")}
        far = replace(world, **{name: replace(part, target=part.target + 50) for name, part in splits.items()})
        monkeypatch.setattr("msam.train.parts.dataset", lambda _: far)
        with pytest.warns(UserWarning, match="should be standardised"):
            train(config(data="dial", epochs=1, optimizer={"lr": 1e-4}), tmp_path)
