"""UR-FUNNY as a specification: from the pickle to words that begin at the left, and what is refused."""

import importlib
import json
import pickle

import numpy as np
import pytest
import torch

from msam import data
from msam.data import _archives
from tests.fixtures import urfunny as miniature
from tests.fixtures._command import msam
from tests.fixtures._learning import surprise

urfunny = data.load("urfunny")
module = importlib.import_module("msam.data.urfunny")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("urfunny")
    return module.prepare(str(miniature.write(folder / "humor.pkl")), str(folder / "out"))


@pytest.fixture
def own(tmp_path):
    return module.prepare(str(miniature.write(tmp_path / "humor.pkl", dtype="float32")), str(tmp_path / "out"))


@pytest.fixture
def of(tmp_path):
    """Prepare a pickle of changed content."""

    def make(content):
        path = tmp_path / "changed.pkl"
        path.write_bytes(pickle.dumps(content))
        return module.prepare(str(path), str(tmp_path / "out"))

    return make


class TestWhatPreparingDoes:
    def test_items_without_text_are_dropped_and_counted(self, prepared, capsys):
        made = urfunny(root=str(prepared))
        assert [len(part) for part in (made.train, made.valid, made.test)] == [63, 23, 31]
        counts = json.loads((prepared / "manifest.json").read_text())["splits"]["train"]
        assert counts == {"given": 64, "silent": 1, "kept": 63, "humorous": 32, "infinite": 2}

    def test_words_begin_at_the_left_in_all_three_and_zeros_follow(self, prepared):
        held, made = miniature.content()["test"], urfunny(root=str(prepared)).test
        rows = [row for row in range(32) if row != 2]
        batch = made[range(31)]
        for sample, row in enumerate(rows):
            first = int(np.flatnonzero((held["text"][row] != 0).any(1))[0])
            assert made.lengths[sample] == 50 - first
            for name, value in batch.inputs.items():
                wanted = np.zeros((50, value.shape[2]), np.float32)
                wanted[: 50 - first] = held[name][row, first:]
                wanted[np.isneginf(wanted)] = 0
                assert np.array_equal(value[sample].numpy(), wanted)

    def test_voice_and_face_are_cut_where_the_text_begins_wherever_they_begin(self, of):
        content = miniature.content()
        content["train"]["text"][5] = 0
        content["train"]["text"][5, 30] = 1
        content["train"]["text"][5, 40] = 2
        content["train"]["audio"][5] = 3
        sample = urfunny(root=str(of(content))).train[[4]]
        assert (sample.inputs["audio"][0, :20] == 3).all()
        assert (sample.inputs["audio"][0, 20:] == 0).all()
        assert sample.inputs["text"][0, [0, 10], 0].tolist() == [1, 2]

    def test_minus_infinity_in_the_voice_becomes_0(self, prepared):
        sample = urfunny(root=str(prepared)).test[[3]]
        assert miniature.content()["test"]["audio"][4, -2, 7] == -np.inf
        length = int(urfunny(root=str(prepared)).test.lengths[3])
        assert sample.inputs["audio"][0, length - 2, 7:9].tolist() == [0, 0]
        assert sample.inputs["audio"].isfinite().all()

    @pytest.mark.parametrize("signs", [False, True])
    def test_labels_of_either_kind_become_0_and_1(self, tmp_path, prepared, signs):
        out = module.prepare(str(miniature.write(tmp_path / "h.pkl", signs=signs)), str(tmp_path / "out"))
        assert urfunny(root=str(out)).fingerprint == urfunny(root=str(prepared)).fingerprint
        assert urfunny(root=str(out)).train[range(63)].target.unique().tolist() == [0, 1]

    @pytest.mark.parametrize("shape", [(64,), (64, 1), (64, 1, 1)])
    def test_labels_of_any_shape(self, of, shape):
        content = miniature.content()
        content["train"]["labels"] = content["train"]["labels"].reshape(shape)
        assert len(urfunny(root=str(of(content))).train) == 63

    @pytest.mark.parametrize("protocol", [0, 2, 5])
    def test_every_protocol_gives_the_same(self, tmp_path, protocol):
        small = {
            split: {name: values[:12] for name, values in part.items()}
            for split, part in miniature.content(dtype="float32").items()
        }
        made = []
        for number in (4, protocol):
            path = tmp_path / f"{number}.pkl"
            path.write_bytes(pickle.dumps(small, number))
            made.append(urfunny(root=str(module.prepare(str(path), str(tmp_path / f"out{number}")))).fingerprint)
        assert made[0] == made[1]

    def test_the_command_line_prepares_and_checks(self, tmp_path, capsys):
        source, out = miniature.write(tmp_path / "humor.pkl"), tmp_path / "out"
        assert msam("data", "prepare", "urfunny", "--root", source, "--out", out) == 0
        assert "train: 63 samples, 32 of them humorous (64 in the pickle, 1 without text" in capsys.readouterr().err
        assert msam("data", "check", "urfunny", "--root", out, "--out", tmp_path / "a.png") == 0
        assert (tmp_path / "a.png").stat().st_size > 1000


