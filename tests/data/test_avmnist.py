"""AV-MNIST as a specification: rows of files that stay on disk, its archive, what is refused."""

import gzip
import importlib
import io
import tarfile

import numpy as np
import pytest
import torch

from msam import data
from msam.types import Batch
from tests.fixtures import avmnist as miniature
from tests.fixtures._command import msam
from tests.fixtures._learning import surprise

avmnist = data.load("avmnist")
module = importlib.import_module("msam.data.avmnist")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return miniature.write(tmp_path_factory.mktemp("avmnist"))


@pytest.fixture(scope="module")
def archive(root, tmp_path_factory):
    return miniature.write_archive(root, tmp_path_factory.mktemp("archive") / "avmnist.tar.gz")


@pytest.fixture
def own(tmp_path):
    """A small copy to damage."""
    return miniature.write(tmp_path / "own", "uint8", train=24)


def replaced(root, name, values):
    np.save(root / name, values)
    return str(root)


class TestLoading:
    def test_a_batch_is_the_numbers_of_the_files_by_255(self, root):
        made = avmnist(root=str(root))
        batch = made.train[[3, 0]]
        assert isinstance(batch, Batch)
        for name, shape in (("audio", (1, 112, 112)), ("image", (1, 28, 28))):
            held = np.load(root / name / "train_data.npy")
            wanted = torch.from_numpy(held[[3, 0]].reshape(2, *shape) / 255).float()
            assert torch.allclose(batch.inputs[name], wanted, atol=1e-7)
            assert batch.inputs[name].is_contiguous()
            assert batch.inputs[name].dtype == torch.float32
        labels = np.load(root / "train_labels.npy")
        assert batch.target.tolist() == labels[[3, 0]].tolist()
        assert batch.target.dtype == torch.int64

    @pytest.mark.parametrize(("image", "audio"), [("uint8", "uint8"), ("float32", "uint8"), ("float32", "float64")])
    def test_the_type_of_the_files_makes_no_difference_to_what_comes_out(self, root, tmp_path, image, audio):
        other = avmnist(root=str(miniature.write(tmp_path, image, audio)))
        for part in ("train", "valid", "test"):
            one, two = getattr(avmnist(root=str(root)), part)[range(5)], getattr(other, part)[range(5)]
            assert torch.equal(one.target, two.target)
            assert all(torch.allclose(one.inputs[name], two.inputs[name], atol=1e-7) for name in one.inputs)

    def test_only_the_rows_asked_for_are_read(self, root):
        taken = []

        class Watched(np.ndarray):
            def __getitem__(self, key):
                taken.append(np.array(key).tolist())
                return np.asarray(super().__getitem__(key))

        files = module.read(root)["train"]
        assert all(isinstance(values, np.memmap) for values in files.inputs.values())
        watched = {name: values.view(Watched) for name, values in files.inputs.items()}
        module.MappedSplit(files._replace(inputs=watched), np.arange(10, 20))[[4, 1]]
        assert taken == [[14, 11], [14, 11]]

    def test_the_card_says_what_the_dataset_is(self, root):
        made, card = avmnist(root=str(root)), module.card()
        assert (made.shapes, made.encoders, made.num_classes, made.classes) == (
            card.shapes,
            card.encoders,
            card.num_classes,
            card.classes,
        )
        assert made.modalities == ("audio", "image")
        assert made.train.reads_ahead

    def test_the_folder_may_be_inside_the_one_given_or_on_the_shelf(self, own, monkeypatch):
        own.rename(own.parent / "avmnist")
        inside = avmnist(root=str(own.parent))
        monkeypatch.setenv("MSAM_DATA", str(own.parent))
        assert avmnist().fingerprint == inside.fingerprint

    @pytest.mark.parametrize("name", ["audio", "image"])
    def test_each_modality_alone_beats_chance(self, root, name):
        made = avmnist(root=str(root))
        assert surprise(made.train, made.test, name) < 0.01


class TestSplits:
    def test_the_last_twelfth_of_train_is_held_out(self, root):
        made = avmnist(root=str(root))
        assert made.train.rows.tolist() == list(range(88))
        assert made.valid.rows.tolist() == list(range(88, 96))
        assert made.test.rows.tolist() == list(range(40))

    def test_of_the_official_size_it_is_multibenchs(self):
        train, valid = module._carved(np.arange(60000) % 10, "multibench", 0)
        assert (train[0], train[-1], valid[0], valid[-1]) == (0, 54999, 55000, 59999)

    def test_a_stratified_one_holds_out_as_many_each_class_in_its_share(self):
        labels = np.sort(np.arange(60000) % 10)
        train, valid = module._carved(labels, "stratified", 3)
        assert np.bincount(labels[valid]).tolist() == [500] * 10
        assert sorted([*train, *valid]) == list(range(60000))

    def test_its_seed_decides(self, root):
        def rows(**how):
            return avmnist(root=str(root), split="stratified", **how).valid.rows.tolist()

        assert rows() == rows(seed=0) != rows(seed=1)


