"""PMR against its definition step by step, and where its prototypes come from."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from msam.data import TensorSplit
from msam.methods import pmr
from msam.methods.joint import Joint
from msam.methods.pmr import PMR, coefficients, log_posterior, moved
from msam.train import parts, trainer
from tests.methods._toys import CLASSES, FOUR, batch, built, close, gradients, steps
from tests.train._runs import trained
from tests.train.world import world

TWO = FOUR[:2]
every_fusion = pytest.mark.parametrize("fusion", ["late", "concat", "early", "maxout"])
every_variant = pytest.mark.parametrize("variant", ["paper", "code"])
probability = st.integers(1, 1000).map(lambda n: n / 1000)
scores = st.lists(probability, min_size=2, max_size=4).map(lambda s: torch.tensor(s, dtype=torch.float64))


class ByHand:
    """The definition, sample by sample and class by class, for a run's network and its training samples."""

    def __init__(self, run, method):
        self.net, self.method = copy.deepcopy(run.network), method
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)
        self.prototypes = {n: [None] * CLASSES for n in self.net.modalities}

    def refresh(self, batches):
        features, targets = {n: [] for n in self.net.modalities}, []
        quiet = copy.deepcopy(self.net).eval()
        for x in batches:
            targets += x.target.tolist()
            for n in features:
                features[n] += list(quiet.encoders[n](x.inputs[n]).detach())
        for n, rows in features.items():
            for k in range(CLASSES):
                mine = [row for row, y in zip(rows, targets, strict=True) if y == k]
                if mine:
                    mean, old, eps = sum(mine) / len(mine), self.prototypes[n][k], self.method.momentum
                    self.prototypes[n][k] = mean if old is None else eps * old + (1 - eps) * mean

    def judged(self, n, h, y):
        """Return probabilities of the known classes, and the place of the sample's own, None if it is not known."""
        known = [k for k in range(CLASSES) if self.prototypes[n][k] is not None]
        distances = [((h - self.prototypes[n][k]) ** 2).sum().add(1e-12) ** 0.5 for k in known]
        weights = torch.stack([(-d).exp() for d in distances])
        return weights / weights.sum(), known.index(y) if y in known else None

    def gradients(self, x, epoch):
        self.optimizer.zero_grad()
        output = self.net(x.inputs)
        count, own, entropy, score = len(x.target), [], [], []
        for n in self.net.modalities:
            judged = [self.judged(n, h, int(y)) for h, y in zip(output.features[n], x.target, strict=True)]
            likely = [p[place] for p, place in judged if place is not None]
            own.append(sum(-p.log() for p in likely) / count)
            entropy.append(sum(-(p * p.log()).sum() for p, _ in judged) / count)
            score.append(float(sum(p.detach() for p in likely) / len(likely)))
        beta, gamma = self.coefficients(score, epoch)
        total = cross_entropy(output.logits, x.target)
        for i in range(len(own)):
            total = total + self.method.alpha * beta[i] * own[i] - self.method.mu * gamma[i] * entropy[i]
        total.backward()
        return beta

    def coefficients(self, score, epoch):
        best, worst = max(score), min(score)
        if self.method.variant == "code":
            return [float(s < best) for s in score], [0.0] * len(score)
        early = epoch <= self.method.entropy_epochs
        gamma = [min(max(s / worst - 1, 0.0), 1.0) if early else 0.0 for s in score]
        return [min(max(best / s - 1, 0.0), 1.0) for s in score], gamma


def train_tenths(run, lacking=()):
    """Give a run other training samples in every tenth, and return what was asked for; some classes may be lacking."""
    asked = []

    def train_batches(start, stop):
        asked.append((start, stop))
        turn = round(start * 10)
        made = [batch(100 + 3 * turn + i, names=run.modalities) for i in range(3)]
        return iter([keep(x, [int(y) not in lacking for y in x.target]) for x in made])

    run.train_batches = train_batches
    return asked


def keep(x, chosen):
    chosen = torch.tensor(chosen)
    return x._replace(inputs={n: v[chosen] for n, v in x.inputs.items()}, target=x.target[chosen])


def acted(method, run, x, seed=0):
    torch.manual_seed(seed)
    run.optimizer.zero_grad()
    method.gradients(run, x)
    return gradients(run)