class TestLoading:
    def test_the_card_says_what_the_dataset_is(self, prepared):
        made, card = urfunny(root=str(prepared)), module.card()
        assert (made.shapes, made.encoders, made.classes) == (card.shapes, card.encoders, card.classes)
        assert made.shapes == {"audio": (50, 81), "vision": (50, 371), "text": (50, 300)}

    def test_batches_are_always_50_words_long_of_floats(self, prepared):
        batch = urfunny(root=str(prepared)).valid[[1, 7, 4]]
        for name, shape in module.card().shapes.items():
            assert batch.inputs[name].shape == (3, *shape)
            assert batch.inputs[name].dtype == torch.float32
            assert batch.inputs[name].is_contiguous()
        assert batch.target.dtype == torch.int64

    def test_a_batch_is_its_samples(self, prepared):
        part = urfunny(root=str(prepared)).train
        whole = part[[9, 3, 9]]
        for place, sample in enumerate([9, 3, 9]):
            assert all(torch.equal(whole.inputs[name][place], part[[sample]].inputs[name][0]) for name in whole.inputs)
            assert whole.target[place] == part[[sample]].target[0]

    @pytest.mark.parametrize("name", ["audio", "vision", "text"])
    def test_each_modality_alone_beats_chance(self, prepared, name):
        made = urfunny(root=str(prepared))
        assert surprise(made.train, made.test, name) < 0.01

    def test_a_changed_value_is_another_fingerprint(self, prepared, of):
        content = miniature.content()
        content["train"]["vision"][7, -1, 0] += 1
        assert urfunny(root=str(of(content))).fingerprint != urfunny(root=str(prepared)).fingerprint


