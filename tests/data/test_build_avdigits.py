"""The builder of AV-digits: its pure parts always, the synthesizers where they are installed."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from msam import data

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
builder = pytest.importorskip("build_avdigits", reason="the builder needs msam[build-avdigits]")
sound = builder.sound
Voice = builder.Voice

absent = [program for program in builder.PROGRAMS if shutil.which(program) is None]
with_engines = pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}")


class TestMelPatches:
    def test_filters_are_triangles_that_cover_80_to_7200_hertz(self):
        filters = sound.mel_filters()
        hertz = np.fft.rfftfreq(sound.WINDOW, 1 / sound.RATE)
        assert filters.shape == (32, 257)
        assert (filters >= 0).all()
        assert (filters.max(axis=1) > 0.2).all()
        assert (filters[:, (hertz <= 80) | (hertz >= 7200)] == 0).all()
        assert (np.diff(filters.argmax(axis=1)) >= 0).all()

    @pytest.mark.parametrize("hertz", [300, 1000, 4000])
    def test_a_tone_is_loudest_in_its_band(self, hertz):
        tone = np.sin(2 * np.pi * hertz * np.arange(sound.SAMPLES) / sound.RATE)
        bands = sound.patch(tone).argmax(axis=0)
        edges = 2595 * np.log10(1 + np.array([80, hertz, 7200]) / 700)
        assert bands == pytest.approx(np.full(32, 33 * (edges[1] - edges[0]) / (edges[2] - edges[0]) - 1), abs=1)

    def test_a_level_is_a_quarter_of_a_decibel_and_loudness_does_not_matter(self):
        wave = np.random.default_rng(0).standard_normal(sound.SAMPLES)
        wave[sound.SAMPLES // 2 + sound.WINDOW :] *= 0.1  # 20 dB, 80 levels
        patch = sound.patch(wave).astype(int)
        assert patch.max() == 255
        assert patch[:, :15].mean() - patch[:, 18:].mean() == pytest.approx(80, abs=4)
        assert (sound.patch(1e-3 * wave) == patch).all()

    @pytest.mark.parametrize("length", [1, 400, sound.SAMPLES, sound.SAMPLES + 1, 20_000])
    def test_words_of_any_length_are_centred(self, length):
        wave = sound.centred(np.concatenate([np.zeros(700), np.ones(length), np.zeros(90)]))
        assert len(wave) == sound.SAMPLES
        assert wave.sum() == min(length, sound.SAMPLES)
        assert abs(np.flatnonzero(wave).mean() - (sound.SAMPLES - 1) / 2) <= 0.5


class TestNoise:
    @pytest.mark.parametrize("kind", sound.NOISES)
    def test_a_patch_depends_on_kind_number_and_seed_alone(self, kind):
        patch = sound.noise(kind, 3, seed=1)
        assert patch.shape == (32, 32)
        assert patch.max() == 255
        assert (patch == sound.noise(kind, 3, seed=1)).all()
        assert (patch != sound.noise(kind, 4, seed=1)).any()
        assert (patch != sound.noise(kind, 3, seed=2)).any()


class TestKinship:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (Voice("espeak-ng", "robosoft"), Voice("espeak-ng", "robosoft8")),
            (Voice("espeak-ng", "f5"), Voice("espeak", "f1")),
            (Voice("espeak-ng", "Andy"), Voice("espeak-ng", "AnxiousAndy")),
            (Voice("flite", "kal16"), Voice("festival", "kal_diphone")),
            (Voice("flite", "slt"), Voice("festival", "cmu_us_slt_arctic_hts")),
        ],
    )
    def test_kin_share_a_group(self, one, other):
        assert one.group == other.group

    def test_kin_share_a_split_and_every_voice_has_one(self):
        known = [Voice("espeak-ng", f"{stem}{number}") for stem in "abcdefgh" for number in range(5)]
        known += [Voice("flite", name) for name in ("awb", "kal16", "rms", "slt")] + [Voice("festival", "kal_diphone")]
        split = builder.split_voices(known)
        assert set(split) == set(known)
        assert all(split[one] == split[other] for one in known for other in known if one.group == other.group)

    def test_splits_come_near_the_targets_and_each_has_a_recorded_human(self):
        known = [Voice("espeak-ng", f"voice-{letter}") for letter in "abcdefghij"]
        known += [Voice("flite", name) for name in ("awb", "kal16", "rms", "slt")]
        split = builder.split_voices(known, targets=(5, 2, 3))
        assert np.bincount([split[v] for v in known if not v.recorded]).tolist() == [5, 2, 3]
        assert {split[v] for v in known if v.recorded} == {0, 1, 2}

    def test_the_order_of_the_listing_does_not_matter(self):
        known = [Voice("espeak-ng", name) for name in "abcdefghij"]
        assert builder.split_voices(known) == builder.split_voices(known[::-1])


class TestTheFile:
    def test_differences_name_the_arrays(self):
        one, other = {"a": np.zeros(2), "b": np.zeros(2)}, {"a": np.ones(2), "c": np.zeros(2)}
        assert builder.differences(one, one) == []
        assert builder.differences(one, other) == ["b is on one side only", "c is on one side only", "a differs"]

    def test_equal_content_gives_equal_bytes_and_nothing_else_is_left(self, tmp_path):
        content = {"a": np.arange(5), "b": np.array("text")}
        builder.write(content, tmp_path / "one.npz")
        builder.write(content, tmp_path / "two.npz")
        assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["one.npz", "two.npz"]

    def test_missing_synthesizers_are_named_with_the_way_to_get_them(self, monkeypatch, tmp_path):
        monkeypatch.setattr(builder.shutil, "which", lambda program: None)
        with pytest.raises(SystemExit, match=r"Not installed: espeak-ng, .* Try: apt-get install espeak-ng espeak"):
            builder.main(out=tmp_path / "out.npz")


@with_engines
class TestWithSynthesizers:
    @pytest.mark.parametrize(
        "voice",
        [
            Voice("espeak-ng", "Mr serious"),
            Voice("espeak", "croak"),
            Voice("flite", "rms"),
            Voice("festival", "ked_diphone"),
            Voice("festival", "cmu_us_slt_arctic_hts"),
        ],
        ids=lambda voice: f"{voice.engine}:{voice.name}",
    )
    def test_a_clip_depends_on_voice_digit_and_take_alone(self, voice):
        clip = builder.speak(voice, 7, 0)
        assert (clip == builder.speak(voice, 7, 0)).all()
        assert (clip != builder.speak(voice, 7, 1)).any()
        assert 255 * 0.05 < clip.mean() < 255 * 0.95

    def test_the_listing_has_every_engine_and_no_empty_name(self):
        known = builder.voices()
        assert {voice.engine for voice in known} == set(builder.TAKES)
        assert all(voice.name.strip() == voice.name != "" for voice in known)
        assert len(set(known)) == len(known)

    def test_a_mini_edition_builds_and_loads(self, monkeypatch, tmp_path):
        monkeypatch.setattr(builder, "TAKES", dict.fromkeys(builder.TAKES, 1))
        known = [Voice("flite", name) for name in ("awb", "kal16", "rms", "slt")]
        builder.write(builder.build(known, workers=1), tmp_path / "mini.npz")
        mini = data.load("avdigits")(file=str(tmp_path / "mini.npz"), train_size=20, valid_size=10, test_size=10)
        assert len(mini.train) == 20
        assert mini.train.target.unique().tolist() == list(range(10))