@settings(deadline=None)
@given(probability, probability)
def test_for_two_modalities_the_coefficients_are_the_papers(first, second):
    beta, gamma = coefficients(torch.tensor([first, second], dtype=torch.float64))
    rho = first / second
    if rho < 1:
        slower, faster = min(max(1 / rho - 1, 0), 1), 0.0
    else:
        slower, faster = 0.0, min(max(rho - 1, 0), 1)
    # the paper's beta is of the first modality's cross-entropy and the second's entropy, its gamma the other way round
    assert beta.tolist() == pytest.approx([slower, faster])
    assert gamma.tolist() == pytest.approx([faster, slower])


@settings(deadline=None)
@given(scores, st.floats(0.1, 10))
def test_coefficients_lie_between_zero_and_one_and_know_ratios_alone(s, factor):
    for values, scaled in zip(coefficients(s), coefficients(s * factor), strict=True):
        assert bool(((values >= 0) & (values <= 1)).all())
        close(values, scaled, 1e-9)
    beta, gamma = coefficients(s)
    assert beta[s.argmax()] == gamma[s.argmin()] == 0
    if s.max() > s.min() * (1 + 1e-9):
        assert beta[s.argmin()] > 0
        assert gamma[s.argmax()] > 0


def test_equal_scores_and_scores_of_zero_have_sound_coefficients():
    def of(*s):
        return [values.tolist() for values in coefficients(torch.tensor(s))]

    assert of(0.5, 0.5, 0.5) == [[0, 0, 0], [0, 0, 0]]
    assert of(0.0, 0.0) == [[0, 0], [0, 0]]
    assert of(0.0, 0.5) == [[1, 0], [0, 1]]
    assert of(0.2, 0.3, 0.25) == [pytest.approx([0.5, 0, 0.2]), pytest.approx([0, 0.5, 0.25])]


def test_the_posterior_is_a_softmax_of_distances_and_has_a_slope_where_a_feature_is_its_prototype():
    torch.manual_seed(0)
    h, c = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    by_hand = torch.stack([torch.stack([(-(x - k).norm()).exp() for k in c]) for x in h])
    close(log_posterior(h, c).exp(), by_hand / by_hand.sum(1, keepdim=True), 1e-9)
    at = c[:2].clone().requires_grad_()
    log_posterior(at, c).sum().backward()
    assert at.grad.isfinite().all()


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=3, max_size=3), st.integers(0, 7), st.floats(0, 0.9))
def test_prototypes_move_by_momentum_where_there_are_samples_and_stay_where_there_are_none(counts, mask, momentum):
    known = torch.tensor([bool(mask >> k & 1) for k in range(3)])
    old = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64) * known[:, None]
    sums = torch.tensor([[5.0], [7.0], [11.0]], dtype=torch.float64)
    count = torch.tensor(counts, dtype=torch.float64)
    means, now = moved(old, known, sums, count, momentum)
    for k in range(3):
        fresh = float(sums[k]) / counts[k] if counts[k] else float(old[k])
        expected = momentum * float(old[k]) + (1 - momentum) * fresh if known[k] and counts[k] else fresh
        assert float(means[k]) == pytest.approx(expected)
        assert bool(now[k]) == (bool(known[k]) or counts[k] > 0)


@every_fusion
@every_variant
@pytest.mark.parametrize("count", [2, 3, 4])
def test_three_epochs_are_those_of_the_definition(fusion, variant, count):
    """Entropies in the first two; the third class is absent at first and another later."""
    method = PMR(variant=variant, alpha=2.0, mu=0.5, entropy_epochs=2, momentum=0.3, extend=count > 2)
    run = built(method, fusion, names=FOUR[:count])
    slow, number, seen = ByHand(run, method), 0, []
    for epoch in (1, 2, 3):
        train_tenths(run, lacking={1: [2], 2: [0, 4], 3: []}[epoch])
        run.epoch = epoch
        slow.refresh(run.train_batches((epoch - 1) / 10, epoch / 10))
        for _ in range(2):
            number += 1
            x = batch(number, names=run.modalities)
            run.begin_step(number)
            found = acted(method, run, x, number)
            torch.manual_seed(number)
            beta = slow.gradients(x, epoch)
            assert run.notes["coefficients"] == pytest.approx(beta, abs=1e-6)
            seen += beta
            for mine, other in zip(found.values(), slow.net.parameters(), strict=True):
                close(mine, other.grad, 1e-10)
            run.optimizer.step()
            slow.optimizer.step()
    assert any(0 < value < 1 for value in seen) == (variant == "paper")