class TestFingerprint:
    def test_it_is_the_same_wherever_the_files_lie(self, root, tmp_path):
        assert avmnist(root=str(root)).fingerprint == avmnist(root=str(miniature.write(tmp_path))).fingerprint

    @pytest.mark.parametrize("name", ["audio/train_data", "image/test_data", "train_labels", "test_labels"])
    def test_it_changes_with_any_file(self, own, name):
        before = avmnist(root=str(own)).fingerprint
        values = np.load(own / f"{name}.npy")
        assert avmnist(root=replaced(own, f"{name}.npy", values[::-1])).fingerprint != before

    def test_it_changes_with_the_split(self, root):
        prints = {avmnist(root=str(root), **how).fingerprint for how in ({}, {"split": "stratified"})}
        assert len(prints) == 2


class TestArchive:
    def test_the_six_files_come_out_wherever_they_lie(self, root, archive, tmp_path):
        for number, top in enumerate(("avmnist/", "", "./deep/er/")):
            packed = miniature.write_archive(root, tmp_path / f"{number}.tar.gz", top)
            out = module.prepare(str(packed), str(tmp_path / f"out{number}"))
            assert sorted(str(f.relative_to(out)) for f in out.rglob("*.*")) == sorted(module.file_names())
            assert avmnist(root=str(out)).fingerprint == avmnist(root=str(root)).fingerprint

    def test_the_command_line_unpacks_and_checks(self, archive, tmp_path, capsys):
        out, picture = tmp_path / "out", tmp_path / "a.png"
        assert msam("data", "prepare", "avmnist", "--root", archive, "--out", out) == 0
        assert msam("data", "check", "avmnist", "--root", out, "--out", picture) == 0
        assert "the official files have 60000 rows" in " ".join(capsys.readouterr().out.split())
        assert picture.stat().st_size > 1000

    def test_given_to_the_loader_it_says_to_unpack_it(self, archive):
        with pytest.raises(
            ValueError, match=r"received the file .*avmnist\.tar\.gz\. Unpack it: msam data prepare avmnist"
        ):
            avmnist(root=str(archive))

    @pytest.mark.parametrize(
        ("name", "how", "found"),
        [
            ("../train_labels.npy", {}, "a path that leads out"),
            ("/tmp/train_labels.npy", {}, "a path that leads out"),
            ("avmnist/image/../../../x", {}, "a path that leads out"),
            ("avmnist/train_labels.npy", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "a link"),
            ("avmnist/image", {"type": tarfile.SYMTYPE, "linkname": "/etc"}, "a link"),
            ("avmnist/test_labels.npy", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, "a link"),
            ("avmnist/pipe", {"type": tarfile.FIFOTYPE}, "no plain file"),
        ],
    )
    def test_links_and_paths_that_lead_out_are_refused_and_nothing_is_left(self, tmp_path, name, how, found):
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as opened:
            miniature.add(opened, name, b"" if how else b"x", **how)
        with pytest.raises(ValueError, match=f"must hold plain files and folders only, found '{name}', {found}"):
            module.prepare(str(tmp_path / "a.tar.gz"), str(tmp_path / "out"))
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar.gz"]

    @pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.999])
    def test_a_truncated_one_leaves_nothing(self, archive, tmp_path, share):
        content = archive.read_bytes()
        (tmp_path / "a.tar.gz").write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=r"a\.tar\.gz (is truncated|is damaged|must hold 6 files)"):
            module.prepare(str(tmp_path / "a.tar.gz"), str(tmp_path / "out"))
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar.gz"]

    @pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9, 0.999999])
    def test_a_damaged_one_is_noticed_by_its_checksum(self, archive, tmp_path, share):
        content = bytearray(archive.read_bytes())
        content[int(share * len(content))] ^= 0x10
        (tmp_path / "a.tar.gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.tar\.gz is (truncated|damaged)"):
            module.prepare(str(tmp_path / "a.tar.gz"), str(tmp_path / "out"))

    def test_a_file_that_lacks_and_one_that_comes_twice(self, root, tmp_path):
        with tarfile.open(tmp_path / "few.tar", "w") as opened:
            opened.add(root / "train_labels.npy", "a/train_labels.npy")
        with pytest.raises(ValueError, match=r"must hold 6 files, found 1; lacking are \['audio/train_data.npy'"):
            module.prepare(str(tmp_path / "few.tar"), str(tmp_path / "out"))
        with tarfile.open(tmp_path / "twice.tar", "w") as opened:
            for top in "ab":
                opened.add(root / "train_labels.npy", f"{top}/train_labels.npy")
        with pytest.raises(
            ValueError, match=r"must hold train_labels\.npy once, found it again as 'b/train_labels\.npy'"
        ):
            module.prepare(str(tmp_path / "twice.tar"), str(tmp_path / "out"))

    def test_files_that_are_no_avmnist_do_not_become_one(self, own, tmp_path):
        packed = miniature.write_archive(own, tmp_path / "a.tar.gz")
        replaced(own, "image/train_data.npy", np.zeros((24, 100)))
        packed = miniature.write_archive(own, tmp_path / "a.tar.gz")
        with pytest.raises(ValueError, match=r"must be \(24, 784\) or \(24, 28, 28\), found \(24, 100\)"):
            module.prepare(str(packed), str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_is_taken_is_left_alone(self, archive, own):
        before = sorted(own.rglob("*"))
        with pytest.raises(ValueError, match="must be a new or empty folder"):
            module.prepare(str(archive), str(own))
        assert sorted(own.rglob("*")) == before

    def test_another_kind_of_file_and_none(self, tmp_path):
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"no archive"))
        with pytest.raises(ValueError, match="truncated, damaged or no tar archive"):
            module.prepare(str(tmp_path / "a.tar.gz"), str(tmp_path / "out"))
        with pytest.raises(ValueError, match="The archive must be a file, found none at"):
            module.prepare(str(tmp_path / "none"), str(tmp_path / "out"))


