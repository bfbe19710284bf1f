"""AV-digits as a specification: what is in the file, what loading does, what is refused."""

# ruff: noqa: NPY002, PT017  (global random state is what is tested; a damaged bit may be harmless)

import hashlib
import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from msam import data
from msam.data import _patches

avdigits_module = importlib.import_module("msam.data.avdigits")
avdigits = data.load("avdigits")
SMALL = {"train_size": 40, "valid_size": 20, "test_size": 20}
SPLITS = range(3)


@pytest.fixture(scope="module")
def content():
    return avdigits_module.read(avdigits_module.FILE, avdigits_module.SHA256)


@pytest.fixture(scope="module")
def digits():
    return avdigits()


@pytest.fixture
def saved(content, tmp_path):
    """Write the content with some arrays changed, and return the path."""

    def save(**changes):
        path = tmp_path / "changed.npz"
        arrays = {name: value for name, value in {**content, **changes}.items() if value is not None}
        np.savez(path, **arrays)
        return str(path)

    return save


def same(one, other):
    return one.fingerprint == other.fingerprint


def rows(array):
    return {row.tobytes() for row in array}


class TestTheFile:
    def test_the_card_the_module_and_the_file_name_one_checksum(self):
        card = (Path(__file__).parents[2] / "docs/data/avdigits.md").read_text()
        found = hashlib.sha256(avdigits_module.FILE.read_bytes()).hexdigest()
        assert re.search(r"sha256 \| `([0-9a-f]{64})`", card)[1] == found == avdigits_module.SHA256

    def test_it_is_small(self):
        assert avdigits_module.FILE.stat().st_size < 3e6

    def test_every_class_is_spoken_equally_often_in_each_split(self, content):
        split = content["voice_split"][content["speech_voice"]]
        assert [np.bincount(content["speech_label"][split == s]).tolist() for s in SPLITS] == [
            [192] * 10,
            [69] * 10,
            [102] * 10,
        ]

    def test_images_are_split_by_form(self, content):
        split = content["block_split"][content["image_block"]]
        assert np.bincount(content["block_split"]).tolist() == [9, 2, 3]
        assert np.bincount(split).tolist() == [1157, 258, 382]
        assert (np.diff(content["image_block"].astype(int)) >= 0).all()

    def test_voices_are_split_by_kin(self, content):
        assert np.bincount(content["voice_split"]).tolist() == [60, 22, 32]
        groups = [set(content["voice_group"][content["voice_split"] == s]) for s in SPLITS]
        assert not groups[0] & groups[1]
        assert not groups[0] & groups[2]
        assert not groups[1] & groups[2]

    @pytest.mark.parametrize("what", ["speech", "noise", "image"])
    def test_no_patch_occurs_in_two_splits(self, content, what):
        split = avdigits_module._split_of(content, what)
        patches = [rows(content[what][split == s]) for s in SPLITS]
        assert sum(map(len, patches)) == len(set.union(*patches))

    def test_every_kind_of_noise_is_in_every_split(self, content):
        kinds = [set(content["noise_kind"][content["noise_split"] == s]) for s in SPLITS]
        assert len(kinds[0]) == 6
        assert kinds[0] == kinds[1] == kinds[2]