def slower_first(run, x):
    """Spread the features of `image` so that its prototypes tell classes apart and those of `audio` do not."""
    with torch.no_grad():
        run.network.encoders["audio"].layers[3].weight.mul_(0.01)
        run.network.encoders["image"].layers[3].weight.mul_(3.0)
    run.train_batches = lambda start, stop: iter([x])
    return x


@every_fusion
def test_only_the_slower_modality_is_pulled_and_neither_fusion_nor_the_other_encoder_feels_it(fusion):
    method = PMR(entropy_epochs=0)
    run, joint = built(method, fusion, names=TWO), built(Joint(), fusion, names=TWO)
    x = slower_first(run, batch(1, names=TWO))
    joint.network.load_state_dict(run.network.state_dict())
    found, plain = acted(method, run, x), acted(Joint(), joint, x)
    beta = run.notes["coefficients"]
    assert beta[0] > 0 == beta[1]
    for name, grad in found.items():
        assert torch.equal(grad, plain[name]) != (name in slower_parameters(run))


def slower_parameters(run):
    return {f"encoders.audio.{n}" for n, _ in run.network.encoders["audio"].named_parameters()}


def test_a_worked_step():
    """What is added draws the slower modality's features to their prototypes, and unsettles those of the faster one."""
    first = {}
    for label, method in {"pull": PMR(entropy_epochs=0), "hold": PMR(alpha=0.0, mu=1.0)}.items():
        run, joint = built(method, names=TWO), built(Joint(), names=TWO)
        x = slower_first(run, batch(1, names=TWO))
        joint.network.load_state_dict(run.network.state_dict())
        acted(method, run, x)
        acted(Joint(), joint, x)
        before = measures(run, x)
        with torch.no_grad():
            for p, q in zip(run.network.parameters(), joint.network.parameters(), strict=True):
                p -= 0.01 * (p.grad - q.grad)
        first[label] = (before, measures(run, x))
    (own, entropy), (own_after, entropy_after) = first["pull"]
    assert own_after["audio"] < own["audio"]
    assert own_after["image"] == own["image"]
    (own, entropy), (own_after, entropy_after) = first["hold"]
    assert entropy_after["image"] > entropy["image"]
    assert entropy_after["audio"] == entropy["audio"]


def measures(run, x):
    own, entropy = {}, {}
    for n in run.modalities:
        made = run.state["prototypes"][n]
        known = made["known"].nonzero().flatten().tolist()
        with torch.no_grad():
            log_p = log_posterior(run.network.encoders[n](x.inputs[n]), made["means"][known])
        places = [known.index(int(y)) for y in x.target]
        own[n] = float(-log_p[range(len(places)), places].mean())
        entropy[n] = float(-(log_p.exp() * log_p).sum(1).mean())
    return own, entropy


def test_the_coefficients_of_the_code_are_all_or_nothing_and_it_knows_no_entropy():
    made = {}
    for mu in (0.0, 5.0):
        method = PMR(variant="code", mu=mu)
        run = built(method, names=TWO)
        x = slower_first(run, batch(1, names=TWO))
        made[mu] = acted(method, run, x)
        assert run.notes["coefficients"] == [1.0, 0.0]
    assert all(torch.equal(made[0.0][name], made[5.0][name]) for name in made[0.0])


def prototypes_are_means_of_the_epochs_tenth(method=None):
    """Means in evaluation mode of the tenth whose turn it is, made once in an epoch, with nothing else disturbed."""
    method = method or PMR(momentum=0.0)
    run = built(method, names=TWO)
    for name, encoder in run.network.encoders.items():
        run.network.encoders[name] = nn.Sequential(encoder, nn.BatchNorm1d(64), nn.Dropout(0.5)).double()
    run.network.encoders["image"][1].eval()
    asked = train_tenths(run)
    for epoch in (1, 2, 3, 11):
        run.epoch = epoch
        quiet = copy.deepcopy(run.network).eval()
        modes = [module.training for module in run.network.modules()]
        for number in range(2):
            run.begin_step(number + 1)
            acted(method, run, batch(number, names=TWO))
            if not number:
                expected = [batch(100 + 3 * ((epoch - 1) % 10) + i, names=TWO) for i in range(3)]
        y = torch.cat([x.target for x in expected])
        for n in TWO:
            made = run.state["prototypes"][n]
            with torch.no_grad():
                h = torch.cat([quiet.encoders[n](x.inputs[n]) for x in expected])
            for k in range(CLASSES):
                assert made["known"][k] == bool((y == k).any())
                close(made["means"][k], h[y == k].mean(0) if (y == k).any() else torch.zeros(64).double())
            assert not made["means"].requires_grad
        assert modes == [module.training for module in run.network.modules()]
        assert not run.network.encoders["image"][1].training
        assert int(run.network.encoders["audio"][1].num_batches_tracked) == 2 * (1 + (1, 2, 3, 11).index(epoch))
    assert asked == [pytest.approx(part) for part in ((0, 0.1), (0.1, 0.2), (0.2, 0.3), (0, 0.1))]


