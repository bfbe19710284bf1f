"""AVE's features as a specification: rows out of HDF5, segments folded into the batch, what is refused."""

import importlib
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import torch

from msam import data
from msam.data import _ave_features
from msam.data._loaders import batches
from tests.fixtures import ave_features as miniature
from tests.fixtures._command import msam
from tests.fixtures._learning import surprise

ave = data.load("ave")
module = importlib.import_module("msam.data.ave")
PSP = (  # noqa: SIM905 - read as a list
    "bell, Male, Bark, aircraft, car, Female, Helicopter, Violin, Flute, Ukulele, Fry, Truck, Shofar, Motorcycle, guitar, "
    "Train, Clock, Banjo, Goat, Baby, Bus, Chainsaw, Cat, Horse, Toilet, Rodents, Accordion, Mandolin, background"
).split(", ")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return miniature.write(tmp_path_factory.mktemp("ave"))


@pytest.fixture
def made(root):
    return ave(root=str(root), protocol="features")


def held(root, name, key="avadataset"):
    with h5py.File(root / f"{name}.h5") as file:
        return file[key][:]


@pytest.fixture
def changed(root, tmp_path):
    """The folder with some files in place of its own, the others by name only."""

    def make(**instead):
        for file in root.glob("*.h5"):
            (tmp_path / file.name).symlink_to(file)
        for name, arrays in instead.items():
            (tmp_path / f"{name}.h5").unlink()
            with h5py.File(tmp_path / f"{name}.h5", "w") as file:
                for key, array in arrays.items():
                    file[key] = array
        return str(tmp_path)

    return make


class TestLoading:
    def test_a_batch_is_the_rows_of_the_files(self, root, made):
        order = held(root, "train_order", "order")
        batch = made.train[[5, 0, 5]]
        videos = order[[5, 0, 5]]
        assert np.array_equal(batch.inputs["audio"].numpy(), held(root, "audio_feature")[videos])
        assert np.array_equal(batch.inputs["video"].numpy(), held(root, "visual_feature")[videos])
        assert {value.dtype for value in batch.inputs.values()} == {torch.float32}

    def test_segments_are_folded_video_after_video(self, root, made):
        videos = held(root, "test_order", "order")[[2, 7]]
        batch = made.test[[2, 7]]
        assert batch.target.shape == (20,)
        assert batch.target.dtype == torch.int64
        assert batch.target.tolist() == held(root, "right_labels")[videos].argmax(2).reshape(-1).tolist()

    def test_the_splits_are_those_of_the_orders(self, root, made):
        assert [len(part) for part in (made.train, made.valid, made.test)] == [22, 6, 11]
        assert made.valid.videos.tolist() == held(root, "val_order", "order").tolist()

    def test_the_card_says_what_the_dataset_is(self, made):
        card = module.card(protocol="features")
        assert (made.shapes, made.encoders, made.classes) == (card.shapes, card.encoders, card.classes)
        assert made.shapes == {"audio": (10, 128), "video": (10, 7, 7, 512)}
        assert made.num_classes == 29

    def test_classes_are_in_psps_order(self, made):
        assert len(made.classes) == 29
        for short, name in zip(PSP, made.classes, strict=True):
            assert short.lower() in name.lower()

    @pytest.mark.parametrize("name", ["audio", "video"])
    def test_each_modality_alone_beats_chance(self, made, name):
        assert surprise(made.train, made.test, name) < 0.01

    @pytest.mark.parametrize("kind", ["float64", "float16"])
    def test_other_types_of_numbers_become_floats(self, root, changed, kind):
        values = held(root, "audio_feature")
        found = ave(root=changed(audio_feature={"avadataset": values.astype(kind)}), protocol="features").train[[3]]
        wanted = values.astype(kind).astype(np.float32)[held(root, "train_order", "order")[3]]
        assert np.array_equal(found.inputs["audio"][0].numpy(), wanted)