class TestErrors:
    def test_a_pickle_given_to_the_loader_is_not_opened(self, tmp_path):
        path = tmp_path / "humor.pkl"
        path.write_bytes(b"whatever")
        with pytest.raises(
            ValueError, match=r"received the file .*humor\.pkl\. Prepare it once: msam data prepare urfunny"
        ):
            urfunny(root=str(path))

    def test_a_folder_that_is_not_prepared(self, tmp_path):
        with pytest.raises(ValueError, match="holds no prepared urfunny"):
            urfunny(root=str(tmp_path))
        assert not module.check(str(tmp_path)).sound

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda c: c.pop("valid"),
                r"a dict with a dict for each of \['train', 'valid', 'test'\], found \['test', ",
            ),
            (
                lambda c: c["test"].pop("audio"),
                r"must have an array 'audio' in 'test', found \['id', 'labels', 'text', ",
            ),
            (lambda c: c["test"].update(text=[1]), "must have an array 'text' in 'test'"),
            (
                lambda c: c["train"].update(vision=np.zeros((64, 50, 370))),
                r"'vision' of 'train' as \(64, 50, 371\) of numbers, found \(64, 50, 370\) of float64",
            ),
            (lambda c: c["train"].update(audio=np.zeros((63, 50, 81))), r"as \(64, 50, 81\) .* found \(63, 50, 81\)"),
            (lambda c: c["train"].update(audio=np.full((64, 50, 81), "x")), r"of numbers, found .* of <U1"),
            (
                lambda c: c["valid"].update(labels=np.full((24, 1), 2.0)),
                "labels -1, 0 or 1, found 2.0 in row 0 of 'valid'",
            ),
            (lambda c: c["valid"].update(labels=np.full((24, 1), np.nan)), "labels -1, 0 or 1, found nan"),
            (lambda c: c["valid"].update(labels=np.zeros((24, 2))), r"one label a sample in 'valid', found \(24, 2\)"),
            (lambda c: c["valid"].update(labels=np.array(1)), "one label a sample in 'valid'|as .0, 50, 81"),
            (lambda c: c["test"]["text"].fill(0), "must have samples with text in 'test', found none among 32"),
            (lambda c: c["test"]["vision"].fill(np.nan), r"found \d+ values of 'vision' of 'test' that are not"),
            (lambda c: c["test"]["text"].fill(-np.inf), "values of 'text' of 'test' that are not"),
        ],
    )
    def test_content_that_is_not_as_it_should_be(self, of, tmp_path, change, message):
        content = miniature.content(dtype="float64")
        change(content)
        with pytest.raises(ValueError, match=message) as found:
            of(content)
        assert "changed.pkl must" in str(found.value)
        assert [entry.name for entry in tmp_path.iterdir()] == ["changed.pkl"]

    @pytest.mark.parametrize("content", [[1, 2], {"train": 1}, None])
    def test_a_pickle_of_something_else(self, of, content):
        with pytest.raises(ValueError, match="must be a dict with a dict for each of"):
            of(content)

    def test_a_pickle_that_would_run_something_leaves_nothing(self, of, tmp_path):
        with pytest.raises(ValueError, match=r"found the name (builtins|__builtin__)\.print"):
            of({**miniature.content(dtype="float32"), "more": print})
        assert [entry.name for entry in tmp_path.iterdir()] == ["changed.pkl"]

    @pytest.mark.parametrize("share", [0, 0.2, 0.9])
    def test_a_truncated_pickle(self, tmp_path, share):
        path = miniature.write(tmp_path / "humor.pkl", dtype="float32")
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(ValueError, match=r"humor\.pkl is truncated, damaged or no pickle"):
            module.prepare(str(path), str(tmp_path / "out"))
        assert [entry.name for entry in tmp_path.iterdir()] == ["humor.pkl"]

    def test_a_folder_and_nothing_in_place_of_the_pickle(self, tmp_path):
        with pytest.raises(ValueError, match=r"must be the file humor\.pkl, received the folder"):
            module.prepare(str(tmp_path), str(tmp_path / "out"))
        with pytest.raises(ValueError, match="The pickle must exist, found none at"):
            module.prepare(str(tmp_path / "none.pkl"), str(tmp_path / "out"))

    def test_a_prepared_folder_is_not_written_over(self, own, tmp_path):
        before = (own / "train.npz").read_bytes()
        with pytest.raises(ValueError, match="must be a new or empty folder"):
            module.prepare(str(tmp_path / "humor.pkl"), str(own))
        assert (own / "train.npz").read_bytes() == before

    def test_a_full_disk_leaves_nothing(self, tmp_path, monkeypatch):
        def full(path, content):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("msam.data._layout.write_whole", full)
        with pytest.raises(OSError, match="No space left"):
            module.prepare(str(miniature.write(tmp_path / "humor.pkl", dtype="float32")), str(tmp_path / "out"))
        assert [entry.name for entry in tmp_path.iterdir()] == ["humor.pkl"]

    def test_the_folder_appears_when_all_of_it_is_there(self, tmp_path):
        with _archives.draft_of(tmp_path / "out") as draft:
            assert not (tmp_path / "out").exists()
            (draft / "a").write_text("x")
        assert [file.name for file in (tmp_path / "out").iterdir()] == ["a"]


class TestDamage:
    def test_a_missing_or_cut_file(self, own):
        content = (own / "valid.npz").read_bytes()
        (own / "valid.npz").write_bytes(content[:-10])
        with pytest.raises(ValueError, match=r"valid\.npz is damaged: it must have \d+ bytes, found \d+"):
            urfunny(root=str(own))
        (own / "valid.npz").unlink()
        with pytest.raises(ValueError, match=r"valid\.npz is missing"):
            urfunny(root=str(own))

    def test_a_flipped_bit_is_noticed(self, own):
        content = bytearray((own / "test.npz").read_bytes())
        content[len(content) // 2] ^= 1
        (own / "test.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"test\.npz is damaged \(BadZipFile: Bad CRC-32"):
            urfunny(root=str(own))
        assert [finding.kind for finding in module.check(str(own)).findings] == ["ok", "ok", "broken"]

    def test_content_put_in_its_place_is_noticed_by_check(self, own):
        with np.load(own / "test.npz") as held:
            content = {name: held[name] for name in held.files}
        content["audio"][0, 0] += 1
        np.savez(own / "test.npz", **content)
        found = module.check(str(own))
        assert [finding.text for finding in found.findings if finding.kind == "broken"] == [
            f"The content of {own} has changed since it was prepared."
        ]

    def test_a_manifest_that_is_damaged(self, own):
        (own / "manifest.json").write_text("{")
        with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
            urfunny(root=str(own))


def test_check_of_a_sound_folder(prepared):
    found = module.check(str(prepared))
    assert found.sound
    assert {name: sum(counts.values()) for name, counts in found.splits.items()} == {
        "train": 63,
        "valid": 23,
        "test": 31,
    }
    assert found.fingerprint == urfunny(root=str(prepared)).fingerprint
    assert len(found.batch.target) == 8