class TestLoading:
    def test_the_sizes_are_those_asked_for(self, digits):
        assert [len(part) for part in (digits.train, digits.valid, digits.test)] == [1500, 600, 1500]
        assert digits.modalities == ("audio", "image")
        batch = digits.train[[3, 1]]
        assert batch.inputs["audio"].shape == (2, 1, 32, 32)
        assert batch.inputs["image"].shape == (2, 1, 8, 8)
        assert {value.dtype for value in batch.inputs.values()} == {torch.float32}
        assert batch.target.dtype == torch.int64

    def test_labels_are_balanced(self, digits):
        assert digits.train.target.bincount().tolist() == [150] * 10
        odd = avdigits(**{**SMALL, "train_size": 47}).train.target.bincount()
        assert odd.max() - odd.min() == 1

    def test_each_modality_of_train_has_mean_0_and_deviation_1(self, digits):
        for value in digits.train.inputs.values():
            assert value.mean().item() == pytest.approx(0, abs=1e-4)
            assert value.std(correction=0).item() == pytest.approx(1, abs=1e-4)

    def test_clip_image_and_noise_of_a_pair_belong_to_its_split_and_class(self, content):
        for split in SPLITS:
            draw = avdigits_module._draw(content, split, 600, seed=3)
            for what, chosen in (("speech", draw.clip), ("image", draw.image), ("noise", draw.noise)):
                assert (avdigits_module._split_of(content, what)[chosen] == split).all()
            assert (content["speech_label"][draw.clip] == draw.label).all()
            assert (content["image_label"][draw.image] == draw.label).all()

    def test_no_pair_comes_twice(self, content):
        draw = avdigits_module._draw(content, 1, 5000, seed=0)
        assert len(set(zip(draw.clip.tolist(), draw.image.tolist(), strict=True))) == 5000

    def test_equal_seeds_give_equal_data_and_others_do_not(self):
        assert same(avdigits(**SMALL), avdigits(**SMALL))
        assert not same(avdigits(**SMALL), avdigits(seed=1, **SMALL))

    def test_global_random_state_is_neither_read_nor_moved(self):
        torch.manual_seed(1)
        np.random.seed(1)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()
        first = avdigits(**SMALL)
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == np.random.get_state()[1].tolist()
        torch.manual_seed(2)
        np.random.seed(2)
        assert same(first, avdigits(**SMALL))

    @pytest.mark.parametrize(
        ("knob", "moves"), [({"keep": 0.7}, "image"), ({"snr_high": 20.0}, "audio"), ({"roll": 0}, "audio")]
    )
    def test_a_knob_moves_one_modality_and_no_label(self, knob, moves):
        plain, turned = avdigits(**SMALL), avdigits(**knob, **SMALL)
        assert torch.equal(plain.test.target, turned.test.target)
        for name, value in plain.test.inputs.items():
            assert torch.equal(value, turned.test.inputs[name]) == (name != moves)

    def test_the_size_of_a_split_moves_no_pair_of_another(self):
        plain, longer = avdigits(**SMALL), avdigits(**{**SMALL, "valid_size": 50})
        for name, value in plain.test.inputs.items():
            assert torch.equal(value, longer.test.inputs[name])

    def test_keep_1_gives_the_images_of_the_split_back(self, content):
        loaded = avdigits(keep=1.0, **SMALL)
        train, test = loaded.train.inputs["image"], loaded.test.inputs["image"]
        low, high = train.min(), train.max()  # 0 and 16 before standardising
        levels = (test - low) / (high - low) * 16
        assert torch.allclose(levels, levels.round(), atol=5e-3)
        originals = rows(content["image"][avdigits_module._split_of(content, "image") == 2])
        assert rows(levels.round().to(torch.uint8).numpy()) <= originals

    def test_without_noise_and_shift_the_clips_come_through(self, content):
        clear = avdigits(snr_low=100.0, snr_high=100.0, roll=0, **SMALL).test.inputs["audio"].flatten(1)
        draw = avdigits_module._draw(content, 2, 20, seed=0)
        clean = torch.from_numpy(content["speech"][draw.clip].reshape(20, -1).astype("float32"))
        assert torch.corrcoef(torch.stack([clear.flatten(), clean.flatten()]))[0, 1] > 0.9999

    def test_facts_name_the_voices_and_the_components(self, digits):
        assert digits.facts["voices_train"] == 60
        assert 3 < digits.facts["image_components"] < 4

    def test_another_file_gives_the_same_when_its_content_is_the_same(self, saved):
        assert same(avdigits(file=saved(), **SMALL), avdigits(**SMALL))


class TestArithmetic:
    @pytest.mark.parametrize("snr", [-5.0, 0.0, 12.5])
    def test_the_mixture_has_the_snr_asked_for(self, content, snr):
        step, offset = content["decibel"]
        speech, noise = (content[what][:50] * step + offset for what in ("speech", "noise"))
        power = 10 ** (speech / 10)
        added = 10 ** (_patches.mix(speech, noise, np.full(50, snr)) / 10) - power
        assert 10 * np.log10(power.sum(axis=(1, 2)) / added.sum(axis=(1, 2))) == pytest.approx(np.full(50, snr))

    def test_the_level_of_the_noise_patch_does_not_matter(self):
        speech, noise = np.random.default_rng(0).uniform(-60, 0, (2, 3, 4, 4))
        assert _patches.mix(speech, noise, 2.0) == pytest.approx(_patches.mix(speech, noise - 30, 2.0))

    def test_roll_0_changes_nothing_and_a_roll_can_be_undone(self):
        patches = np.random.default_rng(0).normal(size=(5, 4, 8))
        shifts = np.array([-2, -1, 0, 1, 2])
        assert (_patches.roll_time(patches, 0 * shifts) == patches).all()
        assert (_patches.roll_time(_patches.roll_time(patches, shifts), -shifts) == patches).all()
        assert (_patches.roll_time(patches, shifts)[4] == np.roll(patches[4], 2, axis=1)).all()

    def test_the_energy_kept_rises_with_keep_and_never_exceeds_it(self, content):
        images = avdigits_module._flat(content["image"])
        shares = np.array([0.1, 0.25, 0.4, 0.6, 0.9, 1.0])
        kept = [_patches.cut(images, *_patches.energy_cut(images, share)).var(axis=0).sum() for share in shares]
        kept = np.array(kept) / images.var(axis=0).sum()
        assert (np.diff(kept) > 0).all()
        assert (kept <= shares + 1e-9).all()
        assert kept[-1] == pytest.approx(1)

    def test_keep_1_spares_what_the_reference_never_shows(self):
        reference, other = np.eye(3)[:2] * 5, np.array([[1.0, 2.0, 3.0]])
        assert _patches.cut(other, *_patches.energy_cut(reference, 1.0)) == pytest.approx(other)

    @pytest.mark.parametrize(("clips", "images"), [(1, 1), (4, 6), (5, 3), (6, 6)])
    def test_pairs_run_through_every_combination_once_and_evenly(self, clips, images):
        everything = _patches.pairs(np.arange(clips), np.arange(images), clips * images, np.random.default_rng(0))
        assert len(set(zip(*(side.tolist() for side in everything), strict=True))) == clips * images
        some = _patches.pairs(np.arange(clips), np.arange(images), min(clips, images), np.random.default_rng(0))
        assert all(len(set(side.tolist())) == min(clips, images) for side in some)


