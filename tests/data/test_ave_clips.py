"""AVE's clips as a specification: from the release to batches."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from msam import data
from msam.data import _ave_clips, _frames, _media, _spectrogram
from msam.data._ave_features import CATEGORIES
from msam.data._loaders import in_epoch
from msam.data._prepared import opened, read_manifest
from msam.data.ave import ave, card, check, prepare
from tests.fixtures import ave_clips as fixture
from tests.fixtures._command import msam
from tests.fixtures._learning import surprise

PARTS = ("train", "valid", "test")
EVENTS = fixture.events()
NAMES = list(EVENTS)
THREE = (NAMES[0], NAMES[4], NAMES[12])
"""One clip of each part."""


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return fixture.write_release(tmp_path_factory.mktemp("ave") / "raw")


@pytest.fixture(scope="module")
def ready(release, tmp_path_factory):
    return str(prepare(str(release), str(tmp_path_factory.mktemp("prepared") / "ave"), workers=1))


@pytest.fixture
def three(release, tmp_path):
    """Three clips of the release, one of each part, free to spoil."""
    root = tmp_path / "three"
    (root / "AVE").mkdir(parents=True)
    for part, name in zip(PARTS, THREE, strict=True):
        shutil.copy(release / "AVE" / f"{name}.mp4", root / "AVE")
        fixture.write_list(root / fixture.LISTS[part], [fixture.row(name, *EVENTS[name])])
    return root


def add(root: Path, part: str, *rows: str) -> None:
    with open(root / fixture.LISTS[part], "a") as opened_:
        opened_.write("".join(f"{row}\n" for row in rows))


def manifest(root: Path, out: Path, **options) -> dict:
    return read_manifest(prepare(str(root), str(out), workers=1, **options), "ave")


class TestPreparing:
    def test_audio_is_the_spectrogram_of_the_event_repeated_to_ten_seconds(self, release, ready):
        found = opened(ready, "ave")
        for name in NAMES[:4]:
            _, start, end = EVENTS[name]
            sound = _media.read_audio(release / "AVE" / f"{name}.mp4", 16000)[start * 16000 : end * 16000]
            wanted = _spectrogram.named("257x1004")(sound)
            assert wanted.shape == (257, 1004)
            np.testing.assert_array_equal(found.arrays["audio"][found.rows[found.ids.index(name)]], wanted)

    def test_frames_are_of_the_event_only_one_a_second_and_at_least_ten(self, release, ready):
        found = opened(ready, "ave")
        for name, (_, start, end) in list(EVENTS.items())[:8]:  # every span
            store, row = found.frames["video"], found.rows[found.ids.index(name)]
            seconds = end - start
            per_second = max(1, -(-10 // seconds))
            assert store.count(row) >= 10
            whole = dict(_media.frames(release / "AVE" / f"{name}.mp4", fixture.FPS))
            step = fixture.FPS // per_second
            wanted = [
                n for n in range(start * 10, end * 10) if (n - start * 10) % 10 in range(0, step * per_second, step)
            ]
            assert store.count(row) == len(wanted)
            for place, number in enumerate(wanted):
                np.testing.assert_array_equal(store.frame(row, place), whole[number])

    def test_classes_are_numbered_in_the_order_of_the_field(self, ready):
        found = opened(ready, "ave")
        assert found.manifest["classes"] == list(CATEGORIES)
        assert found.labels == tuple(EVENTS[name][0] for name in found.ids)
        assert CATEGORIES[1] == "Male speech, man speaking"

    def test_the_shorter_side_is_cut_down_and_never_blown_up(self, three, tmp_path):
        for side, wanted in ((24, (24, 32)), (0, (48, 64)), (256, (48, 64))):
            found = opened(prepare(str(three), str(tmp_path / str(side)), short_side=side, workers=1), "ave")
            assert found.frames["video"].frame(0, 0).shape == (*wanted, 3)

    @pytest.mark.parametrize("options", [{"fps": 5}, {"standardise": True}, {"short_side": 24}])
    def test_every_option_changes_the_fingerprint_and_stands_in_the_manifest(self, three, tmp_path, options):
        plain, found = manifest(three, tmp_path / "plain"), manifest(three, tmp_path / "other", **options)
        assert found["fingerprint"] != plain["fingerprint"]
        assert options.items() <= found["parameters"].items()

    def test_the_number_of_workers_changes_nothing(self, three, tmp_path):
        one = manifest(three, tmp_path / "one")
        two = read_manifest(prepare(str(three), str(tmp_path / "two"), workers=2), "ave")
        assert one["fingerprint"] == two["fingerprint"]

    def test_what_was_done_is_kept_when_it_goes_on(self, three, tmp_path, monkeypatch):
        whole = manifest(three, tmp_path / "whole")
        decode, seen = _ave_clips.decode, []

        def stopped(item, **options):
            seen.append(item.id)
            if len(seen) == 3:
                raise KeyboardInterrupt
            return decode(item, **options)

        monkeypatch.setattr(_ave_clips, "decode", stopped)
        with pytest.raises(KeyboardInterrupt):
            manifest(three, tmp_path / "out")
        assert manifest(three, tmp_path / "out")["fingerprint"] == whole["fingerprint"]
        assert seen == [*THREE, THREE[2]]

    def test_lists_may_lie_elsewhere_and_their_checksums_are_kept(self, three, tmp_path):
        (tmp_path / "lists").mkdir()
        for name in fixture.LISTS.values():
            (three / name).rename(tmp_path / "lists" / name)
        with pytest.raises(ValueError, match=r"must hold trainSet.txt, valSet.txt, testSet.txt .* --lists"):
            manifest(three, tmp_path / "out")
        found = manifest(three, tmp_path / "out", lists=str(tmp_path / "lists"))
        assert found["splits"]["official"]["how"].count("sha256") == 3


class TestListsAndFiles:
    def test_a_video_that_comes_again_counts_once_and_is_named(self, three, tmp_path, capsys):
        add(three, "train", fixture.row(THREE[0], 5, 1, 2), fixture.row(THREE[2], 5, 1, 2))
        found = manifest(three, tmp_path / "out")
        assert found["splits"]["official"]["parts"] == {part: [name] for part, name in zip(PARTS, THREE, strict=True)}
        assert [item["label"] for item in found["items"]] == [EVENTS[name][0] for name in THREE]
        said = " ".join(capsys.readouterr().err.split())
        assert "2 rows name a video that was listed before" in said
        assert f"{THREE[0]} (trainSet.txt line 2)" in said
        assert f"{THREE[2]} (trainSet.txt line 3)" in said

    @pytest.mark.parametrize(
        ("row", "words"),
        [
            ("Barks&abcdefghijk&good&0&10", "unknown class 'Barks' of 'abcdefghijk'. Did you mean 'Bark'?"),
            ("Bark&abcdefghijk&good&0", "a row must be Category&VideoID&Quality&Start&End"),
            ("Bark&abcdefghijk&good&5&5", "0 <= Start < End <= 10"),
            ("Bark&abcdefghijk&good&0&11", "received '0' and '11'"),
            ("Bark&abcdefghijk&good&zero&ten", "received 'zero' and 'ten'"),
            ("Bark&abcdefghijk&good&nan&3", "received 'nan'"),
            ("Bark&../../secrets&good&0&10", "must be of letters"),
        ],
    )
    def test_bad_rows_are_named_or_counted(self, three, tmp_path, row, words):
        add(three, "train", row)
        with pytest.raises(ValueError, match="1 of 4 items") as error:
            manifest(three, tmp_path / "out")
        assert "trainSet.txt line 2: " in str(error.value)
        assert words in str(error.value)
        found = manifest(three, tmp_path / "out", missing="skip")
        assert [failure["id"] for failure in found["failures"]] == ["trainSet.txt line 2"]

    def test_marks_line_ends_and_a_header_do_not_matter(self, three):
        plain = _ave_clips.read_lists(three)
        for name in fixture.LISTS.values():
            text = "Category&VideoID&Quality&StartTime&EndTime\n\n" + (three / name).read_text()
            (three / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        found = _ave_clips.read_lists(three)
        assert found.events == plain.events
        assert found.parts == plain.parts
        assert not found.bad

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda path: path.unlink(), "no video at AVE/"),
            (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "cannot be decoded"),
            (lambda path: path.write_bytes(b""), "cannot be decoded"),
            (lambda path: fixture.write_clip(path, 0, 0, 10, sound=False), "must hold sound, found video only"),
            (lambda path: fixture.write_clip(path, 0, 0, 10, picture=False), "must hold video, found audio only"),
        ],
    )
    def test_missing_and_broken_videos(self, three, tmp_path, spoil, words):
        spoil(three / "AVE" / f"{THREE[0]}.mp4")
        with pytest.raises(ValueError, match="1 of 3 items of ave") as error:
            manifest(three, tmp_path / "out")
        assert words in str(error.value)
        assert THREE[0] in str(error.value)
        out = tmp_path / "out"
        found = manifest(three, out, missing="skip")
        assert [item["id"] for item in found["items"]] == [*THREE[1:]]
        with pytest.raises(ValueError, match="found none of train"):
            ave(root=str(out))

    def test_an_event_after_the_end_of_the_video(self, three, tmp_path):
        path = three / "AVE" / f"{THREE[0]}.mp4"
        whole = dict(_media.frames(path, fixture.FPS))
        frames = np.stack([frame for number, frame in whole.items() if number < 20])
        fixture.write_video(path, frames, fixture.FPS, np.zeros(10 * 16000), 16000)
        fixture.write_list(three / fixture.LISTS["train"], [fixture.row(THREE[0], 0, 5, 8)])
        with pytest.raises(ValueError, match="is truncated"):
            manifest(three, tmp_path / "out")
        fixture.write_video(path, frames, fixture.FPS, np.zeros(2 * 16000), 16000)
        with pytest.raises(ValueError, match=r"must hold sound from 5 to 8 s, found 2\.\d\d s"):
            manifest(three, tmp_path / "out")

    def test_options_out_of_range(self, three, tmp_path):
        for options, words in (
            ({"fps": 0}, "`fps` must be >= 1"),
            ({"fps": 11}, "`fps` must be <= 10"),
            ({"short_side": -1}, "`short_side` must be >= 0"),
            ({"missing": "skipp"}, "Did you mean 'skip'"),
        ):
            with pytest.raises(ValueError, match=words):
                manifest(three, tmp_path / "out", **options)


class TestLoading:
    def test_splits_are_those_of_the_lists(self, ready):
        found = ave(root=ready)
        parts = {part: getattr(found, part).ids for part in PARTS}
        assert {part: len(ids) for part, ids in parts.items()} == {"train": 16, "valid": 8, "test": 8}
        assert sorted(name for ids in parts.values() for name in ids) == sorted(NAMES)
        assert parts["valid"] == [name for number, name in enumerate(NAMES) if number // 4 % 4 == 1]

    def test_batches_have_the_shapes_of_the_card(self, ready):
        for frames in (3, 4):
            found, stated = ave(root=ready, frames=frames), card(frames=frames)
            batch = found.train[[5, 0]]
            assert found.shapes == stated.shapes
            assert found.encoders == stated.encoders == {"audio": "resnet18", "video": "resnet18_frames"}
            assert found.num_classes == stated.num_classes == 28
            assert found.classes == stated.classes
            for name, shape in stated.shapes.items():
                assert batch.inputs[name].shape == (2, *shape)
                assert batch.inputs[name].dtype == torch.float32
            assert batch.target.tolist() == [found.train.labels[sample] for sample in (5, 0)]

    def test_at_evaluation_frames_are_evenly_spaced(self, ready):
        found, content = ave(root=ready), opened(ready, "ave")
        row, store = content.rows[content.ids.index(found.test.ids[1])], content.frames["video"]
        chosen = [store.frame(row, number) for number in _frames.evenly(store.count(row), 3)]
        wanted = _frames.standardised([_frames.resized(frame) for frame in chosen])
        assert torch.equal(found.test[[1]].inputs["video"][0], wanted)

    def test_training_draws_depend_on_seed_epoch_and_sample_alone(self, ready):
        train = ave(root=ready, choice="random").train
        first = in_epoch(train, seed=3, epoch=5)[[4, 7]].inputs["video"]
        torch.manual_seed(99)
        assert torch.equal(in_epoch(train, seed=3, epoch=5)[[7, 4]].inputs["video"].flip(0), first)
        assert not torch.equal(in_epoch(train, seed=3, epoch=6)[[4, 7]].inputs["video"], first)

    def test_every_modality_tells_the_classes_of_held_out_clips_apart(self, ready):
        found = ave(root=ready)
        for modality in found.modalities:
            assert surprise(found.train, found.test, modality) < 1e-3

    def test_clips_are_the_default_and_the_data_folder_is_looked_into(self, ready, monkeypatch):
        monkeypatch.setenv("MSAM_DATA", str(Path(ready).parent))
        assert data.load("ave")().fingerprint == ave(root=ready, protocol="clips").fingerprint

    def test_the_release_itself_is_refused(self, release):
        with pytest.raises(ValueError, match=rf"msam data prepare ave --root {release} --out DIR"):
            ave(root=str(release))

    def test_the_features_are_told_from_clips(self, tmp_path):
        (tmp_path / "audio_feature.h5").write_bytes(b"")
        with pytest.raises(ValueError, match=r"holds the features. Give the option protocol features"):
            ave(root=str(tmp_path))
        assert "protocol features" in check(str(tmp_path)).findings[0].text

    def test_wrong_words_and_numbers(self, ready):
        for options, words in (
            ({"protocol": "clip"}, "Did you mean 'clips'"),
            ({"frames": 0}, "`frames` must be >= 1"),
            ({"choice": "randomly"}, "Did you mean 'random'"),
        ):
            with pytest.raises(ValueError, match=words):
                ave(root=ready, **options)


class TestChecking:
    def test_a_release(self, release):
        found = check(str(release))
        assert found.sound
        assert "32 of 32 videos can be opened" in found.findings[-1].text
        assert {name: sum(split.values()) for name, split in found.splits.items()} == {
            "train": 16,
            "valid": 8,
            "test": 8,
        }
        assert found.batch.inputs["video"].shape == (4, 3, 3, 224, 224)
        assert found.batch.target.tolist() == list(fixture.LABELS)

    def test_a_release_with_gaps(self, three):
        (three / "AVE" / f"{THREE[0]}.mp4").unlink()
        (three / "AVE" / f"{THREE[1]}.mp4").write_bytes(b"no video")
        add(three, "train", "Barks&abcdefghijk&good&0&10")
        found = check(str(three))
        said = [(finding.kind, finding.text) for finding in found.findings]
        assert any(kind == "missing" and THREE[0] in text for kind, text in said)
        assert any(kind == "broken" and THREE[1] in text for kind, text in said)
        assert any(kind == "broken" and "trainSet.txt line 2" in text for kind, text in said)
        (three / "testSet.txt").unlink()
        assert not check(str(three)).sound

    def test_a_prepared_folder_by_command(self, ready, tmp_path, capsys):
        assert msam("data", "check", "ave", "--root", ready, "--out", tmp_path / "a.png") == 0
        said = capsys.readouterr().out
        assert "32 clips prepared with" in said
        assert ave(root=ready).fingerprint in said
        assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    def test_a_folder_of_neither_kind(self, tmp_path):
        found = check(str(tmp_path))
        assert "holds no prepared ave" in found.findings[0].text
        assert not found.sound
