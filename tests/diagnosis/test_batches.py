"""Loaders may yield what loaders yield; what cannot be read is named with its batch."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import msam
from msam import Batch
from msam.diagnosis._batches import batches

NAMES = ["audio", "image"]
A, B, Y = torch.randn(6, 3), torch.randn(6, 4), torch.tensor([0, 1, 2] * 2)


def read(items, **options):
    return list(batches(items, NAMES, **{"target": "labels", "device": torch.device("cpu"), **options}))


@pytest.mark.parametrize(
    "item",
    [
        Batch({"audio": A, "image": B}, Y),
        {"audio": A, "image": B, "labels": Y},
        ({"audio": A, "image": B}, Y),
        [{"audio": A, "image": B}, Y, torch.ones(6, 2, dtype=torch.bool)],
        (A, B, Y),
        [A, B, Y],
    ],
    ids=["Batch", "mapping", "pair", "with present", "tuple", "list"],
)
def test_every_usual_form_is_the_same_batch(item):
    [batch] = read([item])
    assert torch.equal(batch.inputs["audio"], A)
    assert torch.equal(batch.inputs["image"], B)
    assert torch.equal(batch.target, Y)


def test_a_data_loader_of_torch_is_read():
    found = read(DataLoader(TensorDataset(A, B, Y), batch_size=4))
    assert [len(batch.target) for batch in found] == [4, 2]


def test_targets_may_have_another_key_and_more_inputs_may_come_along():
    [batch] = read([{"audio": A, "image": B, "mask": A, "y": Y}], target="y")
    assert list(batch.inputs) == ["audio", "image", "mask"]


def test_names_of_files_and_the_like_are_let_be():
    [batch] = read([{"audio": A, "image": B, "names": ["a"] * 6, "labels": Y}])
    assert batch.inputs["names"] == ["a"] * 6


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "`loader` yields no batches"),
        ([(A, Y)], "Batch 1 of `loader`: .*the 2 tensors of \\['audio', 'image'\\] and the targets; found 2 tensors"),
        ([{"audio": A, "image": B}], "No targets under 'labels'; found \\['audio', 'image'\\]. Say where they are"),
        ([("x", Y)], "found tuple of \\(str, Tensor\\)"),
        ([SimpleNamespace()], "found SimpleNamespace"),
        ([(A, B, Y), (A, torch.full_like(B, torch.nan), Y)], "Input 'image' holds 24 values that are NaN.* in batch 2"),
        ([(A.clone().fill_(torch.inf), B, Y)], "Input 'audio' holds 18 values that are NaN or infinite in batch 1"),
    ],
    ids=["empty", "too few", "no targets", "text", "object", "NaN", "infinite"],
)
def test_what_is_no_batch_is_said(items, said):
    with pytest.raises(ValueError, match=said):
        read(items)


def test_what_is_no_loader_is_said():
    with pytest.raises(TypeError, match=r"`loader` must yield batches, received int"):
        read(3)


@pytest.fixture
def model():
    torch.manual_seed(0)
    encoders = {"audio": torch.nn.Linear(3, 5), "image": torch.nn.Linear(4, 5)}
    return msam.MultimodalModel(encoders, msam.SumFusion({"audio": 5, "image": 5}, 3))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            Y.double(),
            "received \\(6,\\) of torch.float64 for logits \\(6, 3\\). Where they are classes, pass `target.long",
        ),
        (torch.eye(3)[Y].double(), "nothing but 0 and 1. If they are labels, say task='multi-label'"),
        (Y.bool(), "of torch.bool"),
        (Y[:4], "must be integer classes \\(N,\\), received \\(4,\\) of torch.int64 for logits \\(6, 3\\)"),
        (Y + 1, "must lie in 0 to 2, as the model has 3 logits; found 1 to 3"),
        (
            torch.eye(3)[Y].long()[:, :2],
            "must be labels \\(N, C\\), received \\(6, 2\\) of torch.bool for logits \\(6, 3\\)",
        ),
        ([0, 1, 2], "must be a tensor, found list"),
    ],
    ids=["floats", "ambiguous", "bool", "too few", "out of range", "too few labels", "list"],
)
def test_targets_that_do_not_fit_are_refused(model, target, said):
    with pytest.raises(ValueError, match=said):
        msam.diagnose(model, [({"audio": A, "image": B}, target)], progress=False)


def test_a_modality_that_is_not_there_is_named(model):
    with pytest.raises(ValueError, match=r"'image' is missing; found \['audio', 'imgae'\]"):
        msam.diagnose(model, [({"audio": A, "imgae": B}, Y)], progress=False)
    with pytest.raises(ValueError, match=r"'image' must be a tensor \(B, ...\), found list"):
        msam.diagnose(model, [({"audio": A, "image": [1] * 6}, Y)], progress=False)
    with pytest.raises(ValueError, match=r"same number of samples, received {'audio': 6, 'image': 5}"):
        msam.diagnose(model, [({"audio": A, "image": B[:5]}, Y)], progress=False)


def test_an_unadapted_model_is_told_how(model):
    with pytest.raises(ValueError, match=r"received Linear. Say which inputs belong to which modality: msam.adapt\("):
        msam.diagnose(torch.nn.Linear(3, 2), [], progress=False)
    with pytest.raises(ValueError, match=r"Unknown absent 'inputs'. Did you mean 'input'"):
        msam.diagnose(model, [], absent="inputs", progress=False)
    with pytest.raises(ValueError, match=r"`resamples` must be >= 100, received 3"):
        msam.diagnose(model, [], resamples=3, progress=False)


def test_logits_that_are_not_finite_are_laid_to_the_absence(model):
    class Divides(torch.nn.Module):
        def forward(self, audio, image):
            return audio / image[:, :1].abs()

    other = msam.adapt(Divides(), {"audio": "audio", "image": "image"})
    with pytest.raises(ValueError, match=r"With 'audio', 'image' absent the model gives logits.*say what stands in"):
        msam.diagnose(other, [(A, B, Y)], progress=False)
    sound = msam.adapt(Divides(), {"audio": "audio", "image": "image"}, absent={"image": 1.0})
    assert msam.diagnose(sound, [(A, B, Y)], progress=False).samples == 6


def test_training_by_itself_needs_samples_that_can_be_gone_through_again(model):
    with pytest.raises(ValueError, match=r"give them, diagnose\(..., train=loader\)"):
        msam.diagnose(model, [(A, B, Y)], unimodal=2, progress=False)
    with pytest.raises(ValueError, match=r"not an iterator"):
        msam.diagnose(model, [(A, B, Y)], train=iter([(A, B, Y)]), unimodal=2, progress=False)
    with pytest.raises(ValueError, match=r"`train` yields no batches"):
        msam.diagnose(model, [(A, B, Y)], train=[], progress=False)


def test_an_encoder_that_gives_no_feature_is_named():
    class Siamese(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.both, self.own, self.head = torch.nn.Linear(3, 4), torch.nn.Linear(4, 4), torch.nn.Linear(8, 3)

        def forward(self, left, right):
            return self.head(torch.cat([self.own(self.both(left)), self.both(right)], 1))

    adapted = msam.adapt(Siamese(), {"a": "left", "b": "right"}, encoders={"a": "own", "b": "both"})
    data = [{"left": A, "right": A.flip(0), "labels": Y}]
    with pytest.raises(ValueError, match="encoder of 'b' gave no feature"):
        msam.diagnose(adapted, data, train=data, sharp=False, progress=False, resamples=100)
