import ast
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

import msam.report
from msam.report import Report, folder, report, selections
from tests.report._records import config, write

CURVES: dict[str, Any] = {"train": [0.9], "valid": [0.8], "test": [0.7]}


def test_everything_is_written_whole(written: tuple[Report, Path]) -> None:
    made, out = written
    blocks = ("avdigits-late-fusion", "dial-early-fusion")
    pictures = ("accuracy", "curves", "modalities", "tau", "contributions", "dominance")
    expected = {"table.md", "table.csv", "paired.csv", "page.html"}
    expected |= {"gain.png"}
    expected |= {f"paper_{name}.{form}" for name in ("early", "late", "gain", "datasets") for form in ("md", "csv")}
    expected |= {f"{picture}-{block}.png" for picture in pictures for block in blocks}
    assert {path.name for path in out.iterdir()} == expected | {folder.MANIFEST}
    assert set(made.paths) == {out / name for name in expected}


def test_pictures_can_be_read_and_are_not_blank(written: tuple[Report, Path]) -> None:
    for path in written[1].glob("*.png"):
        pixels = matplotlib.image.imread(path)
        assert pixels.shape[1] >= 1200
        assert pixels[..., :3].std() > 0.05, path


def test_one_block_needs_no_name_in_its_pictures(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", config(), **CURVES)
    report(str(tmp_path / "a.jsonl"), tmp_path / "out")
    assert (tmp_path / "out" / "curves.png").exists()
    assert not (tmp_path / "out" / "paired.csv").exists()


def test_rows_and_notes(written: tuple[Report, Path]) -> None:
    made, _ = written
    assert [row.label for row in made.rows][:3] == ["Unimodal audio", "Unimodal image", "Joint"]
    unfinished, diverged, *_ = made.notes
    assert "SAM, seed 77" in unfinished
    assert "cut.jsonl" in unfinished
    assert "2 of 12 epochs" in unfinished
    assert "nan.jsonl" in diverged
    assert "not finite" in diverged


def test_a_report_is_the_same_when_made_again(records: Path, written: tuple[Report, Path], tmp_path: Path) -> None:
    report([records], tmp_path)
    for name in ("table.md", "table.csv", "paired.csv", "page.html"):
        assert (tmp_path / name).read_bytes() == (written[1] / name).read_bytes()


def test_a_failed_picture_leaves_the_old_files_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.jsonl", config(), **CURVES)
    out = tmp_path / "out"
    report([tmp_path / "a.jsonl"], out)
    before = (out / "table.md").read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        report([tmp_path / "a.jsonl"], out)
    assert (out / "table.md").read_bytes() == before
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [folder.MANIFEST]


def test_files_of_an_earlier_report_are_gone_and_what_it_did_not_write_or_someone_changed_stays(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", config(), **CURVES)
    out = tmp_path / "out"
    report([tmp_path / "a.jsonl"], out, formats=("md", "csv", "svg"), paper=True)
    (out / "tau.svg").write_text("drawn anew")
    (out / "curves.png").write_text("mine")
    made = report([tmp_path / "a.jsonl"], out, formats=("md",))
    assert {path.name for path in made.paths} == {"table.md", "page.html"}
    assert {path.name for path in out.iterdir()} == {"table.md", "page.html", "tau.svg", "curves.png", folder.MANIFEST}


@pytest.mark.parametrize("manifest", ["", "[1]", '{"../a.jsonl": "x"}', '{"runs": ""}'])
def test_a_manifest_that_is_none_takes_nothing_away(tmp_path: Path, manifest: str) -> None:
    write(tmp_path / "a.jsonl", config(), **CURVES)
    (tmp_path / "out" / "runs").mkdir(parents=True)
    digest = hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()
    (tmp_path / "out" / folder.MANIFEST).write_text(manifest.replace('"x"', f'"{digest}"'))
    report([tmp_path / "a.jsonl"], tmp_path / "out", formats=("md",))
    assert (tmp_path / "a.jsonl").exists()
    assert (tmp_path / "out" / "runs").exists()


def test_no_records(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No record"):
        report([tmp_path], tmp_path / "out")


def test_nothing_finished_names_what_there_is(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", config(), **CURVES, finished=False)
    with pytest.raises(ValueError, match=r"No run is finished(.|\n)*Joint, seed 0 .*a\.jsonl"):
        report([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_diverged_run_that_stopped_is_called_so(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", config(), **CURVES)
    write(tmp_path / "b.jsonl", config(seed=1), **CURVES, losses=[float("nan")], finished=False)
    lived, stopped = report([tmp_path], tmp_path / "out").notes
    assert lived.startswith("avdigits, late fusion: Joint: 1 of 2 runs diverged. Its numbers are of those that did not")
    assert "Joint, seed 1" in stopped
    assert "diverged" in stopped


def test_a_run_that_ended_as_diverged_is_one_though_every_line_of_it_is_finite(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", config(), **CURVES)
    path = write(tmp_path / "b.jsonl", config(seed=1), **CURVES)
    path.write_text(path.read_text().replace('"finished"', '"diverged"'))
    lived, stopped = report([tmp_path], tmp_path / "out").notes
    assert "1 of 2 runs diverged" in lived
    assert "(diverged)" in stopped


def test_a_row_whose_runs_all_diverged_is_missed(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", config(), **CURVES)
    write(tmp_path / "b.jsonl", config("agm"), **CURVES, losses=[float("nan")], finished=False)
    assert (
        "avdigits, late fusion: AGM: 1 of 1 runs diverged. It has no row." in report([tmp_path], tmp_path / "out").notes
    )


def test_changed_data_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", config(seed=0), **CURVES, fingerprint="a" * 64)
    write(tmp_path / "b.jsonl", config(seed=1), **CURVES, fingerprint="b" * 64)
    with pytest.raises(ValueError, match="the data changed"):
        report([tmp_path], tmp_path / "out")


def test_unknown_selection(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Unknown selection"):
        report([tmp_path], tmp_path / "out", select="best_test")
    assert selections() == ["best_validation", "last"]


def test_five_modalities_and_a_single_one(tmp_path: Path) -> None:
    names = ("audio", "image", "text", "depth", "touch")
    write(tmp_path / "a.jsonl", config(), modalities=names, **CURVES)
    write(tmp_path / "b.jsonl", config({"name": "unimodal", "modality": "text"}), modalities=("text",), **CURVES)
    made = report([tmp_path], tmp_path / "out")
    assert made.sections[0].block.modalities == names
    assert [row.label for row in made.rows] == ["Unimodal text", "Joint"]


def test_only_unimodal_runs(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", config({"name": "unimodal", "modality": "text"}), modalities=("text",), **CURVES)
    assert report([tmp_path], tmp_path / "out").sections[0].paired is None


def test_the_report_reads_records_and_nothing_else() -> None:
    floors = {"msam.record", "msam._files", "msam.checks", "msam.selection", "msam.report"}
    for path in Path(msam.report.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom) and node.module == "msam":
                names = [f"msam.{alias.name}" for alias in node.names]
            for name in names:
                assert name.split(".")[0] != "torch", path
                assert not name.startswith("msam") or ".".join(name.split(".")[:2]) in floors, (path, name)


def test_pyplot_is_never_imported() -> None:
    code = "import sys, msam.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