class TestReading:
    def test_only_the_rows_asked_for_are_read(self, root, monkeypatch):
        made = ave(root=str(root), protocol="features")
        taken = []
        real = h5py.Dataset.read_direct
        monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda *_: pytest.fail("more than a row was read"))
        monkeypatch.setattr(
            h5py.Dataset,
            "read_direct",
            lambda self, dest, source, place: taken.append(source) or real(self, dest, source, place),
        )
        made.train[[4, 1]]
        videos = sorted(made.train.videos[[4, 1]].tolist())
        assert taken == [*videos, *videos]

    def test_a_file_is_opened_once_and_by_another_process_again(self, root, monkeypatch):
        store = _ave_features.RowStore(root / "audio_feature.h5", "avadataset", (10, 128))
        first = store._array()
        assert store._array() is first
        monkeypatch.setattr("os.getpid", lambda: -1)
        assert store._array() is not first

    def test_it_goes_to_other_processes_without_its_handle(self, root):
        store = _ave_features.RowStore(root / "audio_feature.h5", "avadataset", (10, 128))
        other = pickle.loads(pickle.dumps(store))
        assert np.array_equal(other.rows([3, 1]), store.rows([3, 1]))

    def test_many_threads_at_once_read_what_one_does(self, root, made):
        wanted = [made.train[[n, (n + 1) % 22]] for n in range(22)]
        gate = threading.Barrier(4)

        def read(worker):
            gate.wait()
            return [made.train[[n, (n + 1) % 22]] for n in range(worker, 22, 4)]

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(read, range(4)))
        for worker, part in enumerate(found):
            for one, other in zip(part, wanted[worker::4], strict=True):
                assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs)

    def test_batches_read_ahead_come_in_order(self, made):
        order = [[3, 1], [0, 2], [5, 4]]
        for index, batch in zip(order, batches(made.train, order), strict=True):
            assert torch.equal(batch.inputs["audio"], made.train[index].inputs["audio"])


class TestFingerprint:
    def test_it_is_the_same_wherever_the_files_lie(self, made, changed):
        assert ave(root=changed(), protocol="features").fingerprint == made.fingerprint

    @pytest.mark.parametrize(("name", "key"), [("audio_feature", "avadataset"), ("train_order", "order")])
    def test_it_changes_with_the_content(self, root, made, changed, name, key):
        values = held(root, name, key)[::-1]
        assert ave(root=changed(**{name: {key: values}}), protocol="features").fingerprint != made.fingerprint

    def test_it_changes_with_one_label(self, root, made, changed):
        labels = held(root, "right_labels")
        labels[7, 3] = np.roll(labels[7, 3], 1)
        assert (
            ave(root=changed(right_labels={"avadataset": labels}), protocol="features").fingerprint != made.fingerprint
        )


SPARE = int(np.random.default_rng(1).permutation(40)[39])
ONE_HOT = np.eye(29)[np.zeros((40, 10), int)]
TWO = ONE_HOT.copy()
TWO[3, 4, 5] = 1
NONE = ONE_HOT.copy()
NONE[2, 1] = 0


