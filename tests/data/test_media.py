"""Sound, frames and pictures as a specification: what comes out of real files, and what is said of broken ones."""

import os
import shutil
import subprocess

import numpy as np
import pytest
import soundfile

from msam.data import _media
from msam.data._media import frames, picture, probe, read_audio
from tests.fixtures._codecs import write_picture, write_video, write_wav

KINDS = [".flv", ".mp4"]


def tone(rate, seconds=1.0, pitch=440):
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate)


def pitch_of(sound, rate):
    return float(np.argmax(np.abs(np.fft.rfft(sound * np.hanning(len(sound))))) * rate / len(sound))


def moving(count, height=48, width=64):
    """Return frames whose grey says their number."""
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [np.stack([(x + n) % 256, (y * 2) % 256, np.full_like(x, 3 * n)], -1) for n in range(count)]
    ).astype(np.uint8)


@pytest.fixture(scope="module", params=KINDS)
def video(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / f"clip{request.param}"
    return write_video(path, moving(75), 30, tone(44100, 2.5))


@pytest.fixture(scope="module")
def ffmpeg():
    """Return a function that runs Debian's ffmpeg, a decoder that is not ours."""
    program = shutil.which("ffmpeg")
    if program is None:
        if os.environ.get("MSAM_REQUIRE_FFMPEG") == "1":
            pytest.fail("MSAM_REQUIRE_FFMPEG=1 and there is no ffmpeg")
        pytest.skip("there is no ffmpeg program here")

    def run(*arguments):
        command = [program, "-v", "error", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, check=True).stdout

    return run


class TestSound:
    @pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT"])
    def test_samples_at_their_own_rate_come_as_they_are(self, tmp_path, subtype):
        path = write_wav(tmp_path / "a.wav", tone(16000), 16000, subtype)
        found = read_audio(path, 16000)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, tone(16000), rtol=0, atol=2**-15)

    def test_channels_are_averaged(self, tmp_path):
        left, right = tone(16000), np.zeros(16000)
        path = write_wav(tmp_path / "a.wav", np.stack([left, right], 1), 16000, "PCM_24")
        np.testing.assert_allclose(read_audio(path, 16000), left / 2, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
    def test_other_rates_are_converted(self, tmp_path, rate):
        path = write_wav(tmp_path / "a.wav", tone(rate), rate)
        found = read_audio(path, 16000)
        assert len(found) == 16000
        np.testing.assert_allclose(found[500:-500], tone(16000)[500:-500], rtol=0, atol=5e-3)

    def test_what_is_above_half_the_new_rate_is_gone(self, tmp_path):
        path = write_wav(tmp_path / "a.wav", tone(44100, pitch=15000), 44100)
        assert np.abs(read_audio(path, 16000)[100:-100]).max() < 0.01

    def test_it_stays_within_one(self, tmp_path):
        path = write_wav(tmp_path / "a.wav", 3 * tone(16000), 16000, "FLOAT")
        found = read_audio(path, 22050)
        assert np.abs(found).max() == 1

    def test_it_comes_from_any_container(self, video):
        found = read_audio(video, 16000)
        assert abs(len(found) - 40000) < 3000  # codecs add silence before and after
        assert pitch_of(found[8000:32000], 16000) == pytest.approx(440, abs=2)

    def test_reading_is_repeatable(self, video):
        np.testing.assert_array_equal(read_audio(video, 22050), read_audio(video, 22050))


class TestFrames:
    @pytest.mark.parametrize(
        ("fps", "wanted"),
        [
            (1, [0, 30, 60]),
            (2, [0, 15, 30, 45, 60]),
            (3, [0, 10, 20, 30, 40, 50, 60, 70]),
            (7, [0, 4, 8, 12, 16, 20, 24, 30, 34, 38, 42, 46, 50, 54, 60, 64, 68, 72]),
            (30, list(range(75))),
        ],
    )
    def test_every_so_many_frames_within_each_second_are_kept(self, video, fps, wanted):
        assert [number for number, _ in frames(video, fps)] == wanted

    def test_the_rate_is_cut_to_a_whole_number(self, tmp_path):
        path = write_video(tmp_path / "ntsc.mp4", moving(60), fps=(30000, 1001))
        assert [number for number, _ in frames(path, 1)] == [0, 29, 58]

    @pytest.mark.parametrize(
        ("span", "fps", "least", "wanted"),
        [
            ((0, 9), 1, 1, [0, 30, 60]),
            ((0.5, 2), 1, 1, [15, 45]),
            ((1, 2), 2, 1, [30, 45]),
            ((1, 2), 1, 5, [30, 36, 42, 48, 54]),
            ((1, 1.5), 1, 5, [30, 33, 36, 39, 42]),
            ((2, 2.2), 1, 99, [60, 61, 62, 63, 64, 65]),
        ],
    )
    def test_of_a_span_as_if_it_were_a_video_of_its_own(self, video, span, fps, least, wanted):
        assert [number for number, _ in frames(video, fps, span, least)] == wanted

    def test_a_span_behind_the_end(self, video):
        with pytest.raises(ValueError, match=r"must hold video from 3 to 4 s, found 2\.\d+ s of it"):
            list(frames(video, 1, (3, 4)))

    def test_they_are_the_pictures_that_went_in(self, video):
        source = moving(75)
        for number, found in frames(video, 3):
            assert (found.shape, found.dtype) == ((48, 64, 3), np.uint8)
            assert np.abs(found.astype(int) - source[number]).mean() < 12
            assert found[..., 2].mean() == pytest.approx(3 * number, abs=6)

    @pytest.mark.ffmpeg
    def test_they_are_what_ffmpeg_decodes(self, video, ffmpeg):
        raw = ffmpeg("-i", video, "-f", "rawvideo", "-pix_fmt", "rgb24", "-vsync", "0", "-")
        wanted = np.frombuffer(raw, np.uint8).reshape(-1, 48, 64, 3)
        assert len(wanted) == 75
        for number, found in frames(video, 10):
            difference = np.abs(found.astype(int) - wanted[number])
            assert difference.max() <= 4
            assert difference.mean() < 0.5

    @pytest.mark.ffmpeg
    @pytest.mark.parametrize("turn", [90, 180, 270])
    def test_a_video_that_says_it_was_turned_is_upright_as_ffmpegs(self, tmp_path, ffmpeg, turn):
        path, turned = write_video(tmp_path / "a.mp4", moving(3)), tmp_path / "turned.mp4"
        ffmpeg("-i", path, "-c", "copy", "-metadata:s:v", f"rotate={turn}", turned)
        (_, found), *_ = frames(turned, 30)
        raw = ffmpeg("-i", turned, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
        assert found.shape == ((48, 64, 3) if turn == 180 else (64, 48, 3))
        assert np.abs(found.astype(int) - np.frombuffer(raw, np.uint8).reshape(found.shape)).max() <= 4

    def test_pictures_are_read_as_written(self, tmp_path):
        source = moving(1)[0]
        found = picture(write_picture(tmp_path / "a.jpg", source))
        assert (found.shape, found.dtype) == ((48, 64, 3), np.uint8)
        assert np.abs(found.astype(int) - source).mean() < 8


class TestBrokenFiles:
    """Every error is a ValueError that names the file."""

    def test_there_is_none(self, tmp_path):
        for read in (lambda p: read_audio(p, 16000), lambda p: list(frames(p, 1)), picture, probe):
            with pytest.raises(ValueError, match=r"A file must be at .*gone.mp4, found none"):
                read(tmp_path / "gone.mp4")
            with pytest.raises(ValueError, match="found a folder"):
                read(tmp_path)

    @pytest.mark.parametrize("kind", [".wav", ".flv", ".mp4"])
    def test_it_is_something_else(self, tmp_path, kind):
        path = tmp_path / f"a{kind}"
        path.write_bytes(b"this is no media file" * 50)
        for read in (lambda p: read_audio(p, 16000), lambda p: list(frames(p, 1)), picture, probe):
            with pytest.raises(ValueError, match=rf"a\{kind}.*(cannot be decoded|broken)"):
                read(path)

    def test_it_is_no_picture(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(b"this is no picture" * 50)
        for read in (picture, probe):
            with pytest.raises(ValueError, match=r"a\.jpg cannot be decoded"):
                read(tmp_path / "a.jpg")

    def test_it_was_not_fetched_by_git_lfs(self, tmp_path):
        text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
        for name, read in (
            ("a.wav", lambda p: read_audio(p, 16000)),
            ("a.flv", lambda p: list(frames(p, 1))),
            ("b.wav", probe),
        ):
            (tmp_path / name).write_text(text)
            with pytest.raises(ValueError, match=r"is a pointer of Git LFS .*git lfs pull"):
                read(tmp_path / name)

    def test_it_is_empty(self, tmp_path):
        for name in ("a.wav", "a.flv", "a.jpg"):
            (tmp_path / name).write_bytes(b"")
            with pytest.raises(ValueError, match=name):
                probe(tmp_path / name)

    def test_sound_of_no_samples(self, tmp_path):
        path = write_wav(tmp_path / "a.wav", np.empty(0), 16000)
        with pytest.raises(ValueError, match=r"a\.wav must hold sound, found an audio stream of no samples"):
            read_audio(path, 16000)

    def test_sound_that_is_no_number(self, tmp_path):
        path = write_wav(tmp_path / "a.wav", np.array([0, np.nan, 1]), 16000, "FLOAT")
        with pytest.raises(ValueError, match=r"a\.wav must hold finite samples"):
            read_audio(path, 16000)

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
    def test_a_truncated_wav(self, tmp_path, share):
        path = write_wav(tmp_path / "a.wav", tone(16000), 16000)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        for read in (lambda p: read_audio(p, 16000), probe):
            with pytest.raises(ValueError, match=r"a\.wav is truncated: its header says 32000 bytes"):
                read(path)

    def test_a_wav_written_into_a_pipe_does_not_know_its_length(self, tmp_path):
        path = write_wav(tmp_path / "a.wav", tone(16000), 16000)
        data = bytearray(path.read_bytes())
        place = data.index(b"data") + 4
        data[place : place + 4] = b"\xff\xff\xff\xff"
        path.write_bytes(data)
        assert len(read_audio(path, 16000)) == 16000

    @pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
    def test_a_truncated_video(self, tmp_path, video, share):
        path = tmp_path / f"cut{video.suffix}"
        whole = video.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=rf"cut\{video.suffix}.*truncated"):
            list(frames(path, 1))

    def test_a_video_with_noise_in_it(self, tmp_path, video):
        data = bytearray(video.read_bytes())
        for place in np.random.default_rng(0).integers(1000, len(data), len(data) // 40):
            data[place] ^= 0xFF
        path = tmp_path / f"noise{video.suffix}"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"noise\{video.suffix}"):
            list(frames(path, 1))

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_stream_that_is_not_there(self, tmp_path, kind):
        silent = write_video(tmp_path / f"silent{kind}", moving(30))
        assert len(list(frames(silent, 1))) == 1
        with pytest.raises(ValueError, match=rf"silent\{kind} must hold sound, found video only"):
            read_audio(silent, 16000)
        blind = write_video(tmp_path / f"blind{kind}", None, sound=tone(44100))
        assert len(read_audio(blind, 16000)) > 15000
        with pytest.raises(ValueError, match=rf"blind\{kind} must hold video, found audio only"):
            list(frames(blind, 1))

    def test_more_frames_than_there_are(self, video):
        with pytest.raises(ValueError, match=r"`fps` must be <= 30, the rate of .*, received 31"):
            list(frames(video, 31))
        with pytest.raises(ValueError, match="`fps` must be >= 1, received 0"):
            list(frames(video, 0))


def test_probing_lets_whole_files_through(video, tmp_path):
    probe(video)
    probe(write_wav(tmp_path / "a.wav", tone(16000), 16000))
    probe(write_picture(tmp_path / "a.jpg", moving(1)[0]))


def test_any_sound_file_of_the_plain_kinds(tmp_path):
    for kind in _media.PLAIN:
        soundfile.write(tmp_path / f"a{kind}", tone(16000), 16000)
        assert pitch_of(read_audio(tmp_path / f"a{kind}", 16000), 16000) == pytest.approx(440, abs=2)
