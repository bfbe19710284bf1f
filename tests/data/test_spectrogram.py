"""Spectrograms as a specification: equal to scipy's for every option, of the published shapes."""

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st

from msam.data import _spectrogram
from msam.data._spectrogram import KNOWN, named, repeated

TIME = np.arange(80000) / 16000


def tone():
    return 0.5 * np.sin(2 * np.pi * 440 * TIME) + 0.1


def chirp():
    return scipy.signal.chirp(TIME, 50, 5, 7000)


def noise():
    return np.random.default_rng(0).uniform(-1, 1, len(TIME))


def click():
    sound = np.zeros(30000)
    sound[[0, 12345, -1]] = 1, -1, 1
    return sound


def silence():
    return np.zeros(20000)


GOLDEN = {
    "257x299": [-16.1179696, -13.9892820, -15.3869507, -16.1180957, -16.1180957],
    "257x188": [4.7919914, 4.0989027, -1.9319221, -14.5054054, -16.1180957],
}

SOUNDS = [tone, chirp, noise, click, silence]


def by_scipy_density(sound, definition):
    power = scipy.signal.spectrogram(repeated(sound, definition.samples), definition.rate, nperseg=512, noverlap=353)[2]
    return np.log(power + 1e-7)


def by_scipy_magnitude(sound, definition):
    """What librosa.stft computes, by scipy's transform of centred segments (librosa itself is not needed for that)."""
    mode = {"reflect": "reflect", "zeros": "constant"}[definition.pad]
    padded = np.pad(repeated(sound, definition.samples), 256, mode=mode)
    window = scipy.signal.get_window("hann", 512)
    segments = np.lib.stride_tricks.sliding_window_view(padded, 512)[::353]
    return np.log(np.abs(scipy.fft.rfft(segments * window)).T + 1e-7)


def standardised(values):
    return (values - np.mean(values)) / (np.std(values) + 1e-9)


@pytest.mark.parametrize("sound", SOUNDS, ids=lambda s: s.__name__)
@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("name", ["257x299", "257x1004"])
def test_the_papers_text_is_scipys_spectrogram(name, standardise, sound):
    definition = named(name, standardise=standardise)
    wanted = by_scipy_density(sound(), definition)
    found = definition(sound())
    np.testing.assert_allclose(found, standardised(wanted) if standardise else wanted, rtol=0, atol=1e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize("sound", SOUNDS, ids=lambda s: s.__name__)
@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("pad", ["reflect", "zeros"])
def test_the_published_code_is_a_centred_magnitude(pad, standardise, sound):
    definition = named("257x188", pad=pad, standardise=standardise)
    wanted = by_scipy_magnitude(sound(), definition)
    np.testing.assert_allclose(definition(sound()), standardised(wanted) if standardise else wanted, rtol=0, atol=1e-5)


def test_golden_values_of_a_ramp():
    """Worked out once with scipy 1.17: a change of either side is seen."""
    ramp = np.linspace(-1, 1, 48000)
    found = named("257x299")(ramp)
    assert found[[0, 1, 2, 128, 256], 100].tolist() == pytest.approx(GOLDEN["257x299"], abs=1e-5)
    found = named("257x188")(ramp)
    assert found[[0, 1, 2, 128, 256], 100].tolist() == pytest.approx(GOLDEN["257x188"], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "seconds", "rate"), [("257x299", 3, 16000), ("257x188", 3, 22050), ("257x1004", 10, 16000)]
)
def test_shapes_are_those_published(name, seconds, rate):
    definition = named(name)
    assert definition.samples == seconds * rate
    assert "x".join(map(str, definition.shape)) == name
    assert definition(np.ones(1000)).shape == definition.shape


def test_padding_changes_the_edges_alone():
    reflect, zeros = (named("257x188", pad=pad)(chirp()) for pad in ("reflect", "zeros"))
    differing = np.flatnonzero((reflect != zeros).any(0))
    assert differing.tolist() == [0, 187]


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.integers(1, 50))
def test_a_short_sound_is_repeated_and_a_long_one_cut(sound, samples):
    found = repeated(sound, samples)
    assert [found[place] for place in range(samples)] == [sound[place % len(sound)] for place in range(samples)]


def test_repeating_is_official_codes_three_times_for_clips_of_a_second_or_more():
    sound = noise()[:22050]
    np.testing.assert_array_equal(repeated(sound, 66150), np.tile(sound, 3)[:66150])


def test_the_window_is_scipys():
    for size, share in [(512, 0.25), (10, 0.5), (9, 1.0)]:
        wanted = scipy.signal.get_window(("tukey", share), size)
        np.testing.assert_allclose(_spectrogram.tukey(size, share).numpy(), wanted, rtol=0, atol=1e-12)


def test_the_result_does_not_depend_on_the_type_of_samples():
    sound = (noise() * 100).astype(np.float32)
    np.testing.assert_array_equal(named("257x299")(sound), named("257x299")(torch.from_numpy(sound)))


class TestRefusals:
    def test_unknown_names(self):
        with pytest.raises(ValueError, match=r"Unknown spectrogram '257x298'. Did you mean '257x299'\?"):
            named("257x298")
        with pytest.raises(ValueError, match=r"Unknown pad 'zero'\. Did you mean 'zeros'"):
            named("257x188", pad="zero")

    def test_padding_where_there_is_none(self):
        with pytest.raises(ValueError, match="`pad` must be 'reflect' with spectrogram 257x299"):
            named("257x299", pad="zeros")

    @pytest.mark.parametrize("sound", [[], [[1.0, 2.0]]])
    def test_what_is_no_sound(self, sound):
        with pytest.raises(ValueError, match="samples in a row, at least one"):
            KNOWN["257x299"](sound)
