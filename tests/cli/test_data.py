"""`msam data`: what it prepares, what it says, how it ends."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from msam import data
from msam.data.cremad import cremad
from tests.fixtures import cremad as fixture

CLIPS = [clip for clip in fixture.names(3) if "_TIE_" in clip]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return fixture.write_release(tmp_path_factory.mktemp("cremad") / "raw", CLIPS)


@pytest.fixture
def prepared(msam_, release, tmp_path):
    assert msam_(f"data prepare cremad --root {release} --out cremad --workers 1")[0] == 0
    return tmp_path / "cremad"


def fails(run, line: str, *words: str) -> None:
    code, out, err = run(line)
    last = err.splitlines()[-1]
    assert (code, out) == (1, ""), (code, out, err)
    assert last.startswith("error: ")
    for word in words:
        assert word in last, (word, last)


class TestPrepare:
    def test_it_writes_a_folder_that_loads(self, msam_, release):
        code, out, err = msam_(f"data prepare cremad --root {release} --out cremad --workers 1 --fps 2 --standardise")
        assert code == 0
        assert "msam data check cremad --root cremad" in out
        assert "found the release" in err
        assert "18 items in cremad" in err
        parameters = json.loads(Path("cremad/manifest.json").read_text())["parameters"]
        assert (parameters["fps"], parameters["standardise"]) == (2, True)
        assert len(cremad(root="cremad").train) == 13

    def test_options_are_those_of_the_datasets_own_function(self, msam_):
        code, out, _ = msam_("data prepare cremad --help")
        assert code == 0
        for words in (
            "--root",
            "--out",
            "--spectrogram",
            "257x188",
            "--fps",
            ">= 1; default: 1",
            "--missing",
            "fail, skip",
        ):
            assert words in out
        assert "--spectrogram" not in msam_("data prepare --help")[1]

    def test_missing_files_end_it_or_are_counted(self, msam_, release, tmp_path):
        raw = shutil.copytree(release, tmp_path / "raw")
        (raw / "VideoFlash" / f"{CLIPS[0]}.flv").unlink()
        line = "data prepare cremad --root raw --out cremad --workers 1"
        fails(msam_, line, "1 of 18 items", f"no video at VideoFlash/{CLIPS[0]}.flv", "--missing skip")
        code, _, err = msam_(f"{line} --missing skip")
        assert code == 0
        assert "17 items in cremad, 1 left out" in err

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("data prepare cremat", ["Unknown dataset 'cremat'", "Did you mean 'cremad'?"]),
            ("data prepare avdigits --root x --out y", ["needs no preparation", "cremad"]),
            ("data prepare cremad --out y", ["needs --root", "--root RAW --out DIR"]),
            ("data prepare cremad --root x", ["needs --out"]),
            ("data prepare cremad --root nowhere --out y", ["found nothing at nowhere"]),
            ("data prepare cremad --root x --out y --fps 0", ["`fps` must be >= 1, received 0"]),
            ("data prepare cremad --root x --out y --fps many", ["many"]),
            ("data prepare cremad --root x --out y --missing skipp", ["Did you mean 'skip'?"]),
            ("data prepare cremad --root x --out y --spectogram a", ["--spectogram"]),
            ("data prepare", ["NAME"]),
        ],
    )
    def test_mistakes_end_with_one_message(self, msam_, line, words):
        fails(msam_, line, *words)

    def test_as_a_program_with_two_workers(self, release, tmp_path):
        line = ["-c", "from msam.cli import main; main()", "data"]
        out = tmp_path / "two"
        command = [
            sys.executable,
            *line,
            "prepare",
            "cremad",
            "--root",
            str(release),
            "--out",
            str(out),
            "--workers",
            "2",
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(json.loads((out / "manifest.json").read_text())["items"]) == 18


class TestCheck:
    def test_it_says_what_is_there_and_draws_it(self, msam_, prepared):
        code, out, _ = msam_("data check cremad --root cremad --split speaker --out shown/picture.png")
        assert code == 0
        assert "18 clips prepared" in out
        for words in ("train", "valid", "test", "neutral", "anger", "fingerprint "):
            assert words in out
        assert Path("shown/picture.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    def test_the_release_as_well(self, msam_, release):
        code, out, _ = msam_(f"data check cremad --root {release} --out picture.png")
        assert code == 0
        assert "18 of 18 clips have sound and video" in out
        assert "Picture: picture.png" in out

    def test_damage_ends_with_code_1(self, msam_, prepared):
        content = bytearray((prepared / "video.frames").read_bytes())
        content[0] ^= 255
        (prepared / "video.frames").write_bytes(content)
        code, out, _ = msam_("data check cremad --root cremad")
        assert code == 1
        assert f"broken  video of {sorted(CLIPS)[0]} has changed" in out

    def test_gaps_end_with_code_1(self, msam_, release, tmp_path):
        raw = shutil.copytree(release, tmp_path / "raw")
        (raw / "AudioWAV" / f"{CLIPS[0]}.wav").unlink()
        code, out, _ = msam_("data check cremad --root raw")
        assert code == 1
        assert f"missing audio of {CLIPS[0]}" in out

    def test_of_many_faults_twenty_are_written_out(self, msam_, release, tmp_path):
        raw = shutil.copytree(release, tmp_path / "raw")
        for number in range(30):
            (raw / "AudioWAV" / f"2001_TIE_HAP_{chr(65 + number // 26)}{chr(65 + number % 26)}.wav").write_bytes(b"")
        code, out, _ = msam_("data check cremad --root raw")
        assert code == 1
        assert out.count("broken  raw/AudioWAV/2001") == 20
        assert "broken  and 10 more" in out

    def test_what_is_not_there_is_an_error(self, msam_):
        fails(msam_, "data check cremad", "MSAM_DATA")
        fails(msam_, "data check cremad --root nowhere", "found nothing at nowhere")

    def test_a_dataset_without_a_check_of_its_own_is_loaded(self, msam_):
        code, out, _ = msam_("data check avdigits --out picture.png")
        assert code == 0
        assert data.load("avdigits")().fingerprint in out

    def test_a_picture_of_no_kind_is_refused(self, msam_, prepared):
        code, _, err = msam_("data check cremad --root cremad --split speaker --out picture.xyz")
        assert code == 1
        assert "must be a picture, e.g. picture.png" in err

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("data check cremat --root x", ["Did you mean 'cremad'?"]),
            ("data check cremad --root . --split speakers", ["speakers"]),
            ("data check", ["NAME"]),
        ],
    )
    def test_mistakes_end_with_one_message(self, msam_, line, words):
        code, out, err = msam_(line)
        assert code == 1
        for word in words:
            assert word in out + err


def test_a_dataset_of_ones_own_brings_its_own_flags(msam_, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_lab.py").write_text(
        "from pathlib import Path\n"
        "def their_lab(*, root=''): ...\n"
        "def prepare(root: str, out: str, *, zoom: float = 1.5) -> Path:\n"
        "    '''Prepare.\\n\\n    Args:\\n        zoom: how near.\\n    '''\n"
        "    Path(out).write_text(f'{root} {zoom}')\n"
        "    return Path(out)\n"
    )
    (tmp_path / "lab").mkdir()
    shutil.move(tmp_path / "their_lab.py", tmp_path / "lab" / "their_lab.py")
    assert "how near [default: 1.5]" in msam_("data prepare lab.their_lab --help")[1]
    assert msam_("data prepare lab.their_lab --root a --out b --zoom 2")[0] == 0
    assert Path("b").read_text() == "a 2.0"


def test_data_stands_among_the_commands(msam_):
    code, out, _ = msam_("--help")
    assert code == 0
    assert "data " in out
    code, out, _ = msam_("data --help")
    assert "prepare" in out
    assert "check" in out