class TestErrors:
    @pytest.mark.parametrize("name", [*_ave_features.FILES.values(), "right_labels.h5", *_ave_features.ORDERS.values()])
    def test_a_missing_file_is_named(self, changed, name):
        folder = changed()
        (_ave_features.Path(folder) / name).unlink()
        with pytest.raises(
            ValueError, match=rf"AVE's features need the file .*{name}, found none\. See docs/data/ave\.md"
        ):
            ave(root=folder, protocol="features")
        found = module.check(folder, protocol="features")
        assert [finding.kind for finding in found.findings] == ["missing"]

    @pytest.mark.parametrize(
        ("instead", "message"),
        [
            (
                {"audio_feature": {"avadatset": np.zeros((40, 10, 128))}},
                r"audio_feature\.h5 must have an array 'avadataset', found \['avadatset'\]\. Did you mean 'avadatset'",
            ),
            ({"train_order": {}}, r"train_order\.h5 must have an array 'order', found \[\]"),
            ({"audio_feature": {"avadataset/x": np.zeros(3)}}, "must have an array 'avadataset'"),
            (
                {"audio_feature": {"avadataset": np.zeros((40, 10, 127))}},
                r"must be \(n, 10, 128\) of numbers, found \(40, 10, 127\)",
            ),
            (
                {"audio_feature": {"avadataset": np.zeros((40, 1280))}},
                r"must be \(n, 10, 128\) of numbers, found \(40, 1280\)",
            ),
            (
                {"audio_feature": {"avadataset": np.zeros((39, 10, 128))}},
                r"a row for each of the 40 videos of right_labels\.h5, found 39",
            ),
            ({"audio_feature": {"avadataset": np.full((40, 10, 128), b"x")}}, r"of numbers, found .* of \|S1"),
            ({"right_labels": {"avadataset": np.zeros((40, 10, 28))}}, r"must be \(n, 10, 29\)"),
            (
                {"right_labels": {"avadataset": TWO}},
                r"found the values \[0\. 1\.\] and 2 classes marked in video 3, segment 4",
            ),
            ({"right_labels": {"avadataset": NONE}}, r"and 0 classes marked in video 2, segment 1"),
            (
                {"right_labels": {"avadataset": ONE_HOT / 2}},
                r"found the values \[0\.  0\.5\] and 1 classes marked in video 0",
            ),
            ({"val_order": {"order": [1, 40]}}, r"val_order\.h5 must hold row numbers 0 to 39, found 40"),
            ({"val_order": {"order": [-1]}}, r"must hold row numbers 0 to 39, found -1"),
            ({"val_order": {"order": [0.5]}}, r"must hold row numbers 0 to 39, found 0\.5"),
            ({"val_order": {"order": [[1]]}}, r"must be \(n,\) row numbers, found \(1, 1\)"),
            ({"val_order": {"order": np.zeros(0, int)}}, r"must be \(n,\) row numbers, found \(0,\)"),
            ({"val_order": {"order": [SPARE, SPARE]}}, rf"found row {SPARE} in .*val_order\.h5 and again in it"),
        ],
    )
    def test_files_that_are_not_as_they_should_be(self, changed, instead, message):
        folder = changed(**instead)
        with pytest.raises(ValueError, match=message):
            ave(root=folder, protocol="features")
        assert [finding.kind for finding in module.check(folder, protocol="features").findings] == ["broken"]

    def test_a_video_in_two_splits(self, root, changed):
        order = held(root, "train_order", "order")
        with pytest.raises(
            ValueError, match=rf"found row {order[0]} in .*train_order\.h5 and in val_order\.h5\. Take it out"
        ):
            ave(root=changed(val_order={"order": order[:1]}), protocol="features")

    @pytest.mark.parametrize("size", [0, 100, 5000])
    def test_a_truncated_file(self, root, changed, size):
        folder = changed()
        path = _ave_features.Path(folder) / "audio_feature.h5"
        path.unlink()
        path.write_bytes((root / "audio_feature.h5").read_bytes()[:size])
        with pytest.raises(ValueError, match=r"audio_feature\.h5 is truncated, damaged or no HDF5 file"):
            ave(root=folder, protocol="features")

    def test_a_file_in_place_of_the_folder(self, root):
        with pytest.raises(ValueError, match="must be the folder of AVE's features, received the file"):
            ave(root=str(root / "audio_feature.h5"), protocol="features")

    def test_another_protocol(self, root):
        with pytest.raises(ValueError, match="Did you mean 'features'"):
            ave(root=str(root), protocol="feature")


def test_check_of_a_sound_folder(root, made, tmp_path):
    found = module.check(str(root), protocol="features")
    assert found.sound
    assert [finding.kind for finding in found.findings] == [*["ok"] * 5, "note"]
    assert {name: sum(counts.values()) for name, counts in found.splits.items()} == {
        "train": 220,
        "valid": 60,
        "test": 110,
    }
    assert found.fingerprint == made.fingerprint
    assert found.batch.target.shape == (80,)


def test_the_command_line_checks_and_draws(root, tmp_path):
    assert msam("data", "check", "ave", "--root", root, "--protocol", "features", "--out", tmp_path / "a.png") == 0
    assert (tmp_path / "a.png").stat().st_size > 1000