class TestErrors:
    @pytest.mark.parametrize(
        ("knob", "message"),
        [
            ({"seed": -1}, "`seed` must be >= 0, received -1."),
            ({"keep": 0.0}, "`keep` must be > 0 and <= 1, received 0.0."),
            ({"keep": 1.5}, "`keep` must be > 0 and <= 1, received 1.5."),
            ({"keep": float("nan")}, "`keep` must be > 0 and <= 1, received nan."),
            ({"snr_low": float("-inf")}, "`snr_low` must be >= -100 and <= 100, received -inf."),
            ({"snr_low": 6.0}, "`snr_low` must be <= `snr_high`, received 6.0 and 5.0."),
            ({"roll": 9}, "`roll` must be >= 0 and <= 8, received 9."),
            ({"train_size": 9}, "`train_size` must be >= 10, received 9."),
            ({"valid_size": 10**6}, r"`valid_size` must be <= \d+, received 1000000: 69 clips and 2\d images of"),
        ],
    )
    def test_a_knob_out_of_its_range(self, knob, message):
        with pytest.raises(ValueError, match=message):
            avdigits(**knob)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ValueError, match=r"found none at .*nowhere\.npz\. Reinstall msam, or build it"):
            avdigits(file=str(tmp_path / "nowhere.npz"))

    def test_one_flipped_bit_of_the_shipped_file_is_noticed(self, tmp_path, monkeypatch):
        damaged = bytearray(avdigits_module.FILE.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        (tmp_path / "avdigits.npz").write_bytes(damaged)
        monkeypatch.setattr(avdigits_module, "FILE", tmp_path / "avdigits.npz")
        with pytest.raises(ValueError, match="is damaged: its sha256 must be"):
            avdigits()

    @pytest.mark.parametrize("size", [0, 10, 100_000, 2_000_000])
    def test_a_truncated_file_is_damaged(self, tmp_path, size):
        (tmp_path / "short.npz").write_bytes(avdigits_module.FILE.read_bytes()[:size])
        with pytest.raises(ValueError, match=r"short\.npz is damaged or no AV-digits file"):
            avdigits(file=str(tmp_path / "short.npz"))

    def test_a_damaged_file_of_ones_own_gives_its_content_or_this_error(self, content, tmp_path):
        tiny = {name: value[:3] if value.ndim else value for name, value in content.items()}
        np.savez_compressed(tmp_path / "tiny.npz", **tiny)
        sound, rng = (tmp_path / "tiny.npz").read_bytes(), np.random.default_rng(0)
        for position in rng.integers(0, len(sound), 200):
            damaged = bytearray(sound)
            damaged[position] ^= 1 << int(rng.integers(8))
            (tmp_path / "tiny.npz").write_bytes(damaged)
            try:
                avdigits_module.read(tmp_path / "tiny.npz")
            except ValueError as error:
                assert "damaged or no AV-digits file" in str(error)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"noise_split": None}, "KeyError"),
            ({"image": np.zeros((5, 9, 9), np.uint8)}, r"image must be \(n, 8, 8\) of uint8, found \(5, 9, 9\)"),
            ({"speech": np.zeros((5, 32, 32), np.float32)}, r"speech must be \(n, 32, 32\) of uint8"),
            ({"speech_label": np.zeros(5, np.uint8)}, "speech_label must be one number below 10 for each of 3630"),
            ({"voice_split": np.full(114, 3, np.uint8)}, "voice_split must be one number below 3 for each of 114"),
            ({"decibel": np.array([0.25, np.nan])}, "decibel must be a step and an offset"),
        ],
    )
    def test_content_that_does_not_fit_together(self, saved, changes, message):
        with pytest.raises(ValueError, match=message):
            avdigits(file=saved(**changes))

    def test_a_pickle_is_never_opened(self, content, tmp_path):
        path = tmp_path / "pickle.npz"
        np.savez(path, **{**content, "noise_kind": np.array([print], object)})
        with pytest.raises(ValueError, match="allow_pickle=False"):
            avdigits(file=str(path))

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ("speech_label", "Every class needs clips in every split, found none of 'nine' in train."),
            ("image_label", "Every class needs images in every split, found none of 'nine' in train."),
        ],
    )
    def test_a_class_without_clips_or_images(self, content, saved, changed, message):
        with pytest.raises(ValueError, match=message):
            avdigits(file=saved(**{changed: np.minimum(content[changed], 8)}))

    def test_a_split_without_noise(self, content, saved):
        with pytest.raises(ValueError, match=r"Every split needs noise patches, found none in test\."):
            avdigits(file=saved(noise_split=np.minimum(content["noise_split"], 1)))


def test_every_parameter_is_keyword_only_and_so_a_flag():
    kinds = {parameter.kind for parameter in inspect.signature(avdigits).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}
