"""Build AV-digits, the dataset inside the wheel: `python tools/build_avdigits.py`, about a minute on two cores.

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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import avdigits_sound as sound
import cyclopts
import numpy as np
import rich
import rich.progress
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly
from sklearn.datasets import load_digits

SHIPPED = Path(__file__).parents[1] / "src/msam/data/files/avdigits.npz"
PACKAGES = ("espeak-ng", "espeak", "flite", "festival", "festvox-kallpc16k", "festvox-kdlpc16k", "festvox-us-slt-hts")
PROGRAMS = ("espeak-ng", "espeak", "flite", "text2wave")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SEED = 2025

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
    if check and not out.is_file():
        sys.exit(f"Nothing to check: there is no {out}. Build it without --check.")
    built = build(voices(), workers=workers)
    if check:
        found = differences(built, dict(np.load(out, allow_pickle=False)))
        sys.exit("\n".join(f"{out.name}: {line}" for line in found) if found else 0)
    write(built, out)
    rich.print(f"{out}: {out.stat().st_size / 1e6:.2f} MB, sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}")


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
    return sound.patch(sound.centred(resample_poly(wave, sound.RATE, rate)))


def build(known: Sequence[Voice], *, workers: int = 2) -> dict[str, NDArray]:
    """Return the content of the file, array by array, as the data card describes it."""
    clips = [(v, digit, take) for v in known for digit in range(10) for take in range(TAKES[v.engine])]
    with ThreadPoolExecutor(workers) as pool:
        spoken = list(rich.progress.track(pool.map(speak, *zip(*clips, strict=True)), "Speaking", total=len(clips)))
    split, digits = split_voices(known), load_digits()
    noises = [(kind, number) for kind in sound.NOISES for number in range(len(NOISE_SPLITS))]
    form = {"rate": sound.RATE, "window": sound.WINDOW, "hop": sound.HOP, "low": sound.LOW, "high": sound.HIGH}
    return {
        "speech": np.stack(spoken),
        "speech_label": np.array([digit for _, digit, _ in clips], np.uint8),
        "speech_voice": np.array([known.index(voice) for voice, _, _ in clips], np.uint8),
        "voice_name": np.array([f"{voice.engine}:{voice.name}" for voice in known]),
        "voice_group": np.array([voice.group for voice in known]),
        "voice_split": np.array([split[voice] for voice in known], np.uint8),
        "noise": np.stack([sound.noise(kind, number, SEED) for kind, number in noises]),
        "noise_kind": np.array([kind for kind, _ in noises]),
        "noise_split": np.array([NOISE_SPLITS[number] for _, number in noises], np.uint8),
        "image": digits.images.astype(np.uint8),
        "image_label": digits.target.astype(np.uint8),
        "image_block": (np.searchsorted(BLOCKS, np.arange(len(digits.target)), side="right") - 1).astype(np.uint8),
        "block_split": np.array(BLOCK_SPLITS, np.uint8),
        "decibel": np.array([sound.STEP, -255 * sound.STEP]),
        "made": np.array(json.dumps({**form, "seed": SEED, "packages": versions()}, sort_keys=True)),
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
