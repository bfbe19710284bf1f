"""Sound, frames and pictures from files of any common kind, by PyAV and libsndfile; every error names the file."""

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msam import checks

PLAIN = (".wav", ".flac", ".aiff")
"""Endings of files that libsndfile reads; all else goes through libavformat."""

PICTURES = (".jpg", ".jpeg", ".png")

POINTER = b"version https://git-lfs.github.com/"
"""How a file begins that Git LFS has not fetched: the release of CREMA-D is kept there, and a plain clone has no more."""

CUT_SHORT = 0.8
"""A video that ends before this share of its declared length, and half a second before it, is taken to be truncated."""

ROUNDING = 1e-6
"""Seconds by which the time of a frame may be rounded."""


def read_audio(path: str | Path, rate: int) -> NDArray[np.float32]:
    """Read the first audio stream of a file as mono, `(samples,)` in [-1, 1].

    Channels are averaged; another rate is converted by `scipy.signal.resample_poly` (polyphase, Kaiser window of beta 5),
    which is the same on every machine; librosa, which published code used, has filters of its own.

    Arguments:
        path: a sound or video file.
        rate: samples a second to return.

    Raises:
        ValueError: if there is no such file, it holds no audio, no sample, or is truncated or corrupt.
    """
    path = existing(path)
    checks.in_range("rate", rate, checks.Range(ge=1))
    samples, found = _plain(path) if path.suffix.lower() in PLAIN else _from_container(path)
    if not len(samples):
        raise ValueError(f"{path} must hold sound, found an audio stream of no samples.")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path} must hold finite samples, found NaN or infinity.")
    if found != rate:
        from scipy.signal import resample_poly

        common = gcd(found, rate)
        samples = resample_poly(samples, rate // common, found // common)
    return np.clip(samples, -1, 1).astype(np.float32)


def check_rate(paths: Iterable[Path], fps: int) -> None:
    """Look whether the first video that can be opened has `fps` frames a second; what is broken is found later.

    Raises:
        ValueError: if it has fewer.
    """
    for path in paths:
        try:
            with _opened(path) as container:
                second = _rate_of(container.streams.video[0]) if container.streams.video else 0
        except (ValueError, OSError):
            continue
        if second:
            _fits(fps, second, path)
            return


def _rate_of(stream: Any) -> int:
    return int(stream.guessed_rate or stream.average_rate or 0)


def _fits(fps: int, second: int, path: str | Path) -> None:
    if fps > second:
        raise ValueError(f"`fps` must be <= {second}, the rate of {path}, received {fps}.")


def frames(
    path: str | Path, fps: int, span: tuple[float, float] | None = None, least: int = 1
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield some frames of a video, `fps` a second, with their numbers in the video: uint8 `(height, width, 3)`, RGB.

    The rule of the CREMA-D scripts of OGM-GE, in which the rate of the video is cut to a whole number: with
    `second = int(rate)` and `step = int(second / fps)`, frame `n` is kept when `n mod second` is one of
    `0, step, ..., (fps - 1) step`. One frame a second of 29.97 is every 29th. Of a span the rule is that of a video which
    begins with the span's first frame.

    Arguments:
        path: a video file.
        fps: frames kept of each second, from 1 to the rate of the video.
        span: begin and end in seconds, to take only what lies between; None: the whole video.
        least: frames to keep of a span; for a short one `fps` is raised to what gives so many, as far as the rate goes.

    Raises:
        ValueError: if there is no such file, it has no video, none in the span, `fps` is more than its rate, or it is
            truncated or corrupt.
    """
    path = existing(path)
    checks.in_range("fps", fps, checks.Range(ge=1))
    with _opened(path) as container:
        if not container.streams.video:
            raise ValueError(f"{path} must hold video, found {_streams(container)}.")
        stream = container.streams.video[0]
        second = _rate_of(stream)
        _fits(fps, second, path)
        begin, stop = span or (0.0, math.inf)
        if span:
            fps = min(second, max(fps, math.ceil(least / (stop - begin))))
        step = int(second / fps)
        number, end, origin, first = -1, 0.0, 0.0, 0 if span is None else None
        for number, frame in enumerate(_decoded(container, stream)):
            end = frame.time if frame.time is not None else number / second
            origin = end if number == 0 else origin
            if span and not begin <= end - origin + ROUNDING < stop:
                continue
            first = number if first is None else first
            place = (number - first) % second
            if place < step * fps and place % step == 0:
                yield number, _rgb(frame)
        if number < 0:
            raise ValueError(f"{path} must hold video, found no frame that can be decoded.")
        _not_cut_short(path, container, end + 1 / second)
        if first is None:
            raise ValueError(f"{path} must hold video from {begin:g} to {stop:g} s, found {end - origin:.2f} s of it.")


def picture(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture (JPEG, PNG, ...), uint8 `(height, width, 3)`, RGB.

    Raises:
        ValueError: if there is no such file or it is none.
    """
    path = existing(path)
    with _opened(path) as container:
        if not container.streams.video:
            raise ValueError(f"{path} must be a picture, found {_streams(container)}.")
        for frame in _decoded(container, container.streams.video[0]):
            return _rgb(frame)
    raise ValueError(f"{path} must be a picture, found nothing that can be decoded.")


def probe(path: str | Path) -> None:
    """Look whether a sound or video file can be opened, without decoding it; a picture is decoded.

    Raises:
        ValueError: if it cannot.
    """
    path = existing(path)
    if path.suffix.lower() in PLAIN:
        _whole_wav(path)
    if path.suffix.lower() in PICTURES:
        picture(path)
    with _opened(path) as container:
        if not container.streams:
            raise ValueError(f"{path} must hold sound or pictures, found nothing.")


def _plain(path: Path) -> tuple[NDArray[np.float64], int]:
    import soundfile

    try:
        with soundfile.SoundFile(path) as opened:
            samples, rate = opened.read(dtype="float64", always_2d=True), int(opened.samplerate)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} must be a sound file, found that it is broken: {error.error_string}") from error
    _whole_wav(path)
    return samples.mean(axis=1), rate


def _whole_wav(path: Path) -> None:
    """Raise for a .wav whose data end before its header says; libsndfile reads what is there without a word."""
    size = path.stat().st_size
    with open(path, "rb") as opened:
        if opened.read(4) != b"RIFF":
            return
        opened.seek(12)
        while len(head := opened.read(8)) == 8:
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                streamed = length in (0, 0xFFFFFFFF)  # a program that wrote into a pipe could not know it
                if not streamed and opened.tell() + length > size:
                    raise ValueError(
                        f"{path} is truncated: its header says {length} bytes of sound, found {size - opened.tell()}."
                    )
                return
            opened.seek(length + length % 2, 1)


def _from_container(path: Path) -> tuple[NDArray[np.float64], int]:
    import av

    with _opened(path) as container:
        if not container.streams.audio:
            raise ValueError(f"{path} must hold sound, found {_streams(container)}.")
        stream = container.streams.audio[0]
        mono = av.AudioResampler(format="fltp")
        parts = [
            f.to_ndarray().astype(np.float64).mean(0) for g in _decoded(container, stream) for f in mono.resample(g)
        ]
        return np.concatenate(parts) if parts else np.empty(0), int(stream.rate)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a container; whatever libav finds wrong with it, here or later, becomes an error that names the file."""
    import av

    try:
        with av.open(str(path)) as container:
            yield container
    except (av.error.FFmpegError, EOFError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"{path} cannot be decoded, it is truncated, corrupt or of an unknown kind: {said}."
        ) from error


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the decoded frames of a stream; a packet that is marked corrupt (its end is missing) is an error."""
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise ValueError(f"{container.name} is truncated or corrupt: a packet of its {stream.type} is not whole.")
        yield from packet.decode()


def _rgb(frame: Any) -> NDArray[np.uint8]:
    """Return the picture in RGB, upright; chroma is interpolated as the ffmpeg program does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: NDArray[np.uint8] = frame.to_ndarray(format="rgb24", interpolation="BICUBIC")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(found, turns)) if turns else found


def _not_cut_short(path: Path, container: Any, end: float) -> None:
    declared = float(Fraction(container.duration or 0, 1_000_000))
    start = float(Fraction(container.start_time or 0, 1_000_000))
    length = end - start
    if length < CUT_SHORT * declared and length < declared - 0.5:
        raise ValueError(f"{path} is truncated: {declared:.2f} s are declared, found video of {length:.2f} s.")


def _streams(container: Any) -> str:
    return (
        " and ".join(sorted({stream.type for stream in container.streams})) + " only"
        if container.streams
        else "nothing"
    )


def existing(path: str | Path) -> Path:
    """Return the path of a file that is there.

    Raises:
        ValueError: if there is none, or a pointer of Git LFS instead.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"A file must be at {path}, found {'a folder' if path.is_dir() else 'none'}.")
    with open(path, "rb") as opened:
        if opened.read(len(POINTER)) == POINTER:
            raise ValueError(
                f"{path} is a pointer of Git LFS and not the file itself. Run `git lfs pull` where it was cloned to."
            )
    return path