def test_prototypes_are_means_of_the_epochs_tenth():
    prototypes_are_means_of_the_epochs_tenth()


def test_a_whole_pass_may_make_the_prototypes_and_parts_take_turns():
    for fraction, wanted in ((1.0, [(0, 1), (0, 1)]), (0.5, [(0, 0.5), (0.5, 1)]), (0.3, [(0, 0.3), (0.3, 0.6)])):
        method = PMR(fraction=fraction)
        run = built(method, names=TWO)
        asked = train_tenths(run)
        for epoch in (1, 2):
            run.epoch = epoch
            acted(method, run, batch(names=TWO))
        assert asked == [pytest.approx(part) for part in wanted]
        assert method.passes(2) == (1 + fraction, 1)


def poisoned_validation_changes_nothing(folder, monkeypatch):
    """Whole runs in which validation and test have other classes end in the same weights."""
    ends = []
    for spoilt in (False, True):

        def dataset(_config, spoilt=spoilt):
            clean = world()
            if not spoilt:
                return clean
            other = {
                name: TensorSplit(getattr(clean, name).inputs, (getattr(clean, name).target + 1) % 3)
                for name in ("valid", "test")
            }
            return dataclasses.replace(clean, **other)

        monkeypatch.setattr(parts, "dataset", dataset)
        method = {"name": "pmr", "alpha": 5.0, "fraction": 0.5}
        ends.append(trained(folder / str(spoilt), method=method, epochs=3).end["weights"])
    assert ends[0] == ends[1]


def test_prototypes_are_of_training_samples_alone(tmp_path, monkeypatch):
    poisoned_validation_changes_nothing(tmp_path, monkeypatch)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_planted_fault_of_prototypes_from_validation_or_test_is_caught(split, tmp_path, monkeypatch):
    def leaking(self, start, stop):
        held_out = getattr(self.dataset, split)
        return iter([held_out[list(range(len(held_out)))]])

    monkeypatch.setattr(trainer.Trainer, "_train_batches", leaking)
    with pytest.raises(AssertionError):
        poisoned_validation_changes_nothing(tmp_path, monkeypatch)


def an_absent_class_leaves_every_number_finite():
    """A class that no sample of the tenth has is left out, and so are its samples, until one is seen; then it stays."""
    method = PMR(entropy_epochs=3, mu=0.1)
    run, x = built(method, names=TWO), batch(1, names=TWO)
    train_tenths(run, lacking=[0, 2])
    assert {0, 2} & set(x.target.tolist())
    assert all(grad.isfinite().all() for grad in acted(method, run, x).values())
    for n in TWO:
        assert run.state["prototypes"][n]["known"].tolist() == [False, True, False, True, True]
        assert run.state["prototypes"][n]["means"].isfinite().all()
    early = copy.deepcopy(run.state["prototypes"])
    train_tenths(run, lacking=[1, 3])
    run.epoch = 2
    run.begin_step(2)
    assert all(grad.isfinite().all() for grad in acted(method, run, x).values())
    for n in TWO:
        assert run.state["prototypes"][n]["known"].all()
        for k in (1, 3):
            assert torch.equal(run.state["prototypes"][n]["means"][k], early[n]["means"][k])
        assert not torch.equal(run.state["prototypes"][n]["means"][4], early[n]["means"][4])


def test_an_absent_class_leaves_every_number_finite():
    an_absent_class_leaves_every_number_finite()