class TestErrors:
    @pytest.mark.parametrize("name", list(module.file_names()))
    def test_a_missing_file_is_named(self, own, name):
        (own / name).unlink()
        with pytest.raises(ValueError, match=rf"needs six files, found none at .*{name}\. See docs/data/avmnist\.md"):
            avmnist(root=str(own))
        found = module.check(str(own))
        assert not found.sound
        assert [finding.kind for finding in found.findings if name in finding.text] == ["missing"]

    @pytest.mark.parametrize(
        ("name", "values", "message"),
        [
            ("image/train_data.npy", np.zeros((24, 783)), r"must be \(24, 784\) or \(24, 28, 28\), found \(24, 783\)"),
            ("audio/test_data.npy", np.zeros((40, 112, 111)), r"must be \(40, 112, 112\) or .* found \(40, 112, 111\)"),
            ("audio/train_data.npy", np.zeros((23, 112, 112)), "a row for each of 24 labels, found 23 rows"),
            ("image/train_data.npy", np.full((24, 784), 0.5), "found none above 0.5: they have been divided already"),
            ("image/train_data.npy", np.full((24, 784), np.nan), "must hold numbers, found NaN or infinity"),
            ("image/train_data.npy", np.full((24, 784), "x"), r"must be an array of numbers .* found <U1"),
            ("train_labels.npy", np.full(24, 10), "must hold classes 0 to 9, found 10 in row 0"),
            ("train_labels.npy", np.arange(24) - 1, "must hold classes 0 to 9, found -1 in row 0"),
            ("test_labels.npy", np.full(40, 0.5), "must hold classes 0 to 9, found 0.5 in row 0"),
            ("test_labels.npy", np.zeros(0, int), "must hold labels, found none"),
        ],
    )
    def test_files_that_are_not_as_they_should_be(self, own, name, values, message):
        with pytest.raises(ValueError, match=message) as found:
            avmnist(root=replaced(own, name, values))
        assert str(own / name) in str(found.value)
        assert any(finding.kind == "broken" for finding in module.check(str(own)).findings)

    def test_a_pickle_is_never_opened(self, own):
        np.save(own / "train_labels.npy", np.array([print], object), allow_pickle=True)
        with pytest.raises(ValueError, match=r"train_labels\.npy is damaged or holds no numbers"):
            avmnist(root=str(own))

    @pytest.mark.parametrize("size", [0, 50, 5000])
    def test_a_truncated_file_is_damaged(self, own, size):
        content = (own / "image/train_data.npy").read_bytes()
        (own / "image/train_data.npy").write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"image/train_data\.npy is damaged or holds no numbers"):
            avmnist(root=str(own))

    def test_an_archive_of_arrays_is_no_array(self, own):
        held = io.BytesIO()
        np.savez(held, a=np.zeros(3))
        (own / "train_labels.npy").write_bytes(held.getvalue())
        with pytest.raises(ValueError, match=r"must be an array of numbers .*, found an archive"):
            avmnist(root=str(own))

    def test_too_few_rows_to_hold_some_out(self, tmp_path):
        with pytest.raises(ValueError, match="5 rows leave no sample for it"):
            avmnist(root=str(miniature.write(tmp_path, train=5)))

    @pytest.mark.parametrize(
        ("how", "message"),
        [({"split": "multibenhc"}, "Did you mean 'multibench'"), ({"seed": -1}, "`seed` must be >= 0, received -1")],
    )
    def test_options(self, root, how, message):
        with pytest.raises(ValueError, match=message):
            avmnist(root=str(root), **how)


def test_check_of_a_sound_folder(root):
    found = module.check(str(root))
    assert found.sound
    assert {name: sum(counts.values()) for name, counts in found.splits.items()} == {
        "train": 88,
        "valid": 8,
        "test": 40,
    }
    assert found.fingerprint == avmnist(root=str(root)).fingerprint
    assert len(found.batch.target) == 8
    assert [finding.kind for finding in found.findings] == ["ok", "note", "ok", "note"]
