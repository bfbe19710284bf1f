"""CREMA-D as a specification: from the files as they are published to batches."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from msam import data
from msam.data import _cremad_files, _frames, _media, _spectrogram
from msam.data._loaders import in_epoch
from msam.data._prepared import FrameStore, opened, read_manifest
from msam.data.cremad import CLASSES, card, check, cremad, prepare
from msam.train import config, train
from tests.fixtures import cremad as fixture

FEW = fixture.names(4)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Four actors, 72 clips: the release."""
    return fixture.write_release(tmp_path_factory.mktemp("cremad") / "raw", FEW)


@pytest.fixture(scope="module")
def ready(release, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "cremad"
    return str(prepare(str(release), str(out), workers=1))


@pytest.fixture
def three(release, tmp_path):
    """Three clips of the release, free to spoil."""
    root = tmp_path / "three"
    for clip in FEW[:3]:
        for folder, kind in (("AudioWAV", "wav"), ("VideoFlash", "flv")):
            (root / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(release / folder / f"{clip}.{kind}", root / folder)
    fixture.write_lists(root, FEW[:3])
    return root


def rows(root: Path, part: str, text: str) -> None:
    (root / f"{part}.csv").write_text(text)


class TestPreparing:
    def test_audio_is_the_spectrogram_of_the_wav_and_video_the_frames_of_the_flv(self, release, ready):
        found = opened(ready, "cremad")
        assert found.ids == tuple(sorted(FEW))
        for place in (0, 40):
            clip, row = found.ids[place], found.rows[place]
            sound = _media.read_audio(release / "AudioWAV" / f"{clip}.wav", 16000)
            np.testing.assert_array_equal(found.arrays["audio"][row], _spectrogram.named("257x299")(sound))
            frames = [frame for _, frame in _media.frames(release / "VideoFlash" / f"{clip}.flv", 1)]
            store = found.frames["video"]
            assert store.count(row) == len(frames)
            for number, frame in enumerate(frames):
                np.testing.assert_array_equal(store.frame(row, number), frame)

    def test_classes_are_numbered_as_in_published_code(self, ready):
        found = opened(ready, "cremad")
        wanted = {"NEU": 0, "HAP": 1, "SAD": 2, "FEA": 3, "DIS": 4, "ANG": 5}
        assert list(found.labels) == [wanted[clip.split("_")[2]] for clip in found.ids]
        assert found.manifest["classes"] == list(CLASSES) == ["neutral", "happy", "sad", "fear", "disgust", "anger"]

    @pytest.mark.parametrize(("audio", "lists"), [("Audio", "CREMAD"), ("AudioWAV", "data/CREMAD")])
    def test_pictures_of_agm_and_ogm_are_found(self, three, tmp_path, capsys, audio, lists):
        root = fixture.write_pictures(three, tmp_path / "pictures", audio, lists)
        one, other = (prepare(str(r), str(tmp_path / f"out{n}"), workers=1) for n, r in enumerate((three, root)))
        said = capsys.readouterr().err
        assert "release (AudioWAV/*.wav, VideoFlash/*.flv)" in said
        assert f"pictures as {'AGM' if audio == 'Audio' else 'OGM-GE'} has them ({audio}/*.wav, Image-01-FPS" in said
        one, other = opened(one, "cremad"), opened(other, "cremad")
        assert one.manifest["splits"]["official"]["parts"] == other.manifest["splits"]["official"]["parts"]
        np.testing.assert_array_equal(one.arrays["audio"], other.arrays["audio"])
        for row in range(3):
            assert one.frames["video"].count(row) == other.frames["video"].count(row)
            jpeg = other.frames["video"].frame(row, 0).astype(int)
            assert np.abs(jpeg - one.frames["video"].frame(row, 0)).mean() < 3

    @pytest.mark.parametrize(
        "options",
        [{"spectrogram": "257x188"}, {"spectrogram": "257x188", "pad": "zeros"}, {"standardise": True}, {"fps": 3}],
    )
    def test_every_option_changes_the_fingerprint_and_stands_in_the_manifest(self, three, tmp_path, options):
        plain = read_manifest(prepare(str(three), str(tmp_path / "plain"), workers=1), "cremad")
        found = read_manifest(prepare(str(three), str(tmp_path / "other"), workers=1, **options), "cremad")
        assert found["fingerprint"] != plain["fingerprint"]
        assert options.items() <= found["parameters"].items()

    def test_the_lists_stand_in_the_manifest_with_their_checksums(self, ready):
        official = read_manifest(Path(ready), "cremad")["splits"]["official"]
        assert official["parts"]["test"] == FEW[::7]
        assert official["how"].count("sha256") == 2

    def test_lists_may_lie_elsewhere(self, three, tmp_path):
        (tmp_path / "lists").mkdir()
        for part in ("train.csv", "test.csv"):
            (three / part).rename(tmp_path / "lists" / part)
        out = prepare(str(three), str(tmp_path / "out"), lists=str(tmp_path / "lists"), workers=1)
        assert "official" in read_manifest(out, "cremad")["splits"]
        with pytest.raises(ValueError, match=r"`lists` must be a folder with train.csv .*OGM-GE"):
            prepare(str(three), str(tmp_path / "out2"), lists=str(three), workers=1)


class TestBadFilesAndRows:
    def test_missing_and_broken_files_are_all_named(self, three, tmp_path):
        (three / "AudioWAV" / f"{FEW[0]}.wav").unlink()
        flv = three / "VideoFlash" / f"{FEW[2]}.flv"
        flv.write_bytes(flv.read_bytes()[:500])
        with pytest.raises(ValueError, match=rf"2 of 3 .*{FEW[0]}: no audio at AudioWAV/.*{FEW[2]}: .*truncated"):
            prepare(str(three), str(tmp_path / "out"), workers=1)
        out = prepare(str(three), str(tmp_path / "out"), workers=1, missing="skip")
        manifest = read_manifest(out, "cremad")
        assert [item["id"] for item in manifest["items"]] == [FEW[1]]
        assert {failure["id"] for failure in manifest["failures"]} == {FEW[0], FEW[2]}

    @pytest.mark.parametrize(
        ("row", "words"),
        [
            ("1001_IEO_JOY_HI,JOY", "unknown class 'JOY'"),
            (f"{FEW[1]},SAD", "class 'SAD' is not the one in the name"),
            (f"{FEW[0]},{FEW[0].split('_')[2]}", "comes a second time"),
            (f"{FEW[1]}", "a row must be `id,EMOTION`"),
            ("clip seven,HAP", "not named ACTOR_SENTENCE_EMOTION_INTENSITY"),
            ("9999_IEO_HAP_HI,HAP", "9999_IEO_HAP_HI: no audio"),
        ],
    )
    def test_bad_rows_are_named_or_counted(self, three, tmp_path, row, words):
        rows(three, "train", f"{FEW[0]},{FEW[0].split('_')[2]}\n{row}\n")
        rows(three, "test", f"{FEW[2]},{FEW[2].split('_')[2]}\n")
        with pytest.raises(ValueError, match="1 of 4 items") as error:
            prepare(str(three), str(tmp_path / "out"), workers=1)
        assert words in str(error.value)
        assert "train.csv line 2" in str(error.value) or "9999" in row
        manifest = read_manifest(prepare(str(three), str(tmp_path / "out"), workers=1, missing="skip"), "cremad")
        assert len(manifest["failures"]) == 1
        assert len(manifest["items"]) == 3

    def test_a_clip_in_train_and_test_is_a_bad_row(self, three, tmp_path):
        rows(three, "test", f"{FEW[1]},{FEW[1].split('_')[2]}\n")
        with pytest.raises(ValueError, match=r"test.csv line 1: .* comes a second time"):
            prepare(str(three), str(tmp_path / "out"), workers=1)

    def test_marks_line_ends_and_blank_lines_do_not_matter(self, tmp_path):
        for number, text in enumerate(
            (b"\xef\xbb\xbfone,HAP\r\ntwo,SAD\r\n", b"one,HAP\ntwo,SAD", b"\none , HAP\r\n\r\ntwo,SAD\n")
        ):
            folder = tmp_path / str(number)
            folder.mkdir()
            named = text.replace(b"one", b"1001_IEO_HAP_HI").replace(b"two", b"1001_IEO_SAD_HI")
            (folder / "train.csv").write_bytes(named)
            (folder / "test.csv").write_bytes(b"")
            listed = _cremad_files.lists(folder)
            assert listed.labels == {"1001_IEO_HAP_HI": 1, "1001_IEO_SAD_HI": 2}
            assert not listed.bad

    def test_a_stray_file_counts(self, three, tmp_path):
        shutil.copy(three / "AudioWAV" / f"{FEW[0]}.wav", three / "AudioWAV" / "take two.wav")
        with pytest.raises(ValueError, match=r"1 of 4 .*take two: its name is not"):
            prepare(str(three), str(tmp_path / "out"), workers=1)

    def test_a_folder_without_crema_d(self, tmp_path):
        (tmp_path / "Holiday").mkdir()
        with pytest.raises(ValueError, match=r"must hold CREMA-D: AudioWAV .*; found Holiday"):
            prepare(str(tmp_path), str(tmp_path / "out"))
        with pytest.raises(ValueError, match="found nothing at"):
            prepare(str(tmp_path / "nowhere"), str(tmp_path / "out"))

    def test_pictures_at_another_rate(self, three, tmp_path):
        root = fixture.write_pictures(three, tmp_path / "pictures")
        with pytest.raises(ValueError, match=r"`fps` must be that of the pictures .*\(1\), received 2"):
            prepare(str(root), str(tmp_path / "out"), fps=2)

    def test_options_out_of_range(self, three, tmp_path):
        for options, words in (
            ({"fps": 0}, "`fps` must be >= 1"),
            ({"spectrogram": "257x298"}, "Did you mean '257x299'"),
            ({"missing": "skipp"}, "Did you mean 'skip'"),
            ({"pad": "zeros"}, "`pad` must be 'reflect' with spectrogram 257x299"),
            ({"fps": 31}, "`fps` must be <= 30"),
        ):
            with pytest.raises(ValueError, match=words):
                prepare(str(three), str(tmp_path / "out"), workers=1, **options)


class TestSplits:
    def test_official_is_of_the_lists_and_validation_a_tenth_of_train_by_class(self, ready):
        found = cremad(root=ready)
        assert found.test.ids == FEW[::7]
        assert sorted(found.train.ids + found.valid.ids) == sorted(set(FEW) - set(FEW[::7]))
        assert len(found.valid) == round(0.1 * (len(found.train) + len(found.valid)))
        counts = np.bincount(found.valid.labels, minlength=6)
        assert counts.max() - counts.min() <= 1

    def test_nobody_is_in_two_parts_of_speaker(self, ready):
        found = cremad(root=ready, split="speaker")
        actors = [{clip[:4] for clip in part.ids} for part in (found.train, found.valid, found.test)]
        assert [len(a) for a in actors] == [2, 1, 1]
        assert len(set.union(*actors)) == 4
        assert len(found.train) + len(found.valid) + len(found.test) == len(FEW)

    @pytest.mark.parametrize("split", ["official", "speaker"])
    def test_a_seed_draws_others_and_the_fingerprint_says_so(self, ready, split):
        found = [cremad(root=ready, split=split, seed=seed) for seed in (0, 0, 1, 2, 3)]
        assert found[0].fingerprint == found[1].fingerprint
        assert found[0].valid.ids == found[1].valid.ids
        assert len({one.fingerprint for one in found}) > 1
        assert len({tuple(one.valid.ids) for one in found}) == len({one.fingerprint for one in found})

    def test_without_lists_official_says_where_they_come_from(self, three, tmp_path):
        for part in ("train.csv", "test.csv"):
            (three / part).rename(tmp_path / part)
        out = str(prepare(str(three), str(tmp_path / "out"), workers=1))
        with pytest.raises(ValueError, match=r"OGM-GE_CVPR2022.*data/CREMAD.*not part of msam.*speaker"):
            cremad(root=out)
        rows(Path(out), "train", "".join(f"{clip},{clip.split('_')[2]}\n" for clip in FEW[:2]))
        rows(Path(out), "test", f"{FEW[2]},{FEW[2].split('_')[2]}\n")
        with pytest.raises(ValueError, match="must leave some on both sides"):  # two clips leave none to validate on
            cremad(root=out)


class TestBatches:
    def test_they_have_the_shapes_of_the_card(self, ready):
        found = cremad(root=ready, frames=3)
        batch = found.train[[5, 0, 2]]
        stated = card(frames=3)
        assert found.shapes == stated.shapes
        assert found.encoders == stated.encoders == {"audio": "resnet18", "video": "resnet18_frames"}
        for name, shape in stated.shapes.items():
            assert batch.inputs[name].shape == (3, *shape)
            assert batch.inputs[name].dtype == torch.float32
        assert batch.target.tolist() == [found.train.labels[sample] for sample in (5, 0, 2)]

    def test_at_evaluation_the_middle_frame_is_resized(self, ready):
        found, content = cremad(root=ready), opened(ready, "cremad")
        row = content.rows[content.ids.index(found.test.ids[1])]
        store = content.frames["video"]
        wanted = _frames.standardised([_frames.resized(store.frame(row, store.count(row) // 2))])
        assert torch.equal(found.test[[1]].inputs["video"][0], wanted)

    def test_training_draws_depend_on_seed_epoch_and_sample_alone(self, ready):
        train = cremad(root=ready).train
        first = in_epoch(train, seed=3, epoch=5)[[4, 7]].inputs["video"]
        torch.manual_seed(99)
        np.random.seed(99)  # noqa: NPY002 - global state must not matter
        assert torch.equal(in_epoch(train, seed=3, epoch=5)[[7, 4]].inputs["video"].flip(0), first)
        for seed, epoch in ((3, 6), (4, 5)):
            assert not torch.equal(in_epoch(train, seed=seed, epoch=epoch)[[4, 7]].inputs["video"], first)
        assert not torch.equal(train[[4, 7]].inputs["video"], first)
        assert torch.equal(in_epoch(train, seed=3, epoch=5)[[4]].inputs["audio"], train[[4]].inputs["audio"])

    def test_all_frames_of_a_clip_get_one_crop(self, ready):
        train = cremad(root=ready, frames=2).train
        store = train.prepared.frames["video"]
        for sample in range(6):
            row = train.prepared.rows[train.places[sample]]
            if store.count(row) == 1:  # the one frame twice
                video = in_epoch(train, seed=0, epoch=1)[[sample]].inputs["video"][0]
                assert torch.equal(video[:, 0], video[:, 1])

    def test_random_frames_differ_from_epoch_to_epoch(self, release, tmp_path):
        out = str(prepare(str(release), str(tmp_path / "out"), fps=10, workers=1))
        picked = {
            choice: [_picked(in_epoch(cremad(root=out, choice=choice).train, seed=0, epoch=e), 0) for e in range(6)]
            for choice in ("even", "random")
        }
        assert len(set(picked["even"])) == 1
        assert len(set(picked["random"])) > 1

    def test_the_loop_may_read_them_ahead(self, ready):
        assert cremad(root=ready).train.reads_ahead

    def test_the_data_folder_of_the_environment_is_looked_into(self, ready, monkeypatch):
        monkeypatch.setenv("MSAM_DATA", str(Path(ready).parent))
        assert data.load("cremad")().fingerprint == cremad(root=ready).fingerprint


def _picked(split, sample):
    """Return the numbers of the stored frames that a sample is made of."""
    seen, original = [], FrameStore.frame
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrameStore, "frame", lambda self, row, number: seen.append(number) or original(self, row, number))
        split[[sample]]
    return tuple(seen)


class TestRefusals:
    def test_the_release_itself(self, release):
        with pytest.raises(ValueError, match=rf"msam data prepare cremad --root {release} --out DIR"):
            cremad(root=str(release))

    def test_another_spectrogram_than_was_prepared(self, ready):
        with pytest.raises(ValueError, match=r"`spectrogram` must be '257x299', which .* received '257x188'"):
            cremad(root=ready, spectrogram="257x188")

    def test_wrong_words_and_numbers(self, ready):
        for options, words in (
            ({"split": "speakers"}, "Did you mean 'speaker'"),
            ({"frames": 0}, "`frames` must be >= 1"),
            ({"seed": -1}, "`seed` must be >= 0"),
            ({"choice": "randomly"}, "Did you mean 'random'"),
        ):
            with pytest.raises(ValueError, match=words):
                cremad(root=ready, **options)


class TestChecking:
    def test_a_whole_release(self, release):
        found = check(str(release))
        assert found.sound
        assert "72 of 72 clips" in found.findings[-1].text
        assert {name: sum(split.values()) for name, split in found.splits.items()} == {"train": 61, "test": 11}
        assert found.batch.inputs["video"].shape == (6, 3, 1, 224, 224)
        assert sorted(found.batch.target.tolist()) == list(range(6))

    def test_a_release_with_gaps(self, three):
        (three / "AudioWAV" / f"{FEW[0]}.wav").unlink()
        (three / "VideoFlash" / f"{FEW[1]}.flv").write_bytes(b"no video")
        found = check(str(three))
        kinds = {finding.kind: finding.text for finding in found.findings}
        assert FEW[0] in kinds["missing"]
        assert FEW[1] in kinds["broken"]
        assert not found.sound

    def test_a_prepared_folder(self, ready):
        found = check(ready)
        assert found.sound
        assert found.fingerprint == cremad(root=ready).fingerprint
        assert list(found.splits) == ["train", "valid", "test"]

    def test_a_damaged_prepared_folder(self, ready, tmp_path):
        broken = shutil.copytree(ready, tmp_path / "broken")
        content = bytearray((broken / "audio.npy").read_bytes())
        content[-1] ^= 1
        (broken / "audio.npy").write_bytes(content)
        found = check(str(broken))
        assert not found.sound
        assert f"audio of {sorted(FEW)[-1]} has changed" in found.findings[0].text
        (broken / "audio.npy").write_bytes(content[:-1])
        assert "must have" in check(str(broken)).findings[0].text


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_each_modality_alone_beats_chance_on_clips_of_other_actors(ready, tmp_path, modality):
    settings = config(
        data={"name": "tests.data.small_cremad", "root": ready},
        method={"name": "unimodal", "modality": modality},
        optimizer={"name": "sgd", "lr": 0.05},
        epochs=12,
        batch_size=16,
        threads=1,
    )
    found = train(settings, tmp_path / "run").epochs[-1]
    heard = len(cremad(root=ready, split="speaker").test)
    right = round(found["test"]["accuracy"] * heard)
    assert scipy.stats.binomtest(right, heard, 1 / 6, alternative="greater").pvalue < 0.01


def test_the_miniature_is_the_same_every_time(release, tmp_path):
    again = fixture.write_release(tmp_path / "again", FEW[:2])
    for clip in FEW[:2]:
        for name in (f"AudioWAV/{clip}.wav", f"VideoFlash/{clip}.flv"):
            assert (again / name).read_bytes() == (release / name).read_bytes()
