"""Build AV-digits, the dataset inside the wheel: `python tools/build_avdigits.py`, about two minutes on two cores.

Spoken digits come from Debian's speech synthesizers, handwritten ones from scikit-learn, noise from arithmetic. Needs

    apt-get install espeak-ng espeak flite festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts
    pip install -e '.[build-avdigits]'

Every clip draws from a generator of its own, seeded by what it is, so the result depends neither on the order of the
work nor on the number of workers. `--check` builds everything again and compares it with the shipped file.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cyclopts
import numpy as np
import rich
import rich.progress
import soundfile
from numpy.typing import NDArray
from scipy.signal import lfilter, resample_poly
from sklearn.datasets import load_digits

SHIPPED = Path(__file__).parents[1] / "src/msam/data/files/avdigits.npz"
PACKAGES = ("espeak-ng", "espeak", "flite", "festival", "festvox-kallpc16k", "festvox-kdlpc16k", "festvox-us-slt-hts")
PROGRAMS = ("espeak-ng", "espeak", "flite", "text2wave")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SEED = 2025

RATE, WINDOW, HOP, FRAMES, BANDS = 16_000, 512, 400, 32, 32
SAMPLES = WINDOW + (FRAMES - 1) * HOP
STEP = 0.25  # decibels per grey level: 8 bits hold 63.75 dB below the loudest cell of a patch

BLOCKS = (0, 130, 256, 386, 516, 646, 776, 905, 1029, 1157, 1287, 1415, 1545, 1667)  # where a new form begins
BLOCK_SPLITS = (0,) * 9 + (1,) * 2 + (2,) * 3  # 0 train, 1 valid, 2 test
VOICE_TARGETS = (60, 22, 32)
NOISE_SPLITS = (0,) * 18 + (1,) * 6 + (2,) * 8  # of each kind of noise


def main(*, out: Path = SHIPPED, check: bool = False, workers: int = 2) -> None:
    """Build the file, or compare what would be built with the file that is there.

    Args:
        out: where the file goes, or lies.
        check: compare only; exit code 1 when anything differs.
        workers: synthesizers that run at the same time.
    """
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        sys.exit(f"Not installed: {', '.join(missing)}. Try: apt-get install {' '.join(PACKAGES)}")
    built = build(voices(), workers=workers)
    if check:
        found = differences(built, dict(np.load(out, allow_pickle=False)))
        sys.exit("\n".join(f"{out.name}: {line}" for line in found) if found else 0)
    write(built, out)
    rich.print(f"{out}: {out.stat().st_size / 1e6:.2f} MB, sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}")


# --- voices -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, order=True)
class Voice:
    """One voice of one synthesizer."""

    engine: str
    name: str

    @property
    def group(self) -> str:
        """Return the kinship that must not cross splits: the stem of the name, the speaker, or a near clone.

        >>> Voice("flite", "kal16").group == Voice("festival", "kal_diphone").group
        True
        """
        stem = self.name.lower().rstrip("0123456789")
        return KIN.get(stem, stem)

    @property
    def recorded(self) -> bool:
        """Tell whether a recorded human stands behind the voice."""
        return self.engine in ("flite", "festival")


KIN = {
    # one speaker in two engines
    "kal_diphone": "kal",
    "ked_diphone": "ked",
    "cmu_us_slt_arctic_hts": "slt",
    # one character under two names
    "anxiousandy": "andy",
    "anikarobot": "anika",
    "robert": "rob",
    "whisperf": "whisper",
    # under equal settings less than 1 dB apart on average (caleb, klatt and klatt6 are the same to the bit)
    "adam": "klatt",
    "caleb": "klatt",
    "diogo": "michel",
    "henrique": "michel",
    "miguel": "michel",
    "croak": "grandpa",
    "fast": "grandpa",
}
ACCENTS = {
    "espeak-ng": (
        "en",
        "en-us",
        "en-us-nyc",
        "en-029",
        "en-gb-scotland",
        "en-gb-x-gbclan",
        "en-gb-x-gbcwmd",
        "en-gb-x-rp",
    ),
    "espeak": ("en", "en-us", "en-wi", "en-sc", "en-uk-north", "en-uk-wmids", "en-uk-rp"),
}
TAKES = {"espeak-ng": 3, "espeak": 3, "flite": 6, "festival": 6}  # of each digit by each voice


def voices() -> list[Voice]:
    """Return all voices: every espeak-ng variant, one espeak variant of each stem, every recorded speaker."""
    listing = subprocess.run(["espeak-ng", "--voices=variant"], capture_output=True, text=True, check=True).stdout
    variants = [line.partition("!v/")[2].partition("  ")[0].partition(" (")[0] for line in listing.splitlines()[1:]]
    return sorted(
        [Voice("espeak-ng", name.strip()) for name in variants]
        + [Voice("espeak", name) for name in ("croak", "f1", "klatt", "m1", "whisper", "whisperf")]
        + [Voice("flite", name) for name in ("awb", "kal16", "rms", "slt")]
        + [Voice("festival", name) for name in ("cmu_us_slt_arctic_hts", "kal_diphone", "ked_diphone")]
    )


def split_voices(known: Sequence[Voice], targets: Sequence[int] = VOICE_TARGETS) -> dict[Voice, int]:
    """Return the split of every voice; kin stay together, recorded humans and formant voices are spread alike.

    Within recorded and formant voices in turn, groups go from large to small, equals in random order, each to the
    split that lacks most voices.
    """
    split = {}
    for recorded in (True, False):
        stratum = [voice for voice in known if voice.recorded == recorded]
        groups = sorted({voice.group for voice in stratum})
        np.random.default_rng(SEED).shuffle(groups)
        lack = len(stratum) * np.array(targets) / sum(targets)
        for group in sorted(groups, key=lambda g: -sum(voice.group == g for voice in stratum)):
            kin = [voice for voice in stratum if voice.group == group]
            place = int(lack.argmax())
            lack[place] -= len(kin)
            split.update(dict.fromkeys(kin, place))
    return split


def command(voice: Voice, rng: np.random.Generator, wav: str) -> list[str]:
    """Return the command that speaks the word on its standard input into `wav`, with random manner."""
    stretch, shift = rng.uniform(0.8, 1.3), rng.uniform(0.85, 1.2)
    if voice.engine in ACCENTS:
        accent, speed, pitch = str(rng.choice(ACCENTS[voice.engine])), rng.integers(115, 201), rng.integers(20, 81)
        return [voice.engine, "-v", f"{accent}+{voice.name}", "-s", f"{speed}", "-p", f"{pitch}", "--stdin", "-w", wav]
    if voice.engine == "flite":
        mean = 170 if voice.name == "slt" else 110
        settings = {"duration_stretch": stretch, "int_f0_target_mean": mean * shift}
        flags = [flag for name, value in settings.items() for flag in ("--setf", f"{name}={value:.3f}")]
        return ["flite", "-voice", voice.name, *flags, "-o", wav]
    manner = (  # the HTS voice takes no pitch
        f'(set! hts_engine_params (append hts_engine_params \'(("-r" {1 / stretch:.3f}))))'
        if voice.name.endswith("hts")
        else f"(begin (Parameter.set 'Duration_Stretch {stretch:.3f}) (set! int_lr_params '((target_f0_mean "
        f"{105 * shift:.1f}) (target_f0_std 14) (model_f0_mean 170) (model_f0_std 34))))"
    )
    return ["text2wave", "-eval", f"(voice_{voice.name})", "-eval", manner, "-o", wav]


def speak(voice: Voice, digit: int, take: int) -> NDArray[np.uint8]:
    """Return one clip as a patch `(32, 32)`."""
    rng = np.random.default_rng([SEED, zlib.crc32(f"{voice.engine}:{voice.name}".encode()), digit, take])
    with tempfile.TemporaryDirectory() as folder:
        wav = f"{folder}/clip.wav"
        arguments = command(voice, rng, wav)
        done = subprocess.run(arguments, input=WORDS[digit] + "\n", capture_output=True, text=True, check=False)
        if done.returncode or not os.path.exists(wav):
            sys.exit(f"{' '.join(arguments)} failed: {done.stderr}")
        wave, rate = soundfile.read(wav)
    return patch(centred(resample_poly(wave, RATE, rate)))


# --- sound ------------------------------------------------------------------------------------------------------------


def centred(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `SAMPLES` samples: what is louder than -34 dB of the peak, in the middle; a longer word loses its ends."""
    loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
    wave = wave[loud[0] : loud[-1] + 1]
    spare = SAMPLES - len(wave)
    return np.pad(wave, (spare // 2, spare - spare // 2)) if spare >= 0 else wave[-spare // 2 :][:SAMPLES]


def mel_filters() -> NDArray[np.float64]:
    """Return triangles `(32 bands, 257 bins)`, equally spaced in mel from 80 to 7200 Hz."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (80, 7200))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    left, centre, right = (edges[i : i + BANDS, None] for i in range(3))
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    return np.maximum(0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))


def patch(wave: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the log-mel patch `(32 bands, 32 frames)` of a wave `(SAMPLES,)`: 255 is its loudest cell, 0.25 dB a level."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP] * np.hanning(WINDOW)
    power = mel_filters() @ (np.abs(np.fft.rfft(frames)) ** 2).T
    level = 10 * np.log10(np.maximum(power, 1e-12 * power.max()) / power.max())
    return np.clip(np.round(255 + level / STEP), 0, 255).astype(np.uint8)


# --- noise ------------------------------------------------------------------------------------------------------------


def coloured(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return noise whose power falls as f^-a, a from -1 (blue) to 2 (brown)."""
    frequency = np.fft.rfftfreq(SAMPLES, 1 / RATE)
    spectrum = np.fft.rfft(rng.standard_normal(SAMPLES)) * np.maximum(frequency, 40) ** -(rng.uniform(-1, 2) / 2)
    return np.fft.irfft(spectrum, SAMPLES)


def modulated(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return coloured noise that swells 2 to 16 times a second."""
    phase = 2 * np.pi * (rng.uniform(2, 16) * _time() + rng.uniform())
    return coloured(rng) * (0.5 + 0.5 * np.sin(phase)) ** rng.uniform(1, 3)


def hum(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return harmonics of 50 to 200 Hz with random phases, falling as k^-a."""
    pitch, fall = rng.uniform(50, 200), rng.uniform(0.3, 1.5)
    orders = np.arange(1, int(7000 / pitch))
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    return np.sin(2 * np.pi * pitch * np.outer(_time(), orders) + phases) @ orders**-fall


def chirp(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return one to four sweeps between two frequencies of 100 to 7000 Hz."""
    start, stop = np.exp(rng.uniform(np.log(100), np.log(7000), 2))
    progress = (_time() * RATE / SAMPLES * rng.integers(1, 5)) % 1
    return np.sin(2 * np.pi * np.cumsum(start * (stop / start) ** progress) / RATE)


def clicks(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return 4 to 30 bursts of noise, each dying away within 1 to 10 ms."""
    wave = np.zeros(SAMPLES)
    for start in rng.integers(0, SAMPLES, rng.integers(4, 31)):
        left = np.arange(SAMPLES - start)
        wave[start:] += rng.standard_normal(len(left)) * np.exp(-left / RATE / rng.uniform(0.001, 0.01))
    return wave


def formant_bursts(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return two to five syllables without words: pulse trains through three random formants."""
    wave = np.zeros(SAMPLES)
    for _ in range(rng.integers(2, 6)):
        pulses = (np.diff(np.floor(rng.uniform(80, 250) * _time()), prepend=0) > 0).astype(float)
        for low, high in ((250, 850), (850, 2400), (2000, 3500)):
            radius, angle = np.exp(-np.pi * 100 / RATE), 2 * np.pi * rng.uniform(low, high) / RATE
            pulses = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], pulses)
        length = int(rng.uniform(0.08, 0.3) * RATE)
        start = rng.integers(0, SAMPLES - length)
        wave[start : start + length] += pulses[:length] * np.hanning(length)
    return wave


NOISES: Mapping[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    function.__name__: function for function in (coloured, modulated, hum, chirp, clicks, formant_bursts)
}


def noise(kind: str, number: int) -> NDArray[np.uint8]:
    """Return noise patch `(32, 32)` number `number` of a kind, over a faint hiss."""
    rng = np.random.default_rng([SEED, zlib.crc32(kind.encode()), number])
    wave = NOISES[kind](rng)
    return patch(wave + 1e-3 * wave.std() * rng.standard_normal(SAMPLES))


def _time() -> NDArray[np.float64]:
    return np.arange(SAMPLES) / RATE


# --- the file ---------------------------------------------------------------------------------------------------------


def build(known: Sequence[Voice], *, workers: int = 2) -> dict[str, NDArray]:
    """Return the content of the file, array by array, as the data card describes it."""
    clips = [(v, digit, take) for v in known for digit in range(10) for take in range(TAKES[v.engine])]
    with ThreadPoolExecutor(workers) as pool:
        spoken = list(rich.progress.track(pool.map(speak, *zip(*clips, strict=True)), "Speaking", total=len(clips)))
    split, digits = split_voices(known), load_digits()
    noises = [(kind, number) for kind in NOISES for number in range(len(NOISE_SPLITS))]
    form = {"rate": RATE, "window": WINDOW, "hop": HOP, "low": 80, "high": 7200, "seed": SEED}
    return {
        "speech": np.stack(spoken),
        "speech_label": np.array([digit for _, digit, _ in clips], np.uint8),
        "speech_voice": np.array([known.index(voice) for voice, _, _ in clips], np.uint8),
        "voice_name": np.array([f"{voice.engine}:{voice.name}" for voice in known]),
        "voice_group": np.array([voice.group for voice in known]),
        "voice_split": np.array([split[voice] for voice in known], np.uint8),
        "noise": np.stack([noise(kind, number) for kind, number in noises]),
        "noise_kind": np.array([kind for kind, _ in noises]),
        "noise_split": np.array([NOISE_SPLITS[number] for _, number in noises], np.uint8),
        "image": digits.images.astype(np.uint8),
        "image_label": digits.target.astype(np.uint8),
        "image_block": (np.searchsorted(BLOCKS, np.arange(len(digits.target)), side="right") - 1).astype(np.uint8),
        "block_split": np.array(BLOCK_SPLITS, np.uint8),
        "decibel": np.array([STEP, -255 * STEP]),
        "made": np.array(json.dumps({**form, "packages": versions()}, sort_keys=True)),
    }


def versions() -> dict[str, str]:
    """Return the versions of the synthesizers' packages, empty where Debian's tool is not there."""
    if shutil.which("dpkg-query") is None:
        return {}
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *PACKAGES]
    return dict(line.split() for line in subprocess.run(query, capture_output=True, text=True).stdout.splitlines())


def differences(built: Mapping[str, NDArray], found: Mapping[str, NDArray]) -> list[str]:
    """Return what differs between two contents, one line an array."""
    names = sorted({*built, *found})
    absent = [f"{name} is on one side only" for name in names if name not in built or name not in found]
    both = [name for name in names if name in built and name in found]
    return absent + [f"{name} differs" for name in both if not np.array_equal(built[name], found[name])]


def write(content: Mapping[str, NDArray], out: Path) -> None:
    """Write the file whole or not at all; equal content gives equal bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(out.name + ".tmp")
    with unfinished.open("wb") as stream:
        np.savez_compressed(stream, **content)
    os.replace(unfinished, out)


if __name__ == "__main__":
    cyclopts.run(main)