def test_the_planted_fault_of_nan_for_an_absent_class_is_caught(monkeypatch):
    def careless(old, known, sums, counts, momentum):
        means = sums / counts[:, None]
        return torch.where(known[:, None], momentum * old + (1 - momentum) * means, means), torch.ones_like(known)

    monkeypatch.setattr(pmr, "moved", careless)
    with pytest.raises(AssertionError):
        an_absent_class_leaves_every_number_finite()


def test_a_whole_run_without_one_of_its_classes_trains(tmp_path):
    data = {"name": "tests.train.world", "flaw": "absent_class"}
    record = trained(tmp_path, method={"name": "pmr", "alpha": 5.0}, data=data, epochs=3)
    assert record.end["status"] == "finished"
    assert any(any(line["method"]["coefficients"]) for line in record.steps)


@pytest.mark.parametrize("classes", [[], [0, 1, 2, 3, 4]])
def test_samples_of_classes_without_prototypes_add_nothing(classes):
    method = PMR(entropy_epochs=0)
    run, joint = built(method, names=TWO), built(Joint(), names=TWO)
    x = slower_first(run, batch(1, names=TWO))
    joint.network.load_state_dict(run.network.state_dict())
    run.train_batches = lambda start, stop: iter([keep(x, [int(y) in classes for y in x.target])])
    found, plain = acted(method, run, x), acted(Joint(), joint, x)
    if not classes:
        assert run.notes["coefficients"] == [0.0, 0.0]
    assert all(torch.equal(found[n], plain[n]) for n in found) == (not classes)


def test_samples_that_lack_a_modality_count_for_nothing_in_it():
    """They are in no mean, no score and no loss: as if this modality had been given the other samples alone."""
    method = PMR(entropy_epochs=3, mu=0.3)
    x = batch(1, size=16, names=TWO)
    present = torch.ones(16, 2, dtype=torch.bool)
    present[:5, 0] = False
    made = {}
    for label in ("garbled", "clean"):
        run = built(method, names=TWO)
        given = x._replace(present=present, inputs={n: v.clone() for n, v in x.inputs.items()})
        if label == "garbled":
            given.inputs["audio"][:5] = 1e3
        run.train_batches = lambda start, stop, given=given: iter([given])
        slow = {"audio": ByHand(run, method), "image": ByHand(run, method)}
        there = {"audio": keep(x, present[:, 0].tolist()), "image": x}
        made[label] = acted(method, run, given)
        scores = []
        for n in TWO:
            slow[n].refresh([there[n]])
            prototypes = run.state["prototypes"][n]
            for k, expected in enumerate(slow[n].prototypes[n]):
                assert prototypes["known"][k] == (expected is not None)
                if expected is not None:
                    close(prototypes["means"][k], expected)
            features = slow[n].net.encoders[n](there[n].inputs[n]).detach()
            pairs = [slow[n].judged(n, h, int(y)) for h, y in zip(features, there[n].target, strict=True)]
            scores.append(sum(float(p[place]) for p, place in pairs) / len(pairs))
        beta = slow["audio"].coefficients(scores, 1)[0]
        assert run.notes["coefficients"] == pytest.approx(beta, abs=1e-6)
    assert all(torch.equal(made["garbled"][name], made["clean"][name]) for name in made["clean"])


def test_what_is_added_to_a_sample_is_of_the_modalities_it_has():
    method = PMR(alpha=0.0, mu=1.0)
    run = built(method, names=TWO)
    x = slower_first(run, batch(1, names=TWO))
    present = torch.ones(8, 2, dtype=torch.bool)
    present[:4, 1] = False
    output = run.network(x.inputs, present)
    added = method.loss(run, output, x._replace(present=present)) - cross_entropy(
        output.logits, x.target, reduction="none"
    )
    assert not added[:4].any()
    assert bool((added[4:] < 0).all())


def test_a_batch_that_says_nothing_of_a_modality_is_joint_trainings():
    method = PMR()
    run, joint, x = built(method, names=TWO), built(Joint(), names=TWO), batch(1, names=TWO)
    present = torch.ones(8, 2, dtype=torch.bool)
    present[:, 1] = False
    given = x._replace(present=present)
    found, plain = acted(method, run, given), acted(Joint(), joint, given)
    assert run.notes["coefficients"] == [0.0, 0.0]
    assert all(torch.equal(found[name], plain[name]) for name in found)


def test_outside_its_window_it_is_joint_training_and_makes_no_prototypes():
    method = PMR(alpha=3.0, first_epoch=2, last_epoch=3)
    run = built(method, names=TWO)
    asked = train_tenths(run)
    for epoch in (1, 2, 3, 4):
        run.epoch = epoch
        run.begin_step(epoch)
        joint = built(Joint(), names=TWO)
        joint.network.load_state_dict(run.network.state_dict())
        x = batch(1, names=TWO)
        found, plain = acted(method, run, x), acted(Joint(), joint, x)
        assert all(torch.equal(found[name], plain[name]) for name in found) == (epoch in (1, 4))
        assert ("coefficients" in run.notes) == (epoch in (2, 3))
    assert len(asked) == 2


def test_entropies_are_of_the_first_epochs_of_the_window():
    x, made = batch(1, names=TWO), {}
    for epoch in (3, 4, 5):
        for mu in (0.0, 1.0):
            method = PMR(mu=mu, entropy_epochs=2, first_epoch=3)
            run = built(method, names=TWO, epochs=5)
            slower_first(run, x)
            run.epoch = epoch
            made[mu] = acted(method, run, x)
        same = [torch.equal(made[0.0][name], made[1.0][name]) for name in made[0.0]]
        assert all(same) == (epoch == 5)


def test_in_the_second_pass_prototypes_and_coefficients_are_those_of_the_first():
    method = PMR(entropy_epochs=0)
    run, x = built(method, names=TWO), batch(1, names=TWO)
    run.train_batches = lambda start, stop: iter([x])
    slow = ByHand(run, method)
    slow.refresh([x])
    acted(method, run, x)
    beta = slow.gradients(x, 1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p, q in zip(run.network.parameters(), slow.net.parameters(), strict=True):
            step = 0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
            p.add_(step)
            q.add_(step)
    anew = slow.coefficients
    changed = []

    def kept(score, epoch):
        changed.append(max(abs(a - b) for a, b in zip(anew(score, epoch)[0], beta, strict=True)))
        return beta, [0.0, 0.0]

    slow.coefficients = kept
    run.perturbed = True
    run.train_batches = None  # not to be asked
    found = acted(method, run, x)
    slow.gradients(x, 1)
    assert changed[0] > 1e-3
    for mine, other in zip(found.values(), slow.net.parameters(), strict=True):
        close(mine, other.grad, 1e-10)
    assert run.notes["coefficients"] == pytest.approx(beta, abs=1e-6)


def test_the_record_holds_the_coefficients(tmp_path):
    record = trained(tmp_path, method="pmr")
    for line in record.steps:
        assert len(line["method"]["coefficients"]) == 2
        assert all(0 <= value <= 1 for value in line["method"]["coefficients"])


@pytest.mark.parametrize("count", [3, 4])
@every_fusion
def test_more_than_two_modalities_are_an_extension(count, fusion):
    with pytest.raises(ValueError, match=rf"2 modalities, received {count}: audio, image.*`method\.extend true`"):
        built(PMR(), fusion, names=FOUR[:count])
    run = built(PMR(extend=True), fusion, names=FOUR[:count])
    steps(PMR(extend=True), run, 2)
    assert len(run.notes["coefficients"]) == count


def test_extended_to_more_two_are_still_the_papers():
    weights = []
    for extend in (False, True):
        run = built(PMR(extend=extend), names=TWO)
        steps(PMR(extend=extend), run, 3)
        weights.append(run.network.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_too_few_training_samples_for_a_tenth_are_refused_with_the_way_out(tmp_path):
    data = {"name": "tests.train.world", "size": 4}
    with pytest.raises(ValueError, match=r"no samples to make prototypes of.*0\.0 to 0\.1 of 4 .*`method\.fraction`"):
        trained(tmp_path / "tenth", method="pmr", data=data)
    record = trained(tmp_path / "half", method={"name": "pmr", "fraction": 0.5}, data=data)
    assert record.end["status"] == "finished"


def test_targets_without_classes_are_refused():
    run, x = built(PMR(), names=TWO), batch(names=TWO)
    with pytest.raises(ValueError, match=r"integer classes \(N,\), received a target \(8, 5\)"):
        PMR().gradients(run, x._replace(target=torch.ones(8, CLASSES, dtype=torch.long)))


def test_an_unknown_variant_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown variant 'pap'\. Did you mean 'paper'\?"):
        PMR(variant="pap")
